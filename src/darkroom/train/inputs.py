"""What a training reads: the files of the cache, what made it, and the run's sections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darkroom.config.run import Train
from darkroom.config.shares import DatasetShare
from darkroom.families.base import ModelSection
from darkroom.models.training_components import TrainingComponents
from darkroom.store import sha256_json
from darkroom.train.data import LatentCache, SampleSource, ShardedSource
from darkroom.train.distributed import Ranks, wait_for_first
from darkroom.train.encoders import EncodedElsewhere, Encoders
from darkroom.train.held_out import Copies, hold_out
from darkroom.train.mixed import Mixture, Share
from darkroom.train.online import OnlineEncoder
from darkroom.train.phases import InitialCheckpoint


@dataclass(frozen=True)
class SampleFiles:
    """The files that samples come from, see `train.data.LatentCache`; tars: see `train.online.OnlineEncoder`.

    owners: where a run has several datasets, the place of each shard's among them.
    """

    shards: Sequence[tuple[str | Path, str | Path]]
    null: str | Path
    expected: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    tars: Sequence[str | Path] = ()
    owners: Sequence[int] = ()

    def open(
        self,
        components: TrainingComponents,
        device: torch.device,
        ranks: Ranks,
        index: str | Path,
        encoders: Encoders | None = None,
    ) -> LatentCache | OnlineEncoder | EncodedElsewhere:
        """The samples, read from the cache or encoded, on `device` or by other ranks.

        index: the file that tells where every picture is, see `train.index`; rank 0 makes it, and all map it.
        encoders: the ranks that only encode, where there are some.

        Raises:
            ValueError: a shard is stale, or no picture is there.
        """
        if not ranks.is_first:
            wait_for_first(ranks)
        found: LatentCache | OnlineEncoder | EncodedElsewhere
        if encoders is not None:
            there = components.vae, encoders, index
            found = EncodedElsewhere(self.shards, self.null, self.expected, *there)
            encoders.index_is_made()
        elif components.cache.online:
            found = self.encoder(components, device, index)
        else:
            found = LatentCache(self.shards, self.null, self.expected, index)
        if ranks.is_first:
            wait_for_first(ranks)
        return found

    def encoder(
        self, components: TrainingComponents, device: torch.device, index: str | Path
    ) -> OnlineEncoder:
        """What encodes the samples on `device`; see `open`."""
        return OnlineEncoder(self.shards, self.tars, self.null, self.expected, components, device, index)


@dataclass(frozen=True)
class TrainInputs:
    """What the stage reads.

    files: of the cache. components: what made it, exported with the model, and the weights to go on from.
    model, settings: the run's `model` and `train` sections.
    priors: uids of DreamBooth's class pictures, half of every batch; None where there are none.
    initial: the end of the phase before, from whose weights a run without checkpoints begins.
    datasets: what is asked of each, where there are several.
    copies: pictures that are copies of others, which are held out together.
    """

    files: SampleFiles
    components: TrainingComponents
    model: ModelSection
    settings: Train
    seed: int
    priors: Sequence[str] | None = None
    initial: InitialCheckpoint | None = None
    datasets: Sequence[DatasetShare] = ()
    copies: Copies = ()

    def split(self, samples: ShardedSource) -> tuple[ShardedSource, SampleSource | None]:
        """What is trained on, and what is held out of it."""
        if self.settings.validation is None:
            return samples, None
        return hold_out(samples, self.settings.validation.share, self.copies)

    def mixture(self, samples: ShardedSource) -> Mixture | None:
        """Which dataset each sample is of, and their shares; None where there is one dataset."""
        if not self.datasets:
            return None
        shares = [
            # As it is written: 0.1 is a tenth.
            Share(of.name, None if of.weight is None else Fraction(str(of.weight)), of.repeats)
            for of in self.datasets
        ]
        owners = np.asarray(self.files.owners)
        return Mixture(shares, {shape: owners[shards] for shape, shards in samples.shards.items()})

    @property
    def key(self) -> str:
        """What all ranks must agree on before they train together."""
        sections = {"model": self.model, "train": self.settings}
        options = {name: section.model_dump(mode="json") for name, section in sections.items()}
        body = {**options, "seed": self.seed, "cache": self.files.expected, "torch": torch.__version__}
        if self.datasets:
            body["datasets"] = [share.model_dump(mode="json") for share in self.datasets]
        return sha256_json(body)[:12]
