"""What a model predicts, and how every prediction follows from every other.

A noisy latent is z = a x0 + s e: x0 latent, e ~ N(0, I) noise, a the signal's and s the noise's coefficient. The
noise level is sigma = s / a, and the signal-to-noise ratio SNR = 1 / sigma^2. Diffusion has a^2 + s^2 = 1
("variance preserving"), rectified flow a = 1 - t, s = t; in sigma both are the same process.

Each prediction is c_x x0 + c_e e with known c_x and c_e. Together with z that is two linear equations for x0 and
e, whose determinant a c_e - s c_x says where they can be solved: v and flow always, epsilon not at a = 0 (pure
noise), x0 not at s = 0.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Prediction = Literal["flow", "v", "epsilon", "x0"]


class NoiseLevel(NamedTuple):
    """The noise level of each of B samples."""

    signal: Tensor
    """(B,) a: how much of x0 is in z."""
    noise: Tensor
    """(B,) s: how much of e is in z."""
    timestep: Tensor
    """(B,) in [0, 1], 1 is noise: what the model is told, a scheduler's timestep / num_train_timesteps."""

    @property
    def sigma(self) -> Tensor:
        """(B,) s / a; infinite for pure noise."""
        return self.noise / self.signal

    @property
    def snr(self) -> Tensor:
        """(B,) a^2 / s^2; 0 for pure noise."""
        return (self.signal / self.noise).square()


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), to multiply `like` (B, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def noisy(latents: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
    """z = a x0 + s e. latents and noise (B, ...)."""
    return per_sample(level.signal, latents) * latents + per_sample(level.noise, noise) * noise


def coefficients(prediction: Prediction, level: NoiseLevel) -> tuple[Tensor, Tensor]:
    """(c_x, c_e), (B,) each: the prediction is c_x x0 + c_e e.

    v = (e - sigma x0) / sqrt(sigma^2 + 1) (Salimans and Ho, arXiv 2202.00512); flow = e - x0 (Esser et al.,
    arXiv 2403.03206).
    """
    one, zero = torch.ones_like(level.signal), torch.zeros_like(level.signal)
    if prediction == "epsilon":
        return zero, one
    if prediction == "x0":
        return one, zero
    if prediction == "flow":
        return -one, one
    radius = torch.hypot(level.signal, level.noise)
    return -level.noise / radius, level.signal / radius


def target(prediction: Prediction, latents: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
    """What the model should predict (B, ...)."""
    if prediction == "flow":  # without two multiplications by one
        return noise - latents
    from_latents, from_noise = (per_sample(c, latents) for c in coefficients(prediction, level))
    return from_latents * latents + from_noise * noise


def determinant(prediction: Prediction, level: NoiseLevel) -> Tensor:
    """(B,) a c_e - s c_x: epsilon a, x0 -s, v sqrt(a^2 + s^2), flow a + s."""
    from_latents, from_noise = coefficients(prediction, level)
    return level.signal * from_noise - level.noise * from_latents


def latents_and_noise(
    prediction: Prediction, value: Tensor, noisy_latents: Tensor, level: NoiseLevel
) -> tuple[Tensor, Tensor]:
    """(x0, e), (B, ...) each, that a model's output `value` stands for at z and its noise level."""
    from_latents, from_noise = (per_sample(c, value) for c in coefficients(prediction, level))
    divisor = per_sample(determinant(prediction, level), value)
    signal, noise = per_sample(level.signal, value), per_sample(level.noise, value)
    latents = (from_noise * noisy_latents - noise * value) / divisor
    return latents, (signal * value - from_latents * noisy_latents) / divisor


def convert(
    source: Prediction, wanted: Prediction, value: Tensor, noisy_latents: Tensor, level: NoiseLevel
) -> Tensor:
    """A prediction of kind `source` as the one of kind `wanted` that says the same (B, ...)."""
    latents, noise = latents_and_noise(source, value, noisy_latents, level)
    return target(wanted, latents, noise, level)


def input_scale(sigma: Tensor) -> Tensor:
    """c_in = 1 / sqrt(sigma^2 + 1): what x0 + sigma e is multiplied with to be the z that a model takes.

    Karras et al., arXiv 2206.00364, with sigma_data = 1.
    """
    return 1 / torch.hypot(sigma, torch.ones_like(sigma))
