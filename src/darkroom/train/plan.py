"""The batch plan: which pictures make batch b of a run, as a pure function of its number.

Every bucket of n pictures is an endless stream of passes. Pass v holds each picture once, in an order
of its own, so the pass is also the picture's visit number. A batch takes the next B places of one
bucket's stream: what a pass leaves over after its whole batches opens the next pass, and nothing is
dropped. When n < B one batch spans several passes and repeats pictures, each with another visit.

The steps are cut into epochs (about one look at all the data). By the end of epoch c a bucket has had
round(c n / B) batches, so it never strays from its fair share by more than half a batch; inside an
epoch the batches of the buckets are shuffled. Both counts are closed formulas, so any step is found
by bisection without walking there: the state of the data is the step.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom.train.random import fold, mix_seed

Shape = tuple[int, int]
UInts = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

PASS_STREAM, EPOCH_STREAM = 1, 2
NUM_CACHED_PASSES = 64


@dataclass(frozen=True)
class Batch:
    """One global batch: B pictures of one bucket.

    `index` (B,) counts the pictures of the bucket in the order given to the plan, `uids` (B, 2) are
    their identities as two uint64, `visits` (B,) how often each picture was seen before. `is_prior` (B,)
    tells DreamBooth's class pictures; None where there are none.
    """

    step: int
    bucket: Shape
    index: Ints
    uids: UInts
    visits: Ints
    is_prior: npt.NDArray[np.bool_] | None = None


class BatchPlan:
    """The batches of a run, a function of (seed, global batch size, bucket index) alone.

    Args:
        seed: the run's seed.
        global_batch_size: pictures a step, over all ranks.
        buckets: (width, height) -> uids (n, 2) uint64 of its pictures, sorted and distinct.
    """

    def __init__(self, seed: int, global_batch_size: int, buckets: Mapping[Shape, UInts]) -> None:
        self._seed, self._size = seed, global_batch_size
        self._shapes = sorted(shape for shape in buckets if len(buckets[shape]))
        if not self._shapes:
            raise ValueError("the buckets hold no picture, so there is nothing to train on")
        self._uids = [np.asarray(buckets[shape], np.uint64).reshape(-1, 2) for shape in self._shapes]
        self._counts = [len(uids) for uids in self._uids]
        for shape, uids in zip(self._shapes, self._uids, strict=True):
            if len(np.unique(uids, axis=0)) != len(uids):
                raise ValueError(
                    f"bucket {shape[0]}x{shape[1]} holds a uid twice; a picture is in one part only"
                )
        self._epoch_order: OrderedDict[int, tuple[int, Ints, Ints]] = OrderedDict()
        self._pass_order: OrderedDict[tuple[int, int], Ints] = OrderedDict()

    @property
    def num_samples(self) -> int:
        """Pictures in all buckets."""
        return sum(self._counts)

    def batch(self, step: int) -> Batch:
        """The batch of optimizer step `step`, counted from 0."""
        bucket, number = self._place(step)
        places = np.arange(number * self._size, (number + 1) * self._size)
        visits, offsets = np.divmod(places, self._counts[bucket])
        index = np.empty(self._size, np.int64)
        for visit in range(visits[0], visits[-1] + 1):
            chosen = visits == visit
            index[chosen] = self._order_of_pass(bucket, visit)[offsets[chosen]]
        return Batch(step, self._shapes[bucket], index, self._uids[bucket][index], visits)

    def number(self, step: int) -> int:
        """How many batches of the same bucket came before the batch of `step`."""
        return self._place(step)[1]

    def account(self, num_steps: int) -> dict[str, Any]:
        """What `num_steps` steps show of the data.

        Returns num_samples, num_visits (= steps x batch), least and most visits of a picture,
        never_seen (pictures), repeated (visits after a picture's first), repeated_in_batch (those
        forced by buckets smaller than a batch), and by bucket its pictures and its visits.
        """
        taken = self._batches_before(num_steps)
        visits = [number * self._size for number in taken]
        pairs = list(zip(visits, self._counts, strict=True))
        names = [f"{width}x{height}" for width, height in self._shapes]
        small = [max(0, self._size - n) * number for n, number in zip(self._counts, taken, strict=True)]
        return {
            "num_samples": self.num_samples,
            "num_visits": sum(visits),
            "min_visits": min(v // n for v, n in pairs),
            "max_visits": max(-(-v // n) for v, n in pairs),
            "never_seen": sum(max(0, n - v) for v, n in pairs),
            "repeated": sum(max(0, v - n) for v, n in pairs),
            "repeated_in_batch": sum(small),
            "samples_by_bucket": dict(zip(names, self._counts, strict=True)),
            "visits_by_bucket": dict(zip(names, visits, strict=True)),
        }

    def _num_batches(self, bucket: int, epoch: int) -> int:
        """Batches of a bucket before `epoch`: epoch n / B rounded to the nearest, halves up."""
        return (2 * epoch * self._counts[bucket] + self._size) // (2 * self._size)

    def _first_step(self, epoch: int) -> int:
        return sum(self._num_batches(bucket, epoch) for bucket in range(len(self._shapes)))

    def _epoch(self, step: int) -> int:
        """The last epoch that starts at or before `step` and is not empty."""
        low, high = 0, 1
        while self._first_step(high) <= step:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._first_step(middle) <= step else (low, middle)
        return low

    def _shuffled(self, epoch: int) -> tuple[int, Ints, Ints]:
        """(first step, bucket of each step, how many batches of that bucket came before it)."""
        if epoch not in self._epoch_order:
            spans = [
                (self._num_batches(k, epoch), self._num_batches(k, epoch + 1))
                for k in range(len(self._shapes))
            ]
            buckets = np.concatenate([np.full(b - a, k, np.int64) for k, (a, b) in enumerate(spans)])
            key = fold(mix_seed(self._seed, EPOCH_STREAM), np.uint64(epoch))
            buckets = buckets[np.argsort(fold(key, np.arange(len(buckets), dtype=np.uint64)), kind="stable")]
            numbers = np.empty(len(buckets), np.int64)
            for k, (first, end) in enumerate(spans):
                numbers[buckets == k] = np.arange(first, end)
            _keep(self._epoch_order, epoch, (self._first_step(epoch), buckets, numbers), 2)
        return self._epoch_order[epoch]

    def _place(self, step: int) -> tuple[int, int]:
        """The bucket of a step, and the number of the batch among that bucket's."""
        if step < 0:
            raise ValueError(f"step {step} is negative")
        first, buckets, numbers = self._shuffled(self._epoch(step))
        return int(buckets[step - first]), int(numbers[step - first])

    def _batches_before(self, step: int) -> list[int]:
        epoch = self._epoch(step)
        first, buckets, _ = self._shuffled(epoch)
        inside = np.bincount(buckets[: step - first], minlength=len(self._shapes))
        return [self._num_batches(k, epoch) + int(inside[k]) for k in range(len(self._shapes))]

    def _order_of_pass(self, bucket: int, visit: int) -> Ints:
        if (bucket, visit) not in self._pass_order:
            key = fold(mix_seed(self._seed, PASS_STREAM), np.uint64(visit))
            uids = self._uids[bucket]
            order = np.argsort(fold(fold(key, uids[:, 0]), uids[:, 1]), kind="stable")
            _keep(self._pass_order, (bucket, visit), order, NUM_CACHED_PASSES)
        return self._pass_order[bucket, visit]


def parse_uids(uids: "npt.NDArray[Any] | list[str]") -> UInts:
    """Uids of 32 hex digits as (n, 2) uint64, the first column holding the first 16 digits."""
    joined = "".join(uids)
    if len(joined) != 32 * len(uids):
        raise ValueError("a uid does not have 32 hex digits")
    return np.frombuffer(bytes.fromhex(joined), ">u8").astype(np.uint64).reshape(-1, 2)


def _keep(cache: OrderedDict[Any, Any], key: Any, value: Any, size: int) -> None:
    cache[key] = value
    while len(cache) > size:
        cache.popitem(last=False)
