"""Which dtype a training step of a run is faster in here: bfloat16 autocast or float32, on random numbers.

`dtype: auto` chooses by the processor's instructions; this shows whether the choice is right. On an older
processor, which the two variables play, it must choose float32:

    python trials/precision.py --run demo
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python trials/precision.py --run demo
"""

import argparse
import copy
import time

import numpy as np
import torch

from darkroom.components.text_encoders import load_text_encoder
from darkroom.components.vae import latent_shape, load_vae
from darkroom.config import load_project
from darkroom.families.conditioning import Conditioning
from darkroom.models.families import build_denoiser
from darkroom.models.training_components import TrainingComponents
from darkroom.precision import choose
from darkroom.train.loader import TrainBatch
from darkroom.train.step import Stepper, make_optimizers


def batch_of(name: str) -> tuple[TrainBatch, dict[str, int]]:
    """A whole batch of square pictures with a dozen words each, of random numbers, and the run's sizes."""
    project = load_project(name)
    run, parts = (
        project.run,
        TrainingComponents.from_config(project.run.cache, project.run.model, project.components),
    )
    side, number = run.bucket.resolution_px, run.train.global_batch_size
    encoder, use = load_text_encoder(parts.text_encoders[0]), run.cache.encoders[0]
    words = encoder.read(["a photo of a red circle left of a small blue square"], use, 1)[0]
    generator = torch.Generator().manual_seed(0)
    channels, height, width = latent_shape(load_vae(parts.vae), side, side)
    latents, noise = torch.randn(2, number, channels, height, width, generator=generator)
    text = torch.randn(number, *words.hidden.shape, generator=generator)
    pooled = torch.randn(number, len(words.pooled), generator=generator)
    batch = TrainBatch(
        0, (side, side), latents, Conditioning((text,), (None,), pooled), noise,
        torch.randn(number, generator=generator), np.zeros((number, 2), np.uint64),
    )  # fmt: skip
    return batch, {
        "latent_channels": channels, "text_dim": text.shape[-1], "pooled_dim": pooled.shape[-1],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="demo", help="one with a single text encoder")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    asked = parser.parse_args()
    run, (batch, sizes) = load_project(asked.run).run, batch_of(asked.run)
    torch.set_num_threads(run.train.num_threads or torch.get_num_threads())
    steppers = {}
    for dtype in asked.dtypes:
        model = build_denoiser(run.model, sizes, run.seed)
        average = copy.deepcopy(model).requires_grad_(False)
        settings = run.train.model_copy(update={"dtype": dtype})
        steppers[dtype] = Stepper(model, make_optimizers(model, settings), average, settings)
        steppers[dtype].step(batch)
    seconds: dict[str, list[float]] = {dtype: [] for dtype in steppers}
    # In turn, so that both see what else the machine does.
    for _ in range(asked.steps):
        for dtype, stepper in steppers.items():
            begin = time.process_time()
            stepper.step(batch)
            seconds[dtype].append(time.process_time() - begin)
    chosen, why = choose(torch.device("cpu"))
    for dtype, found in seconds.items():
        print(
            f"{dtype:<10}{1000 * min(found):>8.0f} ms of processor time a step, the quickest of {asked.steps}"
        )
    print(f"auto is {chosen} here: {why}")


if __name__ == "__main__":
    main()
