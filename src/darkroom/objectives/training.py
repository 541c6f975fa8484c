"""The objective of a run: from standard normal numbers to noise levels, and from a model's output to a loss."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from darkroom.config.objective import Objective
from darkroom.objectives.algebra import NoiseLevel, noisy, target
from darkroom.objectives.densities import draw_timestep
from darkroom.objectives.flow import flow_level, resolution_shift, shift_timestep
from darkroom.objectives.noise_tables import beta_table, scale_sigma, sigma_table, zero_terminal_snr
from darkroom.objectives.weighting import BAND_EDGES, band_shares, prediction_weight

NUM_QUANTILES = 100_000


class Settings(Protocol):
    """What an objective needs of a run's train section."""

    @property
    def objective(self) -> Objective: ...
    @property
    def logit_mean(self) -> float: ...
    @property
    def logit_std(self) -> float: ...
    @property
    def timestep_shift(self) -> float: ...


def noise_table(settings: Settings, num_pixels: float) -> Tensor:
    """abar (N,) float64 of a diffusion schedule, for pictures of `num_pixels`.

    The shift multiplies every sigma, as it does for flow.
    """
    wanted = settings.objective
    assert wanted.schedule != "flow"
    abar = beta_table(wanted.schedule, wanted.num_timesteps, wanted.beta_start, wanted.beta_end)
    abar = scale_sigma(abar, resolution_shift(num_pixels, wanted.shift_base_px, settings.timestep_shift))
    return zero_terminal_snr(abar) if wanted.zero_terminal_snr else abar


class TrainingObjective:
    """What a run minimises. Holds no state but the noise tables that it has made.

    Args:
        settings: the run's train section.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.wanted = settings, settings.objective
        self._tables: dict[tuple[float, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    def levels(self, normals: Tensor, bucket: tuple[int, int]) -> NoiseLevel:
        """The noise levels that standard normal numbers (B,) draw for pictures of a bucket (width, height)."""
        settings, wanted = self.settings, self.wanted
        drawn = draw_timestep(
            wanted.density, normals, settings.logit_mean, settings.logit_std, wanted.mode_scale
        )
        # Without a base, all buckets share one table.
        num_pixels = float(bucket[0] * bucket[1]) if wanted.shift_base_px else 0.0
        if wanted.schedule == "flow":
            shift = resolution_shift(num_pixels, wanted.shift_base_px, settings.timestep_shift)
            return flow_level(shift_timestep(drawn, shift))
        signal, noise, log_sigma_edges = self._table(num_pixels, normals.device)
        if wanted.density == "log_normal":
            log_sigma = (settings.logit_mean + settings.logit_std * normals).double()
            index = torch.bucketize(log_sigma, log_sigma_edges)
        else:
            index = (drawn * wanted.num_timesteps).long().clamp(max=wanted.num_timesteps - 1)
        return NoiseLevel(signal[index], noise[index], index.to(signal.dtype) / wanted.num_timesteps)

    def _table(self, num_pixels: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """(a, s) of each timestep, float32, and the edges in ln sigma between nearest timesteps."""
        key = (num_pixels, device)
        if key not in self._tables:
            abar = noise_table(self.settings, num_pixels)
            log_sigma = sigma_table(abar).log()
            edges = (log_sigma[1:] + log_sigma[:-1]) / 2
            roots = abar.sqrt().float(), (1 - abar).sqrt().float()
            self._tables[key] = (roots[0].to(device), roots[1].to(device), edges.to(device))
        return self._tables[key]

    def noisy(self, latents: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
        """What the model is shown (B, ...)."""
        return noisy(latents, noise, level)

    def losses(self, output: Tensor, latents: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
        """(B,) weighted mean squared errors of a model's output (B, ...), in float32.

        With rectified flow and no weighting that is the mean of |F - (e - x0)|^2.
        """
        wanted = target(self.wanted.prediction, latents.float(), noise.float(), level)
        loss = (output.float() - wanted).square().flatten(1).mean(dim=1)
        return loss if self.wanted.weighting == "none" else loss * self.weight(level)

    def weight(self, level: NoiseLevel) -> Tensor:
        """(B,) weight of the squared error of the model's output."""
        wanted = self.wanted
        return prediction_weight(
            wanted.weighting, wanted.prediction, level, wanted.min_snr_gamma, wanted.weight_floor
        )

    def band_shares(self, bucket: tuple[int, int]) -> Tensor:
        """The expected share of the loss's weight in each band of noise (`weighting.BAND_EDGES`).

        Density times weight, summed over NUM_QUANTILES equally likely timesteps.
        """
        places = (torch.arange(NUM_QUANTILES, dtype=torch.float64) + 0.5) / NUM_QUANTILES
        level = self.levels(torch.special.ndtri(places).float(), bucket)
        return band_shares(level.sigma, self.weight(level))

    def describe(self, buckets: Sequence[tuple[int, int]]) -> str:
        """A line for the run's log: what is minimised, and where its weight lies in the largest bucket."""
        wanted, bucket = self.wanted, max(buckets, key=lambda shape: shape[0] * shape[1])
        shares = self.band_shares(bucket).tolist()
        names = [f"below {BAND_EDGES[0]:g}", *(f"to {edge:g}" for edge in BAND_EDGES[1:])]
        bands = [f"{name} {share:.2%}" for name, share in zip(names, shares, strict=False)]
        terminal = ", zero terminal SNR" if wanted.zero_terminal_snr else ""
        return (
            f"objective {wanted.prediction} on {wanted.schedule}{terminal}, timesteps {wanted.density}, "
            f"weighting {wanted.weighting}; share of weight by sigma: {', '.join(bands)}, "
            f"above {BAND_EDGES[-1]:g} {shares[-1]:.2%}"
        )
