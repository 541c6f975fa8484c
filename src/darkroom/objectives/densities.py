"""How often each timestep is trained on.

Every density is a function of standard normal numbers, so that one counter-based stream serves all of them. The
result is a timestep in [0, 1] where 1 is noise, and grows with its normal number.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Density = Literal["logit_normal", "uniform", "mode", "cosmap", "log_normal"]


def uniform(normals: Tensor) -> Tensor:
    """u = Phi(n), the normal distribution function, in float32: uniform in [0, 1]."""
    return torch.special.ndtr(normals.double()).float()


def logit_normal_timestep(normals: Tensor, logit_mean: float = 0.0, logit_std: float = 1.0) -> Tensor:
    """t = sigmoid(m + s n) from standard normals n: m > 0 gives more noise, m < 0 less.

    With sigma = t / (1 - t) this is also EDM's ln sigma ~ N(m, s) (Karras et al., arXiv 2206.00364).
    """
    return torch.sigmoid(logit_mean + logit_std * normals)


def logit_normal_density(timestep: Tensor, logit_mean: float = 0.0, logit_std: float = 1.0) -> Tensor:
    """Density over (0, 1) of `logit_normal_timestep`, SD3's equation 19."""
    z = (torch.logit(timestep) - logit_mean) / logit_std
    return torch.exp(-z.square() / 2) / (logit_std * math.sqrt(2 * math.pi) * timestep * (1 - timestep))


def mode_timestep(normals: Tensor, scale: float = 1.29) -> Tensor:
    """f(u) = 1 - u - s (cos^2(pi u / 2) - 1 + u), SD3's equation 20: s > 0 prefers the middle, s < 0 the ends.

    f falls with u, so u = Phi(-n) here. Increasing in n for -1 <= s <= 2 / (pi - 2).
    """
    u = torch.special.ndtr(-normals.double())
    return (1 - u - scale * (torch.cos(math.pi / 2 * u).square() - 1 + u)).clamp(0, 1).float()


def cosmap_timestep(normals: Tensor) -> Tensor:
    """t = 1 - 1 / (tan(pi u / 2) + 1), SD3's equation 21: the log-SNR of the cosine schedule."""
    u = torch.special.ndtr(normals.double())
    return (1 - 1 / (torch.tan(math.pi / 2 * u) + 1)).float()


def cosmap_density(timestep: Tensor) -> Tensor:
    """2 / (pi - 2 pi t + 2 pi t^2), the density of `cosmap_timestep`."""
    return 2 / (math.pi * (1 - 2 * timestep + 2 * timestep.square()))


def draw_timestep(
    density: Density, normals: Tensor, logit_mean: float, logit_std: float, mode_scale: float
) -> Tensor:
    """(B,) normals -> (B,) timesteps in [0, 1]. `log_normal` is `logit_normal` in t; see there."""
    if density == "uniform":
        return uniform(normals)
    if density == "mode":
        return mode_timestep(normals, mode_scale)
    if density == "cosmap":
        return cosmap_timestep(normals)
    return logit_normal_timestep(normals, logit_mean, logit_std)
