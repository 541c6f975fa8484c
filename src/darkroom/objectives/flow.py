"""Rectified flow: a straight path from a latent to noise.

Notation of Esser et al. 2024 (arXiv 2403.03206): x0 latent, e ~ N(0, I) noise, t in [0, 1] with t = 1 noise,
z_t = (1 - t) x0 + t e, velocity v = d z_t / d t = e - x0. Here sigma = t / (1 - t).
"""

import math

from torch import Tensor

from darkroom.objectives.algebra import NoiseLevel


def flow_level(timestep: Tensor) -> NoiseLevel:
    """The noise level of timesteps (B,): a = 1 - t, s = t."""
    return NoiseLevel(1 - timestep, timestep, timestep)


def shift_timestep(timestep: Tensor, shift: float) -> Tensor:
    """t' = a t / (1 + (a - 1) t), SD3's equation 23: a > 1 moves timesteps towards noise, a = 1 is none.

    It multiplies sigma by a.
    """
    if shift == 1:
        return timestep
    return shift * timestep / (1 + (shift - 1) * timestep)


def resolution_shift(num_pixels: float, base_px: int, shift: float = 1.0) -> float:
    """The factor on sigma for pictures of `num_pixels`, where `shift` is right for base_px x base_px.

    sqrt(m / n): an m-pixel picture with the noise of sigma sqrt(m / n) is as unsure, averaged over equal areas,
    as an n-pixel one with sigma (SD3, section 5.3.2). NovelAI's rule is the same: twice the side needs twice
    the greatest sigma (arXiv 2409.15997). base_px 0 leaves `shift` as it is.
    """
    return shift * math.sqrt(num_pixels) / base_px if base_px else shift
