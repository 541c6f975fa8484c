"""The batch plan: which pictures make batch b of a run, as a pure function of its number.

Every bucket of n pictures is an endless stream of passes. Pass v holds each picture once, in an order
of its own, which `train.permute` computes place by place; so the pass is also the picture's visit
number. A batch takes the next B places of one bucket's stream: what a pass leaves over after its whole
batches opens the next pass, and nothing is dropped. When n < B one batch spans several passes and
repeats pictures, each with another visit.

The steps are cut into epochs (about one look at all the data). By the end of epoch c a bucket has had
round(c n / B) batches, so it never strays from its fair share by more than half a batch; inside an
epoch the batches of the buckets are shuffled. Both counts are closed formulas, so any step is found
by bisection without walking there: the state of the data is the step.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom.train.permute import permuted
from darkroom.train.random import fold, mix_seed

Shape = tuple[int, int]
UInts = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
# How often pictures were shown -> how many of them.
Visits = dict[int, int]

PASS_STREAM, EPOCH_STREAM = 1, 2
NUM_KEPT = 64
# Places of a stream whose order is computed at once.
_BLOCK = 4096
# Uids that are compared at once, which the processor's cache holds.
_CHECKED_AT_ONCE = 1 << 15


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
        first_step: where the run begins in the plan, after the phases before it: its steps are counted from there.
    """

    def __init__(
        self, seed: int, global_batch_size: int, buckets: Mapping[Shape, UInts], first_step: int = 0
    ) -> None:
        self._seed, self._size, self._first = seed, global_batch_size, first_step
        self._shapes = sorted(shape for shape in buckets if len(buckets[shape]))
        if not self._shapes:
            raise ValueError("the buckets hold no picture, so there is nothing to train on")
        self._uids = [np.asarray(buckets[shape], np.uint64).reshape(-1, 2) for shape in self._shapes]
        self._counts = [len(uids) for uids in self._uids]
        for shape, uids in zip(self._shapes, self._uids, strict=True):
            check_once(shape, uids)
        self._epoch_order: OrderedDict[int, tuple[int, Ints, Ints]] = OrderedDict()
        self._orders = PassOrders(seed)

    @property
    def num_samples(self) -> int:
        """Pictures in all buckets."""
        return sum(self._counts)

    def batch(self, step: int) -> Batch:
        """The batch of optimizer step `step`, counted from 0."""
        bucket, number = self._place(step)
        at_once = max(1, _BLOCK // self._size)
        block, inside = divmod(number, at_once)
        first, num = block * at_once * self._size, at_once * self._size
        found = self._orders.kept(
            ("block", bucket, block), lambda: self._orders.looks(self._uids[bucket], first, num)
        )
        index, visits = (part[inside * self._size :][: self._size] for part in found)
        return Batch(step, self._shapes[bucket], index, self._uids[bucket][index], visits)

    def number(self, step: int) -> int:
        """How many batches of the same bucket came before the batch of `step`, those of earlier phases too."""
        return self._place(step)[1]

    def account(self, num_steps: int) -> dict[str, Any]:
        """What `num_steps` steps show of the data.

        Returns num_samples, num_visits (= steps x batch), least and most visits of a picture,
        never_seen (pictures), repeated (visits after a picture's first), repeated_in_batch (those
        forced by buckets smaller than a batch), and by bucket its pictures and its visits.
        """
        before, after = (self._batches_before(step) for step in (self._first, self._first + num_steps))
        taken = [end - start for start, end in zip(before, after, strict=True)]
        visits = [number * self._size for number in taken]
        seen = [
            self._orders.visits(uids, start * self._size, end * self._size)
            for uids, start, end in zip(self._uids, before, after, strict=True)
        ]
        names = [f"{width}x{height}" for width, height in self._shapes]
        small = [max(0, self._size - n) * number for n, number in zip(self._counts, taken, strict=True)]
        return {
            "num_samples": self.num_samples,
            "num_visits": sum(visits),
            **told_visits(seen),
            "repeated_in_batch": sum(small),
            "samples_by_bucket": dict(zip(names, self._counts, strict=True)),
            "visits_by_bucket": dict(zip(names, visits, strict=True)),
        }

    def _num_batches(self, bucket: int, epoch: int) -> int:
        """Batches of a bucket before `epoch`: epoch n / B rounded to the nearest, halves up."""
        return (2 * epoch * self._counts[bucket] + self._size) // (2 * self._size)

    def _first_step(self, epoch: int) -> int:
        return sum(self._num_batches(bucket, epoch) for bucket in range(len(self._shapes)))

    def _shuffled(self, epoch: int) -> tuple[int, Ints, Ints]:
        """(first step, bucket of each step, how many batches of that bucket came before it)."""
        if epoch not in self._epoch_order:
            spans = [
                (self._num_batches(k, epoch), self._num_batches(k, epoch + 1))
                for k in range(len(self._shapes))
            ]
            buckets, numbers = shuffled_places(self._seed, epoch, spans)
            _keep(self._epoch_order, epoch, (self._first_step(epoch), buckets, numbers), 2)
        return self._epoch_order[epoch]

    def _place(self, step: int) -> tuple[int, int]:
        """The bucket of a step, and the number of the batch among that bucket's."""
        if step < 0:
            raise ValueError(f"step {step} is negative")
        step += self._first
        first, buckets, numbers = self._shuffled(epoch_of(step, self._first_step))
        return int(buckets[step - first]), int(numbers[step - first])

    def _batches_before(self, step: int) -> list[int]:
        epoch = epoch_of(step, self._first_step)
        first, buckets, _ = self._shuffled(epoch)
        inside = np.bincount(buckets[: step - first], minlength=len(self._shapes))
        return [self._num_batches(k, epoch) + int(inside[k]) for k in range(len(self._shapes))]


class PassOrders:
    """In which order each pass over a stream shows its pictures; what was asked for lately is kept."""

    def __init__(self, seed: int) -> None:
        self._key = mix_seed(seed, PASS_STREAM)
        self._known: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def looks(self, uids: UInts, first: int, num: int) -> tuple[Ints, Ints]:
        """Places `first` and following of the stream of pictures (n, 2): indices (num,), and their visits."""
        visits, places = np.divmod(np.arange(first, first + num), len(uids))
        # The first uid tells streams apart, whatever they are called.
        key = fold(fold(self._key, uids[0, 0]), uids[0, 1])
        return permuted(fold(key, visits.astype(np.uint64)), len(uids), places), visits

    def visits(self, uids: UInts, first: int, end: int) -> Visits:
        """How many of the pictures (n, 2) places [first, end) of their stream show how often."""
        num = len(uids)
        (passes, rest), (end_passes, end_rest) = divmod(first, num), divmod(end, num)
        whole = end_passes - passes
        if not rest or not whole:
            more = end_rest - rest
            return {n: pictures for n, pictures in ((whole, num - more), (whole + 1, more)) if pictures}
        # Two parts of passes: which of the pictures are in both is to be found.
        counts = np.full(num, whole)
        counts[self.looks(uids, passes * num, rest)[0]] -= 1
        counts[self.looks(uids, end_passes * num, end_rest)[0]] += 1
        values, numbers = np.unique(counts, return_counts=True)
        return dict(zip(values.tolist(), numbers.tolist(), strict=True))

    def kept(self, name: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What `make` gives, made again only where it was not asked for lately."""
        if name not in self._known:
            _keep(self._known, name, make(), NUM_KEPT)
        return self._known[name]


def told_visits(seen: Sequence[Visits]) -> dict[str, int]:
    """Of all streams the least and most visits of a picture, how many have none, and visits after the first."""
    return {
        "min_visits": min(min(of) for of in seen),
        "max_visits": max(max(of) for of in seen),
        "never_seen": sum(of.get(0, 0) for of in seen),
        "repeated": sum((n - 1) * pictures for of in seen for n, pictures in of.items() if n),
    }


def check_once(shape: Shape, uids: UInts) -> None:
    """Refuse pictures (n, 2) of a bucket that are not distinct.

    Raises:
        ValueError: names the bucket.
    """
    # The first half of a uid nearly always tells; of 1e8 pictures each rank does this at its start.
    before, after = uids[:-1, 0], uids[1:, 0]
    blocks = (slice(n, n + _CHECKED_AT_ONCE) for n in range(0, len(before), _CHECKED_AT_ONCE))
    if all((before[block] < after[block]).all() for block in blocks):
        return
    if len(np.unique(uids, axis=0)) != len(uids):
        raise ValueError(f"bucket {shape[0]}x{shape[1]} holds a uid twice; a picture is in one part only")


def epoch_of(step: int, first_step: Callable[[int], int]) -> int:
    """The last epoch that starts at or before `step` and is not empty; `first_step` tells where one starts."""
    low, high = 0, 1
    while first_step(high) <= step:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if first_step(middle) <= step else (low, middle)
    return low


def shuffled_places(seed: int, epoch: int, spans: Sequence[tuple[int, int]]) -> tuple[Ints, Ints]:
    """The batches [first, end) of every bucket in an epoch's order: (bucket of each step, number of its batch)."""
    buckets = np.concatenate([np.full(end - first, k, np.int64) for k, (first, end) in enumerate(spans)])
    key = fold(mix_seed(seed, EPOCH_STREAM), np.uint64(epoch))
    buckets = buckets[np.argsort(fold(key, np.arange(len(buckets), dtype=np.uint64)), kind="stable")]
    numbers = np.empty(len(buckets), np.int64)
    for k, (first, end) in enumerate(spans):
        numbers[buckets == k] = np.arange(first, end)
    return buckets, numbers


def parse_uids(uids: "npt.NDArray[Any] | list[str]") -> UInts:
    """Uids of 32 hex digits as (n, 2) uint64, the first column holding the first 16 digits."""
    digits = "".join(uids)
    if len(digits) != 32 * len(uids):
        raise ValueError("a uid does not have 32 hex digits")
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64).reshape(-1, 2)


def _keep(cache: OrderedDict[Any, Any], key: Any, value: Any, size: int) -> None:
    cache[key] = value
    while len(cache) > size:
        cache.popitem(last=False)
