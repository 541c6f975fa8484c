"""The loss on held-out pictures, of the averaged weights: always with the same noise, noise levels and captions.

What is left of its change from one time to the next is the weights': the training loss draws all of these anew.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule

from darkroom.config.run import Train
from darkroom.objectives.training import TrainingObjective
from darkroom.precision import resolve
from darkroom.train import random
from darkroom.train.data import Samples, SampleSource, caption_shares, choose_captions, num_pictures
from darkroom.train.distributed import Ranks
from darkroom.train.held_out import SEED
from darkroom.train.loader import TrainBatch
from darkroom.train.parallel import compute_device
from darkroom.train.plan import Shape, UInts
from darkroom.train.step import NUM_BINS, NUM_MEASURES, add_measures, sample_losses
from darkroom.train.tags import ShownTags

# No noise level lies at infinity.
_EDGE = 2.0**-33


@dataclass(frozen=True)
class _Chunk:
    """Pictures of one bucket that go through the network together: their places in it."""

    bucket: Shape
    places: npt.NDArray[np.int64]


class Validator:
    """Measures the loss on pictures that are held out. Every rank has one, and calls it after the same steps.

    Args:
        samples: the pictures that are held out.
        settings: the `train` section, with `validation`.
        ranks: those that share the work. The sums are the same for any number of them.
    """

    def __init__(self, samples: SampleSource, settings: Train, ranks: Ranks) -> None:
        assert settings.validation is not None
        self._samples, self._settings, self._ranks = samples, settings, ranks
        self._num_levels = settings.validation.num_levels
        self._shares = caption_shares(settings.caption_choice, samples.captions)
        self._objective = TrainingObjective(settings)
        self._uids, size = samples.uids, settings.microbatch_size
        self._chunks = [
            _Chunk(bucket, np.arange(start, min(start + size, len(uids))))
            for bucket, uids in sorted(self._uids.items())
            for start in range(0, len(uids), size)
        ]
        self._num_pictures = num_pictures(samples)

    @torch.no_grad()
    def measure(self, average: nn.Module) -> npt.NDArray[np.float64]:
        """The mean loss, and its means by tenth of the timestep (NaN where no level lies): (1 + NUM_BINS,).

        average: the averaged model, whole or sharded.
        """
        device, ranks = compute_device(average), self._ranks
        table = torch.zeros((len(self._chunks), NUM_MEASURES), dtype=torch.float64, device=device)
        # Sharded ranks bring weights together in every pass, so each makes as many as the others.
        for turn in range(-(-len(self._chunks) // ranks.world_size)):
            place = turn * ranks.world_size + ranks.rank
            measures = self._measures(average, self._chunks[min(place, len(self._chunks) - 1)], device)
            if place < len(self._chunks):
                table[place] = measures
        if ranks.world_size > 1:
            dist.all_reduce(table)  # of which all but one rank's rows are 0
        if isinstance(average, FSDPModule):
            average.reshard()  # or the next step would change shards that nobody looks at
        sums = table.sum(dim=0).cpu().numpy()
        by_bin, counts = sums[2 : 2 + NUM_BINS], sums[2 + NUM_BINS :]
        means = np.divide(by_bin, counts, out=np.full_like(by_bin, np.nan), where=counts > 0)
        return np.concatenate([[sums[0] / (self._num_pictures * self._num_levels)], means])

    def _measures(self, average: nn.Module, chunk: _Chunk, device: torch.device) -> torch.Tensor:
        """The measures (NUM_MEASURES,) of a chunk's pictures at all of their noise levels."""
        measures = torch.zeros(NUM_MEASURES, dtype=torch.float64, device=device)
        is_bfloat16 = resolve(self._settings.dtype, device) == "bfloat16"
        uids = self._uids[chunk.bucket][chunk.places]
        samples = self._gather(chunk, uids)
        for level in range(self._num_levels):
            batch = self._batch(chunk.bucket, samples, uids, level)
            whole = slice(0, len(uids))
            losses, timestep = sample_losses(average, self._objective, batch, whole, device, is_bfloat16)
            add_measures(measures, losses, timestep)
        return measures

    def _gather(self, chunk: _Chunk, uids: UInts) -> Samples:
        """The pictures, each with one of its captions, by its uid, and never with none."""
        once = np.zeros(len(uids), np.int64)
        chance = random.uniform(random.sample_keys(SEED, random.VALIDATION_CAPTION, uids, once))
        captions = choose_captions(self._shares, 0.0, chance, chance)
        wanted, tags = self._settings.tags, None
        if wanted is not None:
            tags = ShownTags(wanted, random.sample_keys(SEED, random.TAGS, uids, once))
        return self._samples.gather(chunk.bucket, chunk.places, captions, tags)

    def _batch(self, bucket: Shape, samples: Samples, uids: UInts, level: int) -> TrainBatch:
        """The pictures with the noise and the noise level that number `level` is for each of them.

        The levels of a picture are one from each of `num_levels` equally likely ranges.
        """
        visits = np.full(len(uids), level, np.int64)
        shape = samples.latents.shape
        noise = random.normal(
            random.sample_keys(SEED, random.VALIDATION_NOISE, uids, visits), shape[1:].numel()
        )
        within = random.uniform(random.sample_keys(SEED, random.VALIDATION_LEVEL, uids, visits))
        quantile = ((level + within) / self._num_levels).clip(_EDGE, 1 - _EDGE)
        normal: Any = torch.special.ndtri(torch.from_numpy(quantile)).float()
        noises = torch.from_numpy(noise).view(shape)
        return TrainBatch(0, bucket, samples.latents, samples.conditioning, noises, normal, uids)
