"""Noise schedules of diffusion: the cumulative signal share abar of each of N timesteps.

z = sqrt(abar) x0 + sqrt(1 - abar) e; sigma^2 = (1 - abar) / abar. Tables are float64 (N,), from little noise to
much. An abar of exactly 0 is pure noise, sigma = infinity.
"""

import math
from typing import Literal

import torch
from torch import Tensor

NoiseTable = Literal["scaled_linear", "linear", "cosine"]

# What stands for an infinite sigma where a sampler needs a number (NovelAI V3, arXiv 2409.15997, appendix A.2).
INFERENCE_INFINITY = 20_000.0


def beta_table(kind: NoiseTable, num_timesteps: int, beta_start: float, beta_end: float) -> Tensor:
    """abar = cumulative product of 1 - beta.

    scaled_linear (latent diffusion): sqrt(beta) runs linearly; linear (DDPM, arXiv 2006.11239): beta does;
    cosine (Nichol and Dhariwal, arXiv 2102.09672): abar is a squared cosine, beta at most 0.999.
    """
    if kind == "cosine":
        place = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
        wanted = torch.cos((place + 0.008) / 1.008 * math.pi / 2).square()
        betas = (1 - wanted[1:] / wanted[:-1]).clamp(max=0.999)
    elif kind == "linear":
        betas = torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64)
    else:
        roots = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), num_timesteps, dtype=torch.float64)
        betas = roots.square()
    return torch.cumprod(1 - betas, dim=0)


def zero_terminal_snr(abar: Tensor) -> Tensor:
    """The table moved and stretched in sqrt(abar) so that its last timestep is pure noise.

    r' = (r - r_T) r_0 / (r_0 - r_T) with r = sqrt(abar): Lin et al., arXiv 2305.08891, algorithm 1.
    """
    root = abar.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()


def scale_sigma(abar: Tensor, factor: float) -> Tensor:
    """The table with every sigma multiplied: SNR / factor^2. An infinite sigma stays so."""
    if factor == 1:
        return abar
    return abar / (abar + factor**2 * (1 - abar))


def sigma_table(abar: Tensor, infinity: float = math.inf) -> Tensor:
    """sqrt((1 - abar) / abar), with `infinity` for pure noise."""
    sigma = ((1 - abar) / abar).sqrt()
    return torch.where(torch.isinf(sigma), torch.full_like(sigma, infinity), sigma)


def betas_of(abar: Tensor) -> Tensor:
    """The betas whose `beta_table` this is, for a diffusers scheduler's `trained_betas`."""
    return 1 - abar / torch.cat([abar.new_ones(1), abar[:-1]])


def inference_timesteps(
    num_timesteps: int, num_inference_steps: int, spacing: Literal["trailing", "linspace"] = "trailing"
) -> Tensor:
    """The timesteps (num_inference_steps,) of a sampler, from the last one down; the step after them is clean.

    trailing (Lin et al., section 3.3) or linspace (k-diffusion, NovelAI). "Leading" spacing, the older habit, is
    not offered: it never begins at pure noise.
    """
    if spacing == "linspace":
        places = torch.linspace(num_timesteps - 1, 0, num_inference_steps, dtype=torch.float64)
        return places.round().long()
    step = num_timesteps / num_inference_steps
    return torch.round(torch.arange(num_inference_steps, 0, -1, dtype=torch.float64) * step).long() - 1
