"""What a training is, and where it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from darkroom.config.run import Train
from darkroom.trackers.base import Board
from darkroom.train.data import SampleSource
from darkroom.train.distributed import Ranks
from darkroom.train.encoders import Encoders
from darkroom.train.mixed import Mixture
from darkroom.train.phases import InitialCheckpoint
from darkroom.train.plan import UInts
from darkroom.train.record import Log, print_line

# Called with (averaged model, completed steps); may return a picture (H, W, 3) uint8 for TensorBoard.
OnSample = Callable[[nn.Module, int], npt.NDArray[np.uint8] | None]


@dataclass(frozen=True)
class Training:
    """What a training is a function of.

    samples: a cache, an encoder, or whatever else gives batches.
    model, average: the network to train and the average of its weights, with their initial weights and on their
        device; both are changed in place.
    settings: the `train` section. seed: of batches, noise and captions.
    priors: uids (n, 2) of DreamBooth's class pictures, half of every batch; None where there are none.
    initial: the end of the phase before, from whose weights a training without checkpoints begins.
    mixture: which datasets the pictures are of, and what share each has; None where there is one.
    held_out: the pictures of `settings.validation`, which are not among `samples`.
    """

    samples: SampleSource
    model: nn.Module
    average: nn.Module
    settings: Train
    seed: int
    priors: UInts | None = None
    initial: InitialCheckpoint | None = None
    mixture: Mixture | None = None
    held_out: SampleSource | None = None


@dataclass(frozen=True)
class TrainingRun:
    """Where a training runs, and who hears of it: nothing that its result depends on.

    folder: checkpoints and TensorBoard of this training alone (`checkpoint.run_key` names one).
    ranks: those that share every batch; each makes a `Trainer`, and rank 0 writes.
    on_sample: draws pictures, on rank 0, when `sample_every_steps` says so.
    check: called before a checkpoint is put in place, and may raise.
    boards: name -> starts what shows curves besides TensorBoard; called on rank 0.
    encoders: the ranks that only encode, which `ranks` does not count; None where there are none.
    """

    folder: str | Path
    ranks: Ranks = field(default_factory=Ranks)
    log: Log = print_line
    on_sample: OnSample | None = None
    check: Callable[[], None] = lambda: None
    boards: Mapping[str, Callable[[], Board]] = field(default_factory=dict)
    encoders: Encoders | None = None
