"""Sizes of buckets and of drawn pictures that a run's VAE and network can take, checked before any job starts."""

from pathlib import Path

from darkroom.components.base import Component
from darkroom.config.component_files import component_files, read_json_file
from darkroom.config.run import Run
from darkroom.families.table import FAMILIES

DEFAULT_VAE_FACTOR = 8  # of the VAEs of Stable Diffusion 1 to 3, XL and FLUX


def check_sizes(run: Run, vae: Component, root: Path) -> None:
    """Refuse buckets and pictures whose sides are no multiples of the VAE's factor times the patch size.

    Args:
        vae: what `cache.vae` names. One that is not on this machine is taken to have a factor of 8.
        root: the project's, which relative paths start from.
    Raises:
        ValueError: names the key and the nearest size that fits.
    """
    factor = vae_factor(vae, root)
    patch = FAMILIES[run.model.family].patch_size(run.model.arguments())
    step = factor * patch
    why = f"a multiple of {step} px ({factor} a latent of {run.cache.vae}, times patch_size {patch})"
    if run.bucket.step_px % step:
        raise ValueError(
            f"bucket.step_px: {run.bucket.step_px} is not {why}; write {_near(run.bucket.step_px, step)}"
        )
    drawn = {"draw.sampling": run.draw.sampling}
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
    config = read_json_file(component_files(vae, root) / "config.json") or {}
    channels = config.get("block_out_channels")
    return 2 ** (len(channels) - 1) if channels else DEFAULT_VAE_FACTOR


def _near(side: int, step: int) -> int:
    return max(step, round(side / step) * step)
