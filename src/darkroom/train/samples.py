"""Pictures during training: the same prompts and noise each time, so that progress can be seen."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from darkroom.components.files import moved
from darkroom.config.run import Sampling, Train
from darkroom.models.denoiser import Denoiser
from darkroom.models.lora import has_lora
from darkroom.sample.grid import write_grid
from darkroom.sample.model import SampleModel
from darkroom.sample.options import DrawOptions
from darkroom.sample.seeds import picture_seed
from darkroom.train.training import OnSample

# Called on rank 0 with (the averaged weights' model, completed steps); draws and keeps pictures as it likes, and
# may return one (H, W, 3) uint8 for TensorBoard. It must not touch torch's global state.
DrawSamples = Callable[[SampleModel, int], npt.NDArray[np.uint8] | None]


def sample_writer(
    prompts: Sequence[str], sampling: Sampling, seed: int, folder: str | Path
) -> DrawSamples | None:
    """A function that draws one picture a prompt into `folder`/step-00000500.png, or None without prompts."""
    if not prompts:
        return None
    seeds = [picture_seed(seed, index, 0) for index in range(len(prompts))]

    def draw_samples(model: SampleModel, step: int) -> npt.NDArray[np.uint8]:
        pictures = model.draw(prompts, seeds, DrawOptions(sampling, batch_size=len(prompts)))
        path = write_grid(_sample_path(folder, step), pictures, list(prompts), cell_px=128)
        print(f"train: {len(prompts)} samples of step {step} in {path}")
        return np.concatenate(list(pictures), axis=1)

    return draw_samples


def copy_samples(settings: Train, folder: str | Path, out: str | Path, num_steps: int) -> None:
    """Copy what `sample_writer` drew for this training of `num_steps` into a new folder.

    `folder` may hold more: of a training that was longer, or had drawn at other steps.
    """
    Path(out).mkdir()
    every = settings.sample_every_steps
    for step in range(every, num_steps + 1, every) if every and settings.sample_prompts else ():
        shutil.copy(_sample_path(folder, step), out)


def _sample_path(folder: str | Path, step: int) -> Path:
    return Path(folder) / f"step-{step:08d}.png"


def drawing_from(make_pipeline: Callable[[Denoiser], Any], draw_samples: DrawSamples) -> OnSample:
    """Calls `draw_samples` with a pipeline that is made once, or for adapters, which are merged, each time."""
    made: list[Any] = []

    def on_sample(average: nn.Module, step: int) -> npt.NDArray[np.uint8] | None:
        assert isinstance(average, Denoiser)
        device = next(average.parameters()).device
        if not made or has_lora(average.network):
            made[:] = [make_pipeline(average)]
        try:
            return draw_samples(SampleModel(moved(made[0], device)), step)
        finally:
            _to_cpu(made[0], average)

    return on_sample


def _to_cpu(pipeline: Any, average: nn.Module) -> None:
    """What drawing alone needs, as encoders and VAE, makes room on the GPU until the next picture."""
    trained = set(average.modules())
    for part in pipeline.components.values():
        if isinstance(part, nn.Module) and part not in trained:
            moved(part, torch.device("cpu"))
