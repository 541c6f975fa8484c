"""Averages of any width from a training's snapshots, see `objectives.power_function`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from darkroom.config.post_hoc_ema import MAX_WIDTH, MIN_WIDTH, PostHocEma
from darkroom.objectives.power_function import Profiles, coefficients
from darkroom.train.checkpoint import read_checkpoint, what_is_wrong
from darkroom.train.phases import FinishedTraining
from darkroom.train.power_averages import average_name
from darkroom.train.snapshots import snapshot_folder

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Reconstructed:
    """An average of the weights by name, float32, from `num` stored ones.

    profile_error: how far its profile is from the wanted one, as a part of that one's norm.
    """

    weights: Weights
    profile_error: float
    num: int


@dataclass(frozen=True)
class Held:
    """How well a width's average is reconstructed that is stored: its relative error, and that of its profile."""

    width: float
    error: float
    profile_error: float


def reconstruct(training: FinishedTraining, width: float, step: int | None = None) -> Reconstructed:
    """The average of a width after a step of a training, None for the last, from all snapshots until then.

    Raises:
        ValueError: the training kept none, one is gone or damaged, or the width or step is none that they give.
    """
    check_width(width)
    wanted = snapshots_of(training)
    steps = steps_until(training, step)
    stored = [(at, of) for at in steps for of in wanted.widths]
    found, (error,) = coefficients(Profiles.of(stored), Profiles.of([(steps[-1], width)]))
    shares = dict(zip(stored, found[:, 0].tolist(), strict=True))
    return Reconstructed(_sum(training, shares), float(error), len(stored))


def check_stored(training: FinishedTraining, step: int | None = None) -> list[Held]:
    """For each stored width, its average of a step reconstructed from the snapshots of the other widths alone.

    Raises:
        ValueError: see `reconstruct`.
    """
    wanted = snapshots_of(training)
    steps = steps_until(training, step)
    held = []
    for width in wanted.widths:
        others = [(at, of) for at in steps for of in wanted.widths if of != width]
        found, (error,) = coefficients(Profiles.of(others), Profiles.of([(steps[-1], width)]))
        made = _sum(training, dict(zip(others, found[:, 0].tolist(), strict=True)))
        there = _sum(training, {(steps[-1], width): 1.0})
        held.append(Held(width, relative_error(made, there), float(error)))
    return held


def relative_error(found: Weights, expected: Weights) -> float:
    """The norm of all differences, as a part of the norm of all expected numbers."""
    squares = [
        ((found[name].double() - tensor.double()).square().sum(), tensor.double().square().sum())
        for name, tensor in expected.items()
    ]
    of_differences, of_all = (torch.stack(list(sums)).sum() for sums in zip(*squares, strict=True))
    return float((of_differences / of_all).sqrt())


def check_width(width: float) -> None:
    """Refuse a width that no average has.

    Raises:
        ValueError: says which there are.
    """
    if not MIN_WIDTH <= width < MAX_WIDTH:
        raise ValueError(f"width {width:g} should be at least {MIN_WIDTH} and below {MAX_WIDTH}, such as 0.1")


def snapshots_of(training: FinishedTraining) -> PostHocEma:
    """The section that says which snapshots a training keeps; a ValueError says how to get some."""
    wanted = training.settings.post_hoc_ema
    if wanted is None:
        raise ValueError(
            "this training kept no snapshots: write `post_hoc_ema: {snapshot_every_steps: N}` under `train:` in"
            " the run's file and train it again, from step 0"
        )
    return wanted


def steps_until(training: FinishedTraining, step: int | None) -> Sequence[int]:
    """The steps of a training's snapshots up to one of them.

    Raises:
        ValueError: there is no snapshot of `step`.
    """
    steps = snapshots_of(training).steps(training.num_steps)
    step = steps[-1] if step is None else step
    if step not in steps:
        near = ", ".join(str(at) for at in sorted(sorted(steps, key=lambda at: abs(at - step))[:2]))
        raise ValueError(f"step {step} has no snapshot; the nearest are of the steps {near}")
    return steps[: steps.index(step) + 1]


def _sum(training: FinishedTraining, shares: dict[tuple[int, float], float]) -> Weights:
    """The stored averages of (step, width), each times its share; summed in float64, one file after the other."""
    total: Weights = {}
    for step in sorted({step for step, _ in shares}):
        folder = snapshot_folder(training.folder, training.settings, step)
        _check(folder, training)
        tensors = read_checkpoint(folder).tensors
        for width in (width for at, width in shares if at == step):
            prefix = average_name(width, "")
            for key in sorted(key for key in tensors if key.startswith(prefix)):
                name = key.removeprefix(prefix)
                tensor = tensors[key].double() * shares[step, width]
                total[name] = total[name].add_(tensor) if name in total else tensor
    return {name: tensor.float() for name, tensor in total.items()}


def _check(folder: Path, training: FinishedTraining) -> None:
    """Refuse a snapshot that is not as it was written."""
    again = f"a training alone makes it again, from step 0: remove {training.folder} and run snakemake train"
    if not folder.is_dir():
        raise ValueError(f"{folder}: missing; {again}")
    if wrong := what_is_wrong(folder):
        raise ValueError(f"{folder}: {wrong}; {again}")
