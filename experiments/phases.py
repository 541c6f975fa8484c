"""Phases: what a training at a larger size gains from one at a smaller size before it.

    python experiments/phases.py --out FOLDER

An MMDiT learns scenes of the demo world at 64 px. Then it learns them at 128 px twice, with the same settings,
batches and noise: from the first training's checkpoint, as `train.initial_run` does it, and from noise. Prints
the loss at both ends of each training; writes the table and the curves.
"""

import argparse
import copy
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from small import MemoryCache, demo_text_encoder, demo_vae

from darkroom.config.model import read_model
from darkroom.config.run import TextEncoderUse, Train
from darkroom.models.families import build_denoiser
from darkroom.report.plots import running_mean
from darkroom.store import replacing
from darkroom.train.checkpoint import checkpoint_folder
from darkroom.train.phases import InitialCheckpoint
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun
from darkroom_demo.captions import short_caption
from darkroom_demo.render import render
from darkroom_demo.scenes import sample_scene

SEED, SMALL_PX, LARGE_PX, NUM_AT_AN_END = 0, 64, 128, 10
MODEL = {"family": "mmdit", "num_blocks": 4, "num_heads": 3, "head_dim": 64, "patch_size": 1}
USE = TextEncoderUse(name="demo-text", max_tokens=24, padded=True, hidden_layer=-2, pooled=True)
FIRST, SECOND, AFRESH = "phase one", "phase two, from phase one", "phase two, from noise"
COLORS = {FIRST: "#7a736b", SECOND: "#b3271e", AFRESH: "#2b5c8a"}
HEADER = f"""| Training | Size | First {NUM_AT_AN_END} steps' loss | Last {NUM_AT_AN_END} steps' loss |
|---|---|---|---|"""


def world(num: int, side_px: int) -> tuple[np.ndarray, list[str]]:
    """Square scenes of the demo world: the same ones at every size."""
    rng = np.random.default_rng(SEED)
    scenes = [sample_scene(rng, sides_px=(LARGE_PX, LARGE_PX)) for _ in range(num)]
    pictures = [render(replace(scene, width=side_px, height=side_px)) for scene in scenes]
    return np.stack(pictures), [short_caption(scene) for scene in scenes]


def settings_of(num_steps: int, learning_rate: float) -> Train:
    """Rectified flow and Muon, as the demo's run; one checkpoint, at the end."""
    return Train(
        num_steps=num_steps,
        global_batch_size=32,
        microbatch_size=32,
        optimizer="muon",
        learning_rate=learning_rate,
        muon_learning_rate=10 * learning_rate,
        weight_decay=0.0,
        num_warmup_steps=num_steps // 20,
        timestep_shift=2.0,
        ema_decay=0.99,
        checkpoint_every_steps=num_steps,
        log_every_steps=50,
    )


def losses(
    cache: MemoryCache, settings: Train, run_dir: Path, initial: InitialCheckpoint | None = None
) -> np.ndarray:
    """The loss of every step (num_steps,) of a training from the same weights.

    Positions are divided by the growth in size, so that a larger picture has those of a small one.
    """
    growth = cache.bucket[0] / SMALL_PX
    denoiser = build_denoiser(read_model({**MODEL, "position_interpolation": growth}), cache.sizes, SEED)
    average = copy.deepcopy(denoiser).eval().requires_grad_(False)
    training = Training(cache, denoiser.train(), average, settings, SEED, initial=initial)
    history = Trainer(training, TrainingRun(run_dir, log=lambda text: print(f"  {text}", flush=True))).train()
    return history.rows[:, 0]


def write_curves(path: Path, curves: dict[str, np.ndarray]) -> None:
    """The running means over 10 steps; both second phases begin where the first one ends."""
    style: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
    with matplotlib.rc_context({**style, "grid.color": "#ded8cf"}):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for name, values in curves.items():
            steps = np.arange(1, len(values) + 1) + (0 if name == FIRST else len(curves[FIRST]))
            axes.plot(steps, values, color=COLORS[name], alpha=0.2, linewidth=0.8)
            axes.plot(steps, running_mean(values, 10), color=COLORS[name], linewidth=1.8, label=name)
        axes.set(xlabel="step", ylabel="loss", xlim=(0, None), ylim=(0, None))
        axes.legend(frameon=False)
        with replacing(path) as beside:
            figure.savefig(beside, format="png", dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-first-steps", type=int, default=500)
    parser.add_argument("--num-steps", type=int, default=150, help="of each training at the larger size")
    parser.add_argument("--num-scenes", type=int, default=600)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    vae, encoders = demo_vae(), [(demo_text_encoder(), USE)]
    first = settings_of(arguments.num_first_steps, 2e-3)
    second = settings_of(arguments.num_steps, 1e-3)
    small, large = (
        MemoryCache(*world(arguments.num_scenes, side_px), vae, encoders) for side_px in (SMALL_PX, LARGE_PX)
    )
    with tempfile.TemporaryDirectory() as folder:
        run_dirs = {name: Path(folder) / str(k) for k, name in enumerate((FIRST, SECOND, AFRESH))}
        curves = {FIRST: losses(small, first, run_dirs[FIRST])}
        last = checkpoint_folder(run_dirs[FIRST], first.num_steps)
        initial = InitialCheckpoint(FIRST, last, first.num_steps)
        curves[SECOND] = losses(large, second, run_dirs[SECOND], initial)
        curves[AFRESH] = losses(large, second, run_dirs[AFRESH])
    rows = [
        f"| {name} | {SMALL_PX if name == FIRST else LARGE_PX} px | {values[:NUM_AT_AN_END].mean():.3f} |"
        f" {values[-NUM_AT_AN_END:].mean():.3f} |"
        for name, values in curves.items()
    ]
    table = "\n".join([HEADER, *rows])
    print(f"{table}\n{(time.perf_counter() - start) / 60:.1f} minutes")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "phases.md").write_text(table + "\n")
    write_curves(arguments.out / "phases.png", curves)


if __name__ == "__main__":
    main()
