"""DreamBooth's batches: half of every batch shows the subject, half its class, from one bucket."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from darkroom.train.mixed import MixedPlan, Mixture
from darkroom.train.plan import Batch, BatchPlan, Shape, UInts


class Plan(Protocol):
    """Which pictures make each batch: a function of the step alone."""

    def batch(self, step: int) -> Batch: ...

    def account(self, num_steps: int) -> dict[str, Any]: ...


class PairedPlan:
    """As `BatchPlan`, a function of (seed, global batch size, bucket index), with both halves in every batch.

    The subject's own plan decides the bucket of each step; the class pictures of that bucket are a stream
    beside it. An odd batch has one more picture of the subject.

    Args:
        seed, global_batch_size, buckets, first_step: as of `BatchPlan`.
        priors: uids of the class pictures, (n, 2) uint64.

    Raises:
        ValueError: a bucket holds pictures of the subject and none of the class, or there is no subject.
    """

    def __init__(
        self,
        seed: int,
        global_batch_size: int,
        buckets: Mapping[Shape, UInts],
        priors: UInts,
        first_step: int = 0,
    ) -> None:
        known = {uid.tobytes() for uid in np.asarray(priors, np.uint64)}
        self._places: dict[Shape, tuple[Any, Any]] = {}
        subject, prior = {}, {}
        for shape, uids in buckets.items():
            is_prior = np.array([uid.tobytes() in known for uid in uids], bool)
            self._places[shape] = np.flatnonzero(~is_prior), np.flatnonzero(is_prior)
            subject[shape], prior[shape] = uids[~is_prior], uids[is_prior]
            if len(subject[shape]) and not len(prior[shape]):
                raise ValueError(
                    f"bucket {shape[0]}x{shape[1]} holds pictures of the subject and none of its class;"
                    " write bucket.min_side_px and max_side_px equal to resolution_px: one square bucket"
                )
        num_prior = global_batch_size // 2
        self._subject = BatchPlan(seed, global_batch_size - num_prior, subject, first_step)
        self._classes = {
            shape: BatchPlan(seed, num_prior, {shape: prior[shape]})
            for shape in buckets
            if len(subject[shape])
        }

    def batch(self, step: int) -> Batch:
        """The batch of optimizer step `step`, counted from 0: the subject's pictures first."""
        mine = self._subject.batch(step)
        # A plan of one bucket counts that bucket's batches.
        theirs = self._classes[mine.bucket].batch(self._subject.number(step))
        places = self._places[mine.bucket]
        return Batch(
            step,
            mine.bucket,
            np.concatenate([places[0][mine.index], places[1][theirs.index]]),
            np.concatenate([mine.uids, theirs.uids]),
            np.concatenate([mine.visits, theirs.visits]),
            np.repeat([False, True], [len(mine.index), len(theirs.index)]),
        )

    def account(self, num_steps: int) -> dict[str, Any]:
        """What `num_steps` steps show of the subject, and under `class_pictures` how many there are."""
        return {
            **self._subject.account(num_steps),
            "class_pictures": sum(plan.num_samples for plan in self._classes.values()),
        }


def make_plan(
    seed: int,
    global_batch_size: int,
    buckets: Mapping[Shape, UInts],
    priors: UInts | None,
    first_step: int = 0,
    mixture: Mixture | None = None,
) -> Plan:
    """The plan of a run: paired where class pictures are given, mixed where several datasets are."""
    if mixture is not None:
        return MixedPlan(seed, global_batch_size, buckets, mixture, first_step)
    if priors is None:
        return BatchPlan(seed, global_batch_size, buckets, first_step)
    return PairedPlan(seed, global_batch_size, buckets, priors, first_step)
