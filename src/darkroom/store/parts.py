"""Parts: the fixed cut of a dataset into units of work."""

import math


def num_parts(num_rows: int, rows_per_part: int) -> int:
    """How many parts `num_rows` rows make (at least one)."""
    return max(1, math.ceil(num_rows / rows_per_part))


def part_name(index: int) -> str:
    """`part-00000` for 0."""
    return f"part-{index:05d}"


def part_index(name: str) -> int:
    """The inverse of `part_name`."""
    return int(name.removeprefix("part-"))
