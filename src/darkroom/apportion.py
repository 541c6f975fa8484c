"""Whole numbers for shares: what a total comes to for each part, and a table with given sums both ways."""

from collections.abc import Sequence
from fractions import Fraction
from math import lcm

# In samples: a dataset that is so far from its share makes up for it faster than by rounding.
_FAR = 2


def apportion(total: int, wishes: Sequence[int]) -> list[int]:
    """`total` cut in proportion to `wishes`, which are not all 0: rounded down, the rest by largest remainder."""
    whole = sum(wishes)
    found = [total * wish // whole for wish in wishes]
    left = total - sum(found)
    by_remainder = sorted(range(len(wishes)), key=lambda k: (-(total * wishes[k] % whole), k))
    for k in by_remainder[:left]:
        found[k] += 1
    return found


def quotas(parts: Sequence[Fraction], taken: Sequence[int], total: int) -> list[int]:
    """How many of `total` samples each dataset gets: its part of them, rounded up or down.

    Those round up that are furthest behind their part of all samples so far. A dataset that is far from it, as
    buckets could not give what was asked, gets more or less than its part.

    Args:
        parts: the share of each, with the sum 1.
        taken: what each has had before.
    """
    behind = [part * sum(taken) - had for part, had in zip(parts, taken, strict=True)]
    if max(map(abs, behind)) >= _FAR:
        wishes = [max(Fraction(0), part * total + more) for part, more in zip(parts, behind, strict=True)]
        unit = lcm(*(wish.denominator for wish in wishes))
        return apportion(total, [int(wish * unit) for wish in wishes])
    fair = [part * total for part in parts]
    found = [int(number) for number in fair]
    open_ = [k for k, number in enumerate(fair) if number != found[k]]
    open_.sort(key=lambda k: (-(behind[k] + fair[k] - found[k]), k))
    for k in open_[: total - sum(found)]:
        found[k] += 1
    return found


def fit(cells: list[list[int]], rows: Sequence[int], may: Sequence[Sequence[bool]]) -> None:
    """Move units inside the columns of `cells` until each row has its sum, in place, as far as that can be.

    Args:
        cells: by row and column; the columns keep their sums.
        rows: the sums that the rows should have; together those of the columns.
        may: where something can be.

    A unit goes from a row with too much to one with too little, through others where it must: the shortest way
    first, so that this ends, and it finds every sum that can be reached (it is a maximal flow).
    """
    excess = [sum(row) - right for row, right in zip(cells, rows, strict=True)]
    while way := _way(cells, excess, may):
        number = min(excess[way[0][0]], -excess[way[-1][1]], *(cells[a][column] for a, _, column in way))
        for giver, taker, column in way:
            cells[giver][column] -= number
            cells[taker][column] += number
        excess[way[0][0]] -= number
        excess[way[-1][1]] += number


def _way(
    cells: list[list[int]], excess: Sequence[int], may: Sequence[Sequence[bool]]
) -> list[tuple[int, int, int]]:
    """(giver, taker, column) of each move from a row with too much to one with too little; [] if there is none."""
    came: dict[int, tuple[int, int, int] | None] = {k: None for k, number in enumerate(excess) if number > 0}
    ahead = list(came)
    for row in ahead:
        for other in range(len(cells)):
            columns = [c for c, number in enumerate(cells[row]) if number > 0 and may[other][c]]
            if other in came or not columns:
                continue
            came[other] = (row, other, max(columns, key=lambda c: (cells[row][c], -c)))
            if excess[other] < 0:
                way: list[tuple[int, int, int]] = []
                step = came[other]
                while step is not None:
                    way.insert(0, step)
                    step = came[step[0]]
                return way
            ahead.append(other)
    return []
