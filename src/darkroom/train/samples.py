"""Pictures during training: the same prompts and noise each time, so that progress can be seen."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from darkroom.config.run import Sampling
from darkroom.sample.draw import draw, picture_seed
from darkroom.sample.grid import write_grid
from darkroom.sample.pipeline import DarkroomPipeline
from darkroom.train.stage import DrawSamples


def sample_writer(
    prompts: Sequence[str], sampling: Sampling, seed: int, folder: str | Path
) -> DrawSamples | None:
    """A function that draws one picture a prompt into `folder`/step-00000500.png, or None without prompts."""
    if not prompts:
        return None
    seeds = [picture_seed(seed, index, 0) for index in range(len(prompts))]

    def draw_samples(pipeline: DarkroomPipeline, step: int) -> npt.NDArray[np.uint8]:
        pictures = draw(pipeline, list(prompts), seeds, sampling, batch_size=len(prompts))
        path = write_grid(Path(folder) / f"step-{step:08d}.png", pictures, list(prompts), cell_px=128)
        print(f"train: {len(prompts)} samples of step {step} in {path}")
        return np.concatenate(list(pictures), axis=1)

    return draw_samples
