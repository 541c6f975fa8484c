"""Sizes of buckets and of drawn pictures that a run's VAE and network can take, checked before any job starts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.config.components import Component
from darkroom.config.model import MMDiTModel, SD3Model
from darkroom.config.paths import local_path
from darkroom.config.run import Run

DEFAULT_VAE_FACTOR = 8  # of the VAEs of Stable Diffusion 1 to 3, XL and FLUX
DEFAULT_SD3_PATCH_SIZE = 2


def check_sizes(run: Run, vae: Component, root: Path) -> None:
    """Refuse buckets and pictures whose sides are no multiples of the VAE's factor times the patch size.

    Args:
        vae: what `cache.vae` names. One that is not on this machine is taken to have a factor of 8.
        root: the project's, which relative paths start from.
    Raises:
        ValueError: names the key and the nearest size that fits.
    """
    factor, patch = vae_factor(vae, root), _patch_size(run)
    step = factor * patch
    why = f"a multiple of {step} px ({factor} a latent of {run.cache.vae}, times patch_size {patch})"
    if run.bucket.step_px % step:
        raise ValueError(
            f"bucket.step_px: {run.bucket.step_px} is not {why}; write {_near(run.bucket.step_px, step)}"
        )
    drawn = {"evaluate.sampling": run.evaluate.sampling}
    if run.train.sample_every_steps and run.train.sample_prompts:
        drawn["train.sampling"] = run.train.sampling
    for key, sampling in drawn.items():
        sides = {"width_px": sampling.width_px, "height_px": sampling.height_px}
        nearest = {name: _near(side, step) for name, side in sides.items()}
        if nearest != sides:
            written = ", ".join(f"{name}: {side}" for name, side in nearest.items())
            raise ValueError(
                f"{key}: {sampling.width_px}x{sampling.height_px}: each side must be {why}; write {written}"
            )


def vae_factor(vae: Component, root: Path) -> int:
    """Pixels a latent pixel, per side: 2 for each of the VAE's levels but one, from its config.json."""
    try:
        folder = root / local_path(vae.path)
        config: Mapping[str, Any] = json.loads((folder / (vae.subfolder or "") / "config.json").read_text())
    except (OSError, ValueError):  # told by who needs its files
        return DEFAULT_VAE_FACTOR
    channels = config.get("block_out_channels")
    return 2 ** (len(channels) - 1) if channels else DEFAULT_VAE_FACTOR


def _patch_size(run: Run) -> int:
    if isinstance(run.model, MMDiTModel):
        return run.model.patch_size
    if isinstance(run.model, SD3Model):
        return int((run.model.params or {}).get("patch_size", DEFAULT_SD3_PATCH_SIZE))
    return 1


def _near(side: int, step: int) -> int:
    return max(step, round(side / step) * step)
