"""Measures a training's steps while they run."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from darkroom.store import write_json
from darkroom.train.loader import TrainBatch
from darkroom.train.plan import Shape
from darkroom.train.speeds import SPEEDS, BucketSpeed, Speeds, read_speeds


class SpeedMeter:
    """Measures the steps of one rank.

    Args:
        count: FLOPs of one picture of a batch's bucket; an exception costs the count, and is told once.
    """

    def __init__(
        self,
        folder: str | Path,
        device: torch.device,
        known: Speeds,
        images_per_step: int,
        count: Callable[[TrainBatch], int],
        log: Callable[[str], None],
    ) -> None:
        self._path, self._device, self._log = Path(folder) / SPEEDS, device, log
        self._images, self._count = images_per_step, count
        self._flops: dict[Shape, int | None] = {}
        self._pending: list[tuple[Shape, Callable[[], float]]] = []
        self._speeds = known
        if self._path.is_file():
            try:
                before = read_speeds(self._path)
            except ValueError as error:
                log(f"train: {error}; it is written anew")
            else:
                # Steps on another kind of device say nothing of this one's.
                if replace(before, buckets={}) == replace(known, buckets={}):
                    self._speeds = before

    @contextmanager
    def step(self, batch: TrainBatch) -> Iterator[None]:
        """In the block the batch is trained on."""
        if batch.bucket not in self._flops:
            self._flops[batch.bucket] = self._counted(batch)
        if self._device.type == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            yield
            last.record()
            self._pending.append((batch.bucket, lambda: _between(first, last)))
        else:
            began = time.perf_counter()
            yield
            seconds = time.perf_counter() - began
            self._pending.append((batch.bucket, lambda: seconds))

    def note(self) -> Speeds:
        """The speeds since the last note; all that is known is kept in the run directory."""
        new: dict[str, BucketSpeed] = {}
        for bucket, seconds in self._pending:
            flops = self._flops[bucket]
            share = None if flops is None else flops * self._images / self._speeds.num_ranks
            name = "x".join(map(str, bucket))
            new[name] = new.get(name, BucketSpeed()).plus(BucketSpeed(1, seconds(), self._images, share))
        self._pending.clear()
        known = dict(self._speeds.buckets)
        for name, of in new.items():
            known[name] = known.get(name, BucketSpeed()).plus(of)
        self._speeds = replace(self._speeds, buckets=known)
        write_json(self._path, asdict(self._speeds))
        return replace(self._speeds, buckets=new)

    @property
    def speeds(self) -> Speeds:
        """All that is known."""
        return self._speeds

    def _counted(self, batch: TrainBatch) -> int | None:
        try:
            return self._count(batch)
        except Exception as error:
            if None not in self._flops.values():
                self._log(f"train: the FLOPs of a step could not be counted ({error}); no MFU is told")
            return None


def _between(first: Any, last: Any) -> float:
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3
