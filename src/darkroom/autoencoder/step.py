"""One step of an autoencoder: its own loss, then the discriminator's."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from darkroom.autoencoder.discriminator import PatchDiscriminator
from darkroom.autoencoder.losses import (
    adaptive_weight,
    generator_loss,
    hinge_loss,
    kl_divergence,
    reconstruction_loss,
)
from darkroom.autoencoder.pictures import TrainingBatch
from darkroom.config.autoencoder import Autoencoder
from darkroom.perceptual.base import Distance
from darkroom.train.random import normal
from darkroom.train.step import ema_weight, learning_rate_at

# What a step measures, see `Stepper.step`.
COLUMNS = (
    *("loss", "reconstruction", "kl", "perceptual", "adversarial", "adaptive_weight", "discriminator"),
    *("grad_norm", "learning_rate", "pictures"),
)


@dataclass
class Networks:
    """What is trained, and what is exported: `average` is the moving average of `vae`."""

    vae: Any
    average: Any
    discriminator: PatchDiscriminator | None
    perceptual: Distance | None


class Stepper:
    """Runs steps; `mine` and `others` are the optimizers of the autoencoder and of the discriminator."""

    def __init__(
        self,
        networks: Networks,
        mine: list[torch.optim.Optimizer],
        others: list[torch.optim.Optimizer],
        settings: Autoencoder,
        in_bfloat16: bool,
    ) -> None:
        self._of, self._mine, self._others, self._settings = networks, mine, others, settings
        self._train = settings.train.as_train()
        self._in_bfloat16 = in_bfloat16
        self._weights: list[Tensor] = list(networks.vae.parameters())
        self._averages: list[Tensor] = list(networks.average.parameters())

    def step(self, batch: TrainingBatch) -> Tensor:
        """Train on a batch; returns COLUMNS (len(COLUMNS),) float64, NaN where a term is not there yet.

        Raises:
            ValueError: no picture of the batch can be read.
        """
        if not len(batch.batch.pixels):
            raise ValueError(
                f"none of the {len(batch.batch.lost)} pictures of step {batch.step + 1} can be read; make the"
                " download's parts again"
            )
        share = learning_rate_at(batch.step, self._train) / self._train.learning_rate
        for optimizer in (*self._mine, *self._others):
            for group in optimizer.param_groups:
                group["lr"] = share * group["peak"]
        pictures = torch.from_numpy(batch.batch.pixels).to(self._of.vae.device).float() / 127.5 - 1
        told: dict[str, float | Tensor] = {
            "pictures": len(pictures),
            "learning_rate": share * self._train.learning_rate,
        }
        reconstructions = self._autoencoder(pictures, batch, told)
        if self._discriminates(batch.step):
            self._discriminator(pictures, reconstructions, told)
        self._follow(batch.step)
        row = [torch.as_tensor(told.get(name, torch.nan), dtype=torch.float64).cpu() for name in COLUMNS]
        return torch.stack(row)

    def _discriminates(self, step: int) -> bool:
        adversarial = self._settings.loss.adversarial
        return adversarial is not None and step >= adversarial.start_step

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._of.vae.device.type, torch.bfloat16, enabled=self._in_bfloat16)

    def _autoencoder(self, pictures: Tensor, batch: TrainingBatch, told: dict[str, Any]) -> Tensor:
        """The autoencoder's update; returns its reconstructions, without a graph."""
        loss, vae = self._settings.loss, self._of.vae
        with self._autocast():
            posterior = vae.encode(pictures).latent_dist
            mean, log_variance = posterior.mean.float(), posterior.logvar.float()
            noise = torch.from_numpy(normal(batch.keys, mean[0].numel())).to(mean.device).view_as(mean)
            latents = mean + torch.exp(0.5 * log_variance) * noise
            reconstructions = vae.decode(latents).sample.float()
            distance = None if self._of.perceptual is None else self._of.perceptual(reconstructions, pictures)
        told["reconstruction"] = reconstruction_loss(reconstructions, pictures, loss.reconstruction)
        told["kl"] = kl_divergence(mean, log_variance, pictures[0].numel())
        fidelity = told["reconstruction"]
        if distance is not None and loss.perceptual is not None:
            told["perceptual"] = distance.float()
            fidelity = fidelity + loss.perceptual.weight * told["perceptual"]
        total = fidelity + loss.kl_weight * told["kl"]
        if self._discriminates(batch.step):
            total = total + self._adversarial(reconstructions, fidelity, told)
        total.backward()
        told["loss"] = total.detach()
        told["grad_norm"] = torch.nn.utils.clip_grad_norm_(self._weights, self._train.max_grad_norm)
        _update(self._mine)
        for name in ("reconstruction", "kl", "perceptual", "adversarial"):
            if name in told:
                told[name] = told[name].detach()
        return reconstructions.detach()

    def _adversarial(self, reconstructions: Tensor, fidelity: Tensor, told: dict[str, Any]) -> Tensor:
        """The term that the discriminator adds; it learns nothing from it."""
        discriminator, adversarial = self._of.discriminator, self._settings.loss.adversarial
        assert discriminator is not None and adversarial is not None
        discriminator.requires_grad_(False)
        with self._autocast():
            told["adversarial"] = generator_loss(discriminator(reconstructions).float())
        discriminator.requires_grad_(True)
        weight = adaptive_weight(fidelity, told["adversarial"], self._of.vae.decoder.conv_out.weight)
        told["adaptive_weight"] = weight
        term: Tensor = adversarial.weight * weight * told["adversarial"]
        return term

    def _discriminator(self, pictures: Tensor, reconstructions: Tensor, told: dict[str, Any]) -> None:
        """The discriminator's update."""
        discriminator = self._of.discriminator
        assert discriminator is not None
        with self._autocast():
            outputs = discriminator(pictures).float(), discriminator(reconstructions).float()
        loss = hinge_loss(*outputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(discriminator.parameters(), self._train.max_grad_norm)
        _update(self._others)
        told["discriminator"] = loss.detach()

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Let the average follow the weights."""
        torch._foreach_lerp_(self._averages, self._weights, ema_weight(step, self._train.ema_decay))


def _update(optimizers: list[torch.optim.Optimizer]) -> None:
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
