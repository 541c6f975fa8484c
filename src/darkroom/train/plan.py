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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

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
        places = np.arange(number * self._size, (number + 1) * self._size)
        visits, offsets = np.divmod(places, self._counts[bucket])
        index = np.empty(self._size, np.int64)
        for visit in range(visits[0], visits[-1] + 1):
            chosen = visits == visit
            index[chosen] = self._order_of_pass(bucket, visit)[offsets[chosen]]
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
        seen = [self._visits_of_each(k, before[k], after[k]) for k in range(len(self._shapes))]
        names = [f"{width}x{height}" for width, height in self._shapes]
        small = [max(0, self._size - n) * number for n, number in zip(self._counts, taken, strict=True)]
        return {
            "num_samples": self.num_samples,
            "num_visits": sum(visits),
            "min_visits": min(int(counts.min()) for counts in seen),
            "max_visits": max(int(counts.max()) for counts in seen),
            "never_seen": sum(int((counts == 0).sum()) for counts in seen),
            "repeated": sum(int((counts - 1).clip(0).sum()) for counts in seen),
            "repeated_in_batch": sum(small),
            "samples_by_bucket": dict(zip(names, self._counts, strict=True)),
            "visits_by_bucket": dict(zip(names, visits, strict=True)),
        }

    def _visits_of_each(self, bucket: int, first: int, end: int) -> Ints:
        """How often batches [first, end) of a bucket show each of its pictures (n,)."""
        passes, rests = np.divmod(np.array([first, end]) * self._size, self._counts[bucket])
        counts = np.full(self._counts[bucket], passes[1] - passes[0])
        for visit, rest, change in zip(passes, rests, (-1, 1), strict=True):
            if rest:
                counts[self._order_of_pass(bucket, int(visit))[:rest]] += change
        return counts

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

    def _order_of_pass(self, bucket: int, visit: int) -> Ints:
        return self._orders.order((bucket,), self._uids[bucket], visit)


class PassOrders:
    """In which order each pass shows its pictures; the newest are kept."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._known: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def order(self, stream: tuple[int, ...], uids: UInts, visit: int) -> Ints:
        """The order (n,) of pass `visit` over the pictures (n, 2) of a stream."""

        def make() -> Ints:
            key = fold(mix_seed(self._seed, PASS_STREAM), np.uint64(visit))
            return np.argsort(fold(fold(key, uids[:, 0]), uids[:, 1]), kind="stable")

        return cast(Ints, self.kept(("pass", *stream, visit), make))

    def kept(self, name: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What `make` gives, made again only where it was not asked for lately."""
        if name not in self._known:
            _keep(self._known, name, make(), NUM_CACHED_PASSES)
        return self._known[name]


def check_once(shape: Shape, uids: UInts) -> None:
    """Refuse pictures (n, 2) of a bucket that are not distinct.

    Raises:
        ValueError: names the bucket.
    """
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
    process_group = "".join(uids)
    if len(process_group) != 32 * len(uids):
        raise ValueError("a uid does not have 32 hex digits")
    return np.frombuffer(bytes.fromhex(process_group), ">u8").astype(np.uint64).reshape(-1, 2)


def _keep(cache: OrderedDict[Any, Any], key: Any, value: Any, size: int) -> None:
    cache[key] = value
    while len(cache) > size:
        cache.popitem(last=False)
