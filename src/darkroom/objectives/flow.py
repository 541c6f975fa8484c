"""Rectified flow: a straight path from a latent to noise, and the densities of its timestep.

Notation of Esser et al. 2024 (arXiv 2403.03206): x0 latent, e ~ N(0, I) noise, t in [0, 1] with t = 1 noise,
z_t = (1 - t) x0 + t e, velocity v = d z_t / d t = e - x0.
"""

import math

import torch
from torch import Tensor


def per_sample(t: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), to multiply `like` (B, ...)."""
    return t.reshape(-1, *[1] * (like.ndim - 1))


def noisy_latents(latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """z_t = (1 - t) x0 + t e. latents and noise (B, ...), timestep (B,)."""
    t = per_sample(timestep, latents)
    return (1 - t) * latents + t * noise


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """v = e - x0, whatever the timestep."""
    return noise - latents


def denoised(noisy: Tensor, velocity: Tensor, timestep: Tensor) -> Tensor:
    """x0 = z_t - t v: the latents that a velocity points back to."""
    return noisy - per_sample(timestep, noisy) * velocity


def velocity_loss(velocity: Tensor, latents: Tensor, noise: Tensor) -> Tensor:
    """Mean over each sample of |F - (e - x0)|^2, in float32: (B, ...) -> (B,).

    Plain in velocity, with no further weight: regressing x0 = z_t - t F instead would weigh this by t^2.
    """
    error = velocity.float() - velocity_target(latents.float(), noise.float())
    return error.square().flatten(1).mean(dim=1)


def shift_timestep(timestep: Tensor, shift: float) -> Tensor:
    """t' = a t / (1 + (a - 1) t), SD3's equation 23: a > 1 moves timesteps towards noise, a = 1 is none."""
    if shift == 1:
        return timestep
    return shift * timestep / (1 + (shift - 1) * timestep)


def logit_normal_timestep(normals: Tensor, logit_mean: float = 0.0, logit_std: float = 1.0) -> Tensor:
    """t = sigmoid(m + s n) from standard normals n: m > 0 gives more noise, m < 0 less."""
    return torch.sigmoid(logit_mean + logit_std * normals)


def logit_normal_density(timestep: Tensor, logit_mean: float = 0.0, logit_std: float = 1.0) -> Tensor:
    """Density over (0, 1) of `logit_normal_timestep`, SD3's equation 19."""
    z = (torch.logit(timestep) - logit_mean) / logit_std
    return torch.exp(-z.square() / 2) / (logit_std * math.sqrt(2 * math.pi) * timestep * (1 - timestep))


def training_timestep(normals: Tensor, logit_mean: float, logit_std: float, shift: float) -> Tensor:
    """The timestep trained on: logit-normal, then shifted. The same normals always give the same timesteps."""
    return shift_timestep(logit_normal_timestep(normals, logit_mean, logit_std), shift)
