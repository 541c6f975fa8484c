"""One optimizer step: the loss, exact accumulation, clipping, AdamW, moving average."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from darkroom.config.optional import check_optimizer
from darkroom.config.run import Train
from darkroom.objectives.schedules import learning_rate
from darkroom.objectives.training import TrainingObjective
from darkroom.precision import resolve
from darkroom.train.adaptive import averaged_weights, prodigy, schedule_free
from darkroom.train.loader import TrainBatch
from darkroom.train.muon import Muon
from darkroom.train.parallel import accumulating, compute_device, full, local

NUM_BINS = 10
# What a step measures: the sum of the samples' losses, the gradient's norm, and by timestep bin the
# sum of losses and the number of samples.
NUM_MEASURES = 2 + 2 * NUM_BINS


def learning_rate_at(step: int, settings: Train) -> float:
    """The learning rate of `step` (from 0)."""
    return learning_rate(
        step,
        settings.num_steps,
        settings.learning_rate,
        settings.num_warmup_steps,
        settings.min_learning_rate,
        settings.learning_rate_decay,
        settings.warmup_shape,
        settings.num_decay_steps,
    )


def ema_weight(step: int, ema_decay: float) -> float:
    """How much of the weights enters their average after `step` (from 0).

    1 - min(ema_decay, (1 + n) / (10 + n)) after n steps: the initial weights fade from the average of a
    short run too, and a long one averages with `ema_decay`.
    """
    return 1 - min(ema_decay, (2 + step) / (11 + step))


def make_optimizers(model: nn.Module, settings: Train) -> list[torch.optim.Optimizer]:
    """Fused AdamW; matrices decay, and vectors (biases, norm scales) do not.

    With `optimizer: adamw8bit` the moments of weights with 4096 numbers or more have 8 bits (Dettmers et al. 2021,
    arXiv 2110.02861). With `optimizer: muon` the matrices that map tokens to tokens inside the blocks go to Muon
    (kellerjordan.github.io/posts/muon), whose updates are made orthogonal. For `prodigy` and `schedulefree` see
    `train.adaptive`. Each parameter group keeps its highest learning rate as `peak`.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inner = [p for name, p in named if settings.optimizer == "muon" and _is_inner(name, p)]
    taken = {id(p) for p in inner}
    rest = [(name, p) for name, p in named if id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in rest if not _is_vector(name, p)], "weight_decay": settings.weight_decay},
        {"params": [p for name, p in rest if _is_vector(name, p)], "weight_decay": 0.0},
    ]
    optimizers = [_adamw(groups, settings)]
    if inner:
        dtype = getattr(torch, resolve(settings.dtype, inner[0].device))
        optimizers.append(Muon(inner, settings.muon_learning_rate, settings.weight_decay, dtype))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _adamw(groups: list[dict[str, Any]], settings: Train) -> torch.optim.Optimizer:
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "eps": settings.epsilon,
    }
    check_optimizer(settings.optimizer)
    if settings.optimizer == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, **options)
    if settings.optimizer == "prodigy":
        return prodigy(groups, options, settings.num_warmup_steps > 0)
    if settings.optimizer == "schedulefree":
        return schedule_free(groups, options)
    return torch.optim.AdamW(groups, **options, fused=True)


def _is_vector(name: str, parameter: torch.Tensor) -> bool:
    # DoRA's magnitudes of a convolution have its four dimensions.
    return parameter.ndim < 2 or "lora_magnitude_vector" in name


def _is_inner(name: str, parameter: torch.Tensor) -> bool:
    return parameter.ndim == 2 and "blocks." in name and "modulation" not in name


class Stepper:
    """Runs optimizer steps on a model and keeps the moving average of its weights.

    Args:
        model: a `models.denoiser.Denoiser` on its device, DistributedDataParallel around one, or a sharded one.
        optimizers: from `make_optimizers`.
        ema: the averaged model, changed in place.
        settings: the run's train section.
        world_size: how many ranks share a global batch.
        num_steps_before: steps of the phases before this one, over which the average goes on.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        ema: nn.Module,
        settings: Train,
        world_size: int = 1,
        num_steps_before: int = 0,
    ) -> None:
        self.num_steps_before = num_steps_before
        self.model, self.optimizers, self.ema, self.settings = model, optimizers, ema, settings
        self.objective = TrainingObjective(settings)
        # Frozen weights have no gradient and no average of their own.
        trained = [p.requires_grad for p in model.parameters()]
        self._weights: list[torch.Tensor] = [p for p, t in zip(model.parameters(), trained, strict=True) if t]
        self._averages: list[torch.Tensor] = [p for p, t in zip(ema.parameters(), trained, strict=True) if t]
        self.device = compute_device(model)
        self._in_bfloat16 = resolve(settings.dtype, self.device) == "bfloat16"
        # DDP and FSDP average gradients over ranks; the loss is divided by the global batch, so undo that.
        self._scale = world_size / settings.global_batch_size
        # Sharded ranks bring weights together in every pass, so each makes as many as the one with the largest
        # share of the batch; the one that a smaller share can lack counts nothing.
        most = -(-settings.global_batch_size // world_size)
        self._num_passes = -(-most // settings.microbatch_size) if isinstance(model, FSDPModule) else 0

    def step(self, batch: TrainBatch) -> torch.Tensor:
        """Train on one rank's share of a batch; returns its measures (NUM_MEASURES,) float64.

        The gradient is that of the mean over the global batch's samples, however they are cut into
        microbatches and ranks.
        """
        share = learning_rate_at(batch.step, self.settings) / self.settings.learning_rate
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * group["peak"]
        measures = torch.zeros(NUM_MEASURES, dtype=torch.float64, device=self.device)
        num, size = len(batch.latents), self.settings.microbatch_size
        parts = [slice(start, min(start + size, num)) for start in range(0, num, size)]
        for _ in range(self._num_passes - len(parts)):
            with accumulating(self.model, True):
                (self.losses(batch, slice(0, 1))[0].sum() * 0).backward()
        for part in parts:
            # Ranks exchange gradients once a step, with the last microbatch.
            with accumulating(self.model, part is not parts[-1]):
                losses, timestep = self.losses(batch, part)
                (losses.sum() * self._scale).backward()
            add_measures(measures, losses.detach(), timestep)
        measures[1] = self._clip()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        weight = ema_weight(self.num_steps_before + batch.step, self.settings.ema_decay)
        with torch.no_grad():  # or the average would remember every step's graph
            weights = averaged_weights(self.optimizers, self._weights)
            torch._foreach_lerp_(local(self._averages), local(weights), weight)
        return measures

    def skipped(self) -> torch.Tensor:
        """The measures of a step that is left out: nothing changed, and all are NaN."""
        return torch.full((NUM_MEASURES,), torch.nan, dtype=torch.float64, device=self.device)

    def warm_up(self, batch: TrainBatch) -> None:
        """One backward pass without an update, the same at every start.

        After its first pass DDP lays gradients out anew for the exchange, and the last bits of a sum over ranks
        depend on the layout. So a resumed training must have it from its first step on.
        """
        self.losses(batch, slice(0, self.settings.microbatch_size))[0].sum().backward()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def losses(self, batch: TrainBatch, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """(losses (b,), timesteps (b,)), float32, of part of a batch."""
        return sample_losses(self.model, self.objective, batch, part, self.device, self._in_bfloat16)

    def _clip(self) -> torch.Tensor:
        gradients = [w.grad for w in self._weights if w.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if isinstance(norm, DTensor):  # of all shards
            norm = full(norm)
        gradients = local(gradients)
        limit = self.settings.max_grad_norm
        if gradients[0].device.type == "cpu":
            # Below the limit the factor is 1: spare a pass over the gradients.
            if norm > limit:
                torch._foreach_mul_(gradients, limit / (norm.item() + 1e-6))
        else:
            torch._foreach_mul_(gradients, torch.clamp(limit / (norm + 1e-6), max=1.0))
        return norm


def sample_losses(
    model: nn.Module,
    objective: TrainingObjective,
    batch: TrainBatch,
    part: slice,
    device: torch.device,
    in_bfloat16: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(losses (b,), timesteps (b,)), float32, of a model for part of a batch, on the model's device."""
    latents, noise = (
        t[part].to(device, torch.float32, non_blocking=True) for t in (batch.latents, batch.noise)
    )
    conditioning = batch.conditioning[part].to(device)
    normal = batch.timestep_normal[part].to(device, non_blocking=True)
    level = objective.levels(normal, batch.bucket)
    noisy = objective.noisy(latents, noise, level)
    with torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16):
        output = model(noisy, level.timestep, conditioning)
    losses = objective.losses(output, latents, noise, level)
    if batch.weights is not None:
        losses = losses * batch.weights[part].to(device, non_blocking=True)
    return losses, level.timestep


def add_measures(measures: torch.Tensor, losses: torch.Tensor, timestep: torch.Tensor) -> None:
    """Add the losses (b,) of samples with these timesteps (b,) to measures (NUM_MEASURES,), in place."""
    bins = (timestep * NUM_BINS).long().clamp_(0, NUM_BINS - 1)
    # A product with the one-hot bins, because adding by index is not deterministic on a GPU.
    chosen = torch.nn.functional.one_hot(bins, NUM_BINS).to(torch.float64)
    measures[0] += losses.sum(dtype=torch.float64)
    measures[2 : 2 + NUM_BINS] += losses.double() @ chosen
    measures[2 + NUM_BINS :] += chosen.sum(dim=0)
