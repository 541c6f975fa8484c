"""Batches of one rank, made ready on a background thread."""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from darkroom.config.run import Train
from darkroom.families.conditioning import Conditioning
from darkroom.objectives.prior import prior_weights
from darkroom.train import random
from darkroom.train.data import SampleSource, caption_shares, choose_captions, drop_by_encoder
from darkroom.train.distributed import Ranks
from darkroom.train.memory import BatchMemory
from darkroom.train.paired import Plan
from darkroom.train.plan import Shape, UInts
from darkroom.train.tags import ShownTags

NUM_PREFETCHED = 3


@dataclass(frozen=True)
class TrainBatch:
    """One rank's share of a global batch, b pictures of one bucket, on the CPU.

    latents (b, C, H, W) and conditioning in the cache's dtype; noise (b, C, H, W) and timestep_normal (b,)
    float32 from N(0, 1); uids (b, 2) uint64, which pictures these are; weights (b,) of their losses, None
    where all are 1.
    """

    step: int
    bucket: Shape
    latents: torch.Tensor
    conditioning: Conditioning
    noise: torch.Tensor
    timestep_normal: torch.Tensor
    uids: UInts
    weights: torch.Tensor | None = None


def rank_slice(global_batch_size: int, rank: int, world_size: int) -> slice:
    """The places of a global batch that belong to a rank: contiguous, sizes differing by one at most."""
    return slice(global_batch_size * rank // world_size, global_batch_size * (rank + 1) // world_size)


class BatchMaker:
    """Makes one rank's share of any batch: a function of the step alone. Threads may share it.

    Args:
        samples: where pictures and captions come from.
        plan: which of them make a batch.
        settings: the `train` section. seed: of noise, timesteps and captions.
    """

    def __init__(
        self,
        samples: SampleSource,
        plan: Plan,
        settings: Train,
        seed: int,
        ranks: Ranks | None = None,
    ) -> None:
        self.num_steps = settings.num_steps
        self._samples, self._plan, self._settings, self._seed = samples, plan, settings, seed
        self._shares = caption_shares(settings.caption_choice, samples.captions)
        ranks = ranks or Ranks()
        self._memory = BatchMemory()
        self._lock = threading.Lock()  # a plan remembers what it was asked for
        self._slice = rank_slice(settings.global_batch_size, ranks.rank, ranks.world_size)

    def make(self, step: int) -> TrainBatch:
        """The batch of a step, made here and now."""
        part, seed = self._slice, self._seed
        with self._lock:
            batch = self._plan.batch(step)
        uids, visits = batch.uids[part], batch.visits[part]
        captions = choose_captions(
            self._shares,
            self._settings.caption_dropout,
            random.uniform(random.sample_keys(seed, random.CAPTION, uids, visits)),
            random.uniform(random.sample_keys(seed, random.DROPOUT, uids, visits)),
        )
        if self._settings.encoder_dropout:
            dropout = self._settings.encoder_dropout
            keys = random.sample_keys(seed, random.ENCODER_DROPOUT, uids, visits)
            captions = drop_by_encoder(captions, dropout, random.uniforms(keys, len(dropout)))
        tags = None
        if self._settings.tags is not None:
            tags = ShownTags(self._settings.tags, random.sample_keys(seed, random.TAGS, uids, visits))
        samples = self._samples.gather(batch.bucket, batch.index[part], captions, tags)
        shape = samples.latents.shape
        keys = random.sample_keys(seed, random.NOISE, uids, visits)
        laid = self._memory.lay_out([(len(keys), shape[1:].numel())], np.float32)
        noise = random.normal(keys, shape[1:].numel(), laid.arrays[0])
        timestep = random.normal(random.sample_keys(seed, random.TIMESTEP, uids, visits), 1)[:, 0]
        weights = None
        if batch.is_prior is not None:
            assert self._settings.prior_weight is not None, "class pictures come with their weight"
            weights = prior_weights(torch.from_numpy(batch.is_prior), self._settings.prior_weight)[part]
        return TrainBatch(
            step,
            batch.bucket,
            samples.latents,
            samples.conditioning,
            torch.from_numpy(noise).view(shape),
            torch.from_numpy(timestep.copy()),
            uids,
            weights,
        )


class Loader:
    """Iterates over the batches from `first_step` to `last_step`, made ready on a background thread.

    last_step: None is the training's.
    `seconds_waited` adds up how long the consumer stood waiting. Use it as a context manager, so that
    its thread ends. Errors of the thread are raised where the batch is asked for.

    pin_memory: batches come in page-locked memory.
    num_at_once: so many are made at the same time, where other ranks encode them.
    """

    def __init__(
        self,
        batches: BatchMaker,
        first_step: int,
        last_step: int | None = None,
        pin_memory: bool = False,
        num_at_once: int = 1,
    ) -> None:
        self._batches, self._pin, self._num_at_once = batches, pin_memory, num_at_once
        self._steps = range(first_step, batches.num_steps if last_step is None else last_step)
        self.seconds_waited = 0.0
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=NUM_PREFETCHED)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="darkroom-loader", daemon=True)

    def __enter__(self) -> "Loader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def __iter__(self) -> Iterator[TrainBatch]:
        for _ in self._steps:
            start = time.perf_counter()
            item = self._queue.get()
            self.seconds_waited += time.perf_counter() - start
            if isinstance(item, BaseException):
                raise item
            yield item

    def _work(self) -> None:
        for item in self._made():
            while not self._closed.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._closed.is_set() or isinstance(item, Exception):
                return

    def _made(self) -> Iterator[TrainBatch | Exception]:
        """The batches in order, and as the last one the first error."""
        if self._num_at_once == 1:
            yield from map(self._make, self._steps)
            return
        with ThreadPoolExecutor(self._num_at_once, thread_name_prefix="darkroom-asking") as threads:
            waiting: deque[Future[TrainBatch | Exception]] = deque()
            for step in self._steps:
                waiting.append(threads.submit(self._make, step))
                if len(waiting) == self._num_at_once:
                    yield waiting.popleft().result()
            for made in waiting:
                yield made.result()

    def _make(self, step: int) -> TrainBatch | Exception:
        try:
            batch = self._batches.make(step)
            return pinned(batch) if self._pin else batch
        except Exception as error:
            return error


def pinned(batch: TrainBatch) -> TrainBatch:
    """The same batch in page-locked memory, from which a GPU copies without stopping the CPU."""
    copies: dict[str, Any] = {
        k: v.pin_memory() for k, v in vars(batch).items() if isinstance(v, torch.Tensor)
    }
    return replace(batch, conditioning=batch.conditioning.map(torch.Tensor.pin_memory), **copies)
