"""The batch plan of a run on several datasets: each has its share of the samples, exact to one an epoch.

A cell is what one dataset has in one bucket: n pictures, an endless stream of passes in orders of its own, as a
bucket is in `train.plan`. An epoch is as many samples as all passes together have (a picture counts as often as
its dataset repeats it), and at least a batch. Of every epoch

- the batches of each bucket follow from a closed formula, round(c m / B) before epoch c, with m the samples that
  the bucket should give in an epoch;
- the samples of each dataset are its share of the epoch's, rounded up or down;
- the samples of each cell are whole numbers with both of these sums, as near as can be to what its pictures should
  have had by then; what an epoch gives too little, the next ones give more.

A batch is of one bucket, so a share may be out of reach: where two datasets have no bucket in common, whole
batches are all that there is. The plan then comes as near as it can, and later epochs make up for it.

Inside an epoch the batches are shuffled, and the places of a bucket's batches go round the datasets evenly. The
epochs are walked from the first, so all of this is a function of the step, whoever asks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np

from darkroom.apportion import apportion, fit, quotas
from darkroom.train.plan import (
    Batch,
    Ints,
    PassOrders,
    Shape,
    UInts,
    check_once,
    epoch_of,
    shuffled_places,
    told_visits,
)

Cells = list[list[int]]


@dataclass(frozen=True)
class Share:
    """What a run asks of one dataset: `weight` its part of the samples, None for as many as its passes have;
    `repeats` how often a pass shows each of its pictures."""

    name: str
    weight: Fraction | None = None
    repeats: int = 1


@dataclass(frozen=True)
class Mixture:
    """The datasets of a run, and for each bucket (n,) to which of them its pictures belong, in its order."""

    shares: Sequence[Share]
    owners: Mapping[Shape, Ints]


class MixedPlan:
    """The batches of a run on several datasets, a function of (seed, global batch size, bucket index, mixture).

    Args:
        seed, global_batch_size, first_step: as of `BatchPlan`.
        buckets: as of `BatchPlan`; a picture may be in several datasets, and is there once for each.

    Raises:
        ValueError: a dataset has no picture in any bucket, or one twice.
    """

    def __init__(
        self,
        seed: int,
        global_batch_size: int,
        buckets: Mapping[Shape, UInts],
        mixture: Mixture,
        first_step: int = 0,
    ) -> None:
        self._seed, self._size, self._first = seed, global_batch_size, first_step
        self._shares = list(mixture.shares)
        self._shapes = sorted(shape for shape in buckets if len(buckets[shape]))
        self._uids = [np.asarray(buckets[shape], np.uint64).reshape(-1, 2) for shape in self._shapes]
        owners = [np.asarray(mixture.owners[shape]) for shape in self._shapes]
        datasets = range(len(self._shares))
        # By dataset and bucket: places in the bucket's index.
        self._places = [[np.flatnonzero(of == d) for of in owners] for d in datasets]
        self._cells = [
            [uids[places] for uids, places in zip(self._uids, row, strict=True)] for row in self._places
        ]
        self._counts: Cells = [[len(places) for places in row] for row in self._places]
        for row, share in zip(self._counts, self._shares, strict=True):
            if not sum(row):
                raise ValueError(
                    f"datasets: {share.name} has no picture in any bucket, so there is no share to take of it;"
                    " look at its filter's and bucket's counts, or leave it out"
                )
        self._orders = PassOrders(seed)
        self._find_copies()
        self._find_rates()
        # The epoch that was asked for last, its first step and its order.
        self._newest = 0, 0, (np.empty(0, np.int64), np.empty(0, np.int64))
        # Before epoch c, how many samples each cell has given.
        self._taken: list[Cells] = [[[0] * len(self._shapes) for _ in datasets]]

    def _find_copies(self) -> None:
        """How many datasets hold a picture, and which of these its place is: each has visits of its own."""
        self._num_copies, self._copy = [], []
        for bucket, (shape, uids) in enumerate(zip(self._shapes, self._uids, strict=True)):
            for row in self._places:
                check_once(shape, uids[row[bucket]])
            _, which, counts = np.unique(uids, axis=0, return_inverse=True, return_counts=True)
            which = which.reshape(-1)
            copy, seen = np.zeros(len(uids), np.int64), np.zeros(len(counts), np.int64)
            for row in self._places:
                mine = which[row[bucket]]
                copy[row[bucket]] = seen[mine]
                seen[mine] += 1
            self._num_copies.append(counts[which])
            self._copy.append(copy)

    def _find_rates(self) -> None:
        """Shares, the samples of an epoch, and what each cell should give of them, over one denominator."""
        totals = [sum(row) for row in self._counts]
        looks = [total * share.repeats for total, share in zip(totals, self._shares, strict=True)]
        asked = [
            Fraction(n) if share.weight is None else share.weight
            for n, share in zip(looks, self._shares, strict=True)
        ]
        self._parts = [weight / sum(asked) for weight in asked]
        epoch = sum(looks) * -(-self._size // sum(looks))
        rates = [
            [epoch * part * n / total for n in row]
            for part, row, total in zip(self._parts, self._counts, totals, strict=True)
        ]
        self._unit = lcm(*(rate.denominator for row in rates for rate in row))
        self._fair = [[int(rate * self._unit) for rate in row] for row in rates]
        self._of_bucket = [sum(column) for column in zip(*self._fair, strict=True)]

    @property
    def num_samples(self) -> int:
        """Pictures in all buckets; one of several datasets counts in each."""
        return sum(map(sum, self._counts))

    @property
    def shares(self) -> dict[str, Fraction]:
        """Dataset -> its share of the samples."""
        return {share.name: part for share, part in zip(self._shares, self._parts, strict=True)}

    def first_step(self, epoch: int) -> int:
        """How many batches come before an epoch, those of earlier phases too."""
        return sum(self._num_batches(bucket, epoch) for bucket in range(len(self._shapes)))

    def batch(self, step: int) -> Batch:
        """The batch of optimizer step `step`, counted from 0."""
        if step < 0:
            raise ValueError(f"step {step} is negative")
        epoch, bucket, number = self._place(step + self._first)
        whose = self._sequence(epoch, bucket)
        before, mine = np.split(whose[: (number + 1) * self._size], [number * self._size])
        index, visits = np.empty(self._size, np.int64), np.empty(self._size, np.int64)
        for dataset in np.unique(mine).tolist():
            chosen = mine == dataset
            first = self._taken[epoch][dataset][bucket] + int((before == dataset).sum())
            index[chosen], visits[chosen] = self._looks(dataset, bucket, first, int(chosen.sum()))
        visits = visits * self._num_copies[bucket][index] + self._copy[bucket][index]
        return Batch(step, self._shapes[bucket], index, self._uids[bucket][index], visits)

    def account(self, num_steps: int) -> dict[str, Any]:
        """As `BatchPlan.account`, by dataset too: its pictures, its samples, the share asked for and the one that
        the steps give; and `in_several_datasets`, pictures that more than one holds."""
        ends = (self._first, self._first + num_steps)
        before, after = (self._taken_before(step) for step in ends)
        taken = np.array(after) - np.array(before)
        cells = [(d, b) for d, row in enumerate(self._counts) for b, n in enumerate(row) if n]
        seen = [self._orders.visits(self._cells[d][b], before[d][b], after[d][b]) for d, b in cells]
        shapes = [f"{width}x{height}" for width, height in self._shapes]
        names = [share.name for share in self._shares]
        num_visits, by_dataset = int(taken.sum()), taken.sum(axis=1).tolist()
        return {
            "num_samples": self.num_samples,
            "num_visits": num_visits,
            **told_visits(seen),
            "repeated_in_batch": self._repeated_in_batch(*ends),
            "samples_by_bucket": dict(zip(shapes, map(len, self._uids), strict=True)),
            "visits_by_bucket": dict(zip(shapes, taken.sum(axis=0).tolist(), strict=True)),
            "samples_by_dataset": dict(zip(names, map(sum, self._counts), strict=True)),
            "visits_by_dataset": dict(zip(names, by_dataset, strict=True)),
            "share_asked": {name: round(float(part), 6) for name, part in self.shares.items()},
            "share_given": {
                name: round(visits / max(1, num_visits), 6)
                for name, visits in zip(names, by_dataset, strict=True)
            },
            "in_several_datasets": sum(int((n > 1).sum()) - int((c > 0).sum()) for n, c in self._copies()),
        }

    def visits_by_dataset(self, num_steps: int) -> dict[str, Ints]:
        """Dataset -> (num_steps,) how many samples of each step are its own."""
        found = np.zeros((num_steps, len(self._shares)), np.int64)
        for step in range(num_steps):
            epoch, bucket, number = self._place(step + self._first)
            mine = self._sequence(epoch, bucket)[number * self._size : (number + 1) * self._size]
            found[step] = np.bincount(mine, minlength=len(self._shares))
        return {share.name: found[:, d] for d, share in enumerate(self._shares)}

    def _copies(self) -> list[tuple[Ints, Ints]]:
        return list(zip(self._num_copies, self._copy, strict=True))

    def _looks(self, dataset: int, bucket: int, first: int, number: int) -> tuple[Ints, Ints]:
        """Places `first` and following of a cell's stream: which pictures of the bucket, and their visits."""
        index, visits = self._orders.looks(self._cells[dataset][bucket], first, number)
        return self._places[dataset][bucket][index], visits

    def _num_batches(self, bucket: int, epoch: int) -> int:
        """Batches of a bucket before `epoch`: its fair samples by then over B, to the nearest, halves up."""
        one = self._size * self._unit
        return (2 * epoch * self._of_bucket[bucket] + one) // (2 * one)

    def _place(self, step: int) -> tuple[int, int, int]:
        """The epoch of a step, its bucket, and the number of the batch among that bucket's of the epoch."""
        first, epoch, (buckets, numbers) = self._newest
        if not first <= step < first + len(buckets):
            epoch = epoch_of(step, self.first_step)
            first, (buckets, numbers) = self.first_step(epoch), self._shuffled(epoch)
            self._newest = first, epoch, (buckets, numbers)
        return epoch, int(buckets[step - first]), int(numbers[step - first])

    def _shuffled(self, epoch: int) -> tuple[Ints, Ints]:
        spans = [
            (self._num_batches(bucket, epoch), self._num_batches(bucket, epoch + 1))
            for bucket in range(len(self._shapes))
        ]
        return self._orders.kept(
            ("epoch", epoch), lambda: shuffled_places(self._seed, epoch, [(0, b - a) for a, b in spans])
        )

    def _sequence(self, epoch: int, bucket: int) -> Ints:
        """Whose turn each place of a bucket's batches of an epoch is: every dataset's places lie evenly."""
        return self._orders.kept(("turns", epoch, bucket), lambda: self._turns(epoch, bucket))

    def _turns(self, epoch: int, bucket: int) -> Ints:
        self._walk_to(epoch + 1)
        numbers = [
            after[bucket] - before[bucket]
            for before, after in zip(self._taken[epoch], self._taken[epoch + 1], strict=True)
        ]
        whose = np.repeat(np.arange(len(numbers)), numbers)
        at = np.concatenate([(2 * np.arange(n) + 1) / (2 * max(1, n)) for n in numbers])
        return np.asarray(whose[np.argsort(at, kind="stable")], np.int64)

    def _walk_to(self, epoch: int) -> None:
        while len(self._taken) <= epoch:
            self._taken.append(self._next(len(self._taken) - 1))

    def _next(self, epoch: int) -> Cells:
        """What each cell has given after `epoch`."""
        taken, buckets = self._taken[epoch], range(len(self._shapes))
        columns = [
            self._size * (self._num_batches(b, epoch + 1) - self._num_batches(b, epoch)) for b in buckets
        ]
        rows = quotas(self._parts, [sum(row) for row in taken], sum(columns))
        wishes = [
            [max(0, (epoch + 1) * fair - self._unit * had) for fair, had in zip(row, given, strict=True)]
            for row, given in zip(self._fair, taken, strict=True)
        ]
        chosen: Cells = [[0] * len(self._shapes) for _ in self._shares]
        for bucket, number in enumerate(columns):
            wanted = [row[bucket] for row in wishes]
            fair = [row[bucket] for row in self._fair]
            for row, part in zip(chosen, apportion(number, wanted if any(wanted) else fair), strict=True):
                row[bucket] = part
        fit(chosen, rows, [[n > 0 for n in row] for row in self._counts])
        return [
            [had + more for had, more in zip(given, row, strict=True)]
            for given, row in zip(taken, chosen, strict=True)
        ]

    def _taken_before(self, step: int) -> Cells:
        epoch = epoch_of(step, self.first_step)
        self._walk_to(epoch)
        buckets, _ = self._shuffled(epoch)
        done = np.bincount(buckets[: step - self.first_step(epoch)], minlength=len(self._shapes))
        found = [list(row) for row in self._taken[epoch]]
        for bucket, number in enumerate(done.tolist()):
            whose = self._sequence(epoch, bucket)[: number * self._size]
            for dataset, more in enumerate(np.bincount(whose, minlength=len(self._shares)).tolist()):
                found[dataset][bucket] += more
        return found

    def _repeated_in_batch(self, first: int, end: int) -> int:
        """Looks of steps [first, end) at a picture that the same batch shows before, as its cell has too few."""
        repeated = 0
        for step in range(first, end):
            epoch, bucket, number = self._place(step)
            if min(row[bucket] for row in self._counts) < self._size:
                mine = self._sequence(epoch, bucket)[number * self._size : (number + 1) * self._size]
                for dataset, looks in enumerate(np.bincount(mine).tolist()):
                    repeated += max(0, looks - self._counts[dataset][bucket])
        return repeated
