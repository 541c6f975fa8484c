"""Can a model draw a black and a white picture? Epsilon, v, and v with a zero terminal SNR.

    python experiments/zero_terminal_snr.py --out FOLDER

The same UNet on the same pictures with the same captions, batches and noise; only the objective differs. Prints
the mean brightness of what is drawn for two prompts, and writes the table and a sheet of pictures.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small import MemoryCache, demo_text_encoder, demo_vae, draw, train

from darkroom.config.model import read_model
from darkroom.config.run import Sampling, TextEncoderUse, Train
from darkroom.models.families import build_denoiser
from darkroom.sample.families import make_family_pipeline
from darkroom.sample.grid import write_grid
from darkroom.sample.samplers import make_sampler
from darkroom.sample.schedulers import make_scheduler
from darkroom.sample.seeds import picture_seed
from darkroom_demo.captions import short_caption
from darkroom_demo.render import render
from darkroom_demo.scenes import sample_scene

SIDE_PX, SEED = 128, 0
SHADES = {"black": 0.0, "grey": 0.42, "white": 1.0}
UNET = {
    "block_out_channels": [64, 128],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    "sample_size": SIDE_PX // 16,
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "epsilon": {"prediction": "epsilon", "schedule": "scaled_linear"},
    "v": {"prediction": "v", "schedule": "scaled_linear", "weighting": "min_snr", "weight_floor": 1.0},
    "v, zero terminal SNR": {
        "prediction": "v",
        "schedule": "scaled_linear",
        "zero_terminal_snr": True,
        "weighting": "min_snr",
        "weight_floor": 1.0,
    },
}
PROMPTS = {"a black picture": 0.0, "a white picture": 1.0}  # and the brightness that is right
TOLERANCE = 0.1
USE = TextEncoderUse(name="demo-text", max_tokens=32, padded=True)
SAMPLING = Sampling(num_inference_steps=25, guidance_scale=3.0, width_px=SIDE_PX, height_px=SIDE_PX)
HEADER = """| Objective | Prompt | Right | Mean brightness | Range | Within 0.1 |
|---|---|---|---|---|---|"""


def world(num_scenes: int, num_plain: int) -> tuple[np.ndarray, list[str]]:
    """Scenes of the demo world, and for each shade `num_plain` plain pictures with a little grain."""
    rng = np.random.default_rng(SEED)
    pictures, captions = [], []
    for _ in range(num_scenes):
        scene = replace(sample_scene(rng, sides_px=(SIDE_PX, SIDE_PX)), width=SIDE_PX, height=SIDE_PX)
        pictures.append(render(scene))
        captions.append(short_caption(scene))
    for name, shade in SHADES.items():
        for _ in range(num_plain):
            grain = rng.normal(shade, 0.02, (SIDE_PX, SIDE_PX, 1)).clip(0, 1)
            pictures.append(np.rint(grain * 255).astype(np.uint8).repeat(3, axis=2))
            captions.append(f"a {name} picture")
    return np.stack(pictures), captions


def trained_pipeline(
    objective: dict[str, Any], cache: MemoryCache, vae: Any, encoder: Any, num_steps: int
) -> Any:
    """The pipeline of a UNet trained from scratch with an objective."""
    settings = Train(
        num_steps=num_steps,
        global_batch_size=32,
        microbatch_size=32,
        learning_rate=1e-3,
        weight_decay=0.0,
        num_warmup_steps=num_steps // 20,
        ema_decay=0.99,
        log_every_steps=100,
        objective=objective,
    )
    denoiser = build_denoiser(read_model({"family": "unet-sd", "params": UNET}), cache.sizes, SEED)
    average = train(denoiser, cache, settings, SEED)
    scheduler = make_scheduler(settings, SIDE_PX**2)
    pipeline = make_family_pipeline(average, vae, [encoder], [USE], True, scheduler)
    pipeline.scheduler = make_sampler("euler", scheduler.config)
    return pipeline


def row(objective: str, prompt: str, wanted: float, brightness: np.ndarray) -> str:
    """A line of the table: the mean over the pictures, their range, and the verdict."""
    mean = brightness.mean()
    verdict = "yes" if abs(mean - wanted) <= TOLERANCE else "no"
    least, most = brightness.min(), brightness.max()
    return f"| {objective} | {prompt} | {wanted:g} | {mean:.3f} | {least:.2f} to {most:.2f} | {verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-steps", type=int, default=500)
    parser.add_argument("--num-scenes", type=int, default=300)
    parser.add_argument("--num-plain", type=int, default=50, help="plain pictures of each shade")
    parser.add_argument("--num-pictures", type=int, default=8, help="drawn of each prompt")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    vae, encoder = demo_vae(), demo_text_encoder()
    cache = MemoryCache(*world(arguments.num_scenes, arguments.num_plain), vae, [(encoder, USE)])
    num = arguments.num_pictures
    prompts = [prompt for prompt in PROMPTS for _ in range(num)]
    seeds = [picture_seed(SEED, p, k) for p in range(len(PROMPTS)) for k in range(num)]
    rows, shown, captions = [], [], []
    for name, objective in OBJECTIVES.items():
        print(name, flush=True)
        pipeline = trained_pipeline(objective, cache, vae, encoder, arguments.num_steps)
        pictures = draw(pipeline, prompts, seeds, SAMPLING).reshape(len(PROMPTS), num, SIDE_PX, SIDE_PX, 3)
        for (prompt, wanted), drawn in zip(PROMPTS.items(), pictures, strict=True):
            rows.append(row(name, prompt, wanted, drawn.mean(axis=(1, 2, 3)) / 255))
            shown.extend(drawn[:4])
            captions.extend([f"{name}: {prompt}"] * len(drawn[:4]))
    table = "\n".join([HEADER, *rows])
    print(f"{table}\n{(time.perf_counter() - start) / 60:.1f} minutes")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "zero-terminal-snr.md").write_text(table + "\n")
    write_grid(arguments.out / "zero-terminal-snr.png", np.stack(shown), captions, min(4, num))


if __name__ == "__main__":
    main()
