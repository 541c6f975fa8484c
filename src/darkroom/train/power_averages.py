"""Averages of the weights by power functions of the step, of several widths, beside the exported average."""

from collections.abc import Sequence

import torch
from torch import nn

from darkroom.objectives.power_function import exponent_of, update_weight
from darkroom.train.checkpoint import SNAPSHOT_PREFIX
from darkroom.train.parallel import local, shard_like
from darkroom.train.sharded_tensors import ShardedTensors


class PowerAverages:
    """One average of the trained weights for each width; of a sharded model, each rank keeps its shards of it.

    Steps count from this training's first, and the weights before it have no part.

    Args:
        model: a `models.denoiser.Denoiser` as it is trained, whole or sharded.
        widths: of `train.post_hoc_ema`.
    """

    def __init__(self, model: nn.Module, widths: Sequence[float]) -> None:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._weights: list[torch.Tensor] = list(trained.values())
        self._exponents = {width: exponent_of(width) for width in widths}
        self._averages = {
            width: {average_name(width, name): p.detach().clone() for name, p in trained.items()}
            for width in widths
        }

    def update(self, step: int) -> None:
        """Bring in the weights after `step` completed steps; a step that was left out counts too."""
        with torch.no_grad():
            for width, averages in self._averages.items():
                weight = update_weight(step, self._exponents[width])
                torch._foreach_lerp_(local(list(averages.values())), local(self._weights), weight)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of them by `average_name`; no copies."""
        return {name: t for averages in self._averages.values() for name, t in averages.items()}

    def load(self, saved: ShardedTensors) -> None:
        """Take them from a checkpoint of this training, each rank's shards where they are sharded."""
        for name, average in self.tensors().items():
            (mine,), (found,) = local([average]), local([shard_like(saved, name, average)])
            mine.copy_(found)


def average_name(width: float, name: str) -> str:
    """What checkpoints and snapshots call an average of the weight `name`."""
    return f"{SNAPSHOT_PREFIX}{width}/{name}"
