"""Optimizers that find step size or schedule themselves: Prodigy and Schedule-Free AdamW, by their authors.

Prodigy (Mishchenko and Defazio 2023, arXiv 2306.06101) multiplies the learning rate by an estimate of how far the
weights have to go. Schedule-Free (Defazio et al. 2024, arXiv 2405.15682) takes gradients at weights y, between
those that steps are taken from, z, and their average x: y is trained here, and the average is made of x.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import torch

from darkroom.config.run import Train

# What these keep beside each weight's own state, for all weights: a checkpoint has it too.
GROUP_STATE = ("k", "d", "d_max", "d_numerator", "weight_sum", "lr_max")


def optimizer_notes(settings: Train) -> list[str]:
    """What is unusual about the optimizer's options, to be told and not refused."""
    if settings.optimizer != "prodigy" or 0.1 <= settings.learning_rate <= 10:
        return []
    return [
        f"prodigy multiplies learning_rate {settings.learning_rate:g} by a step size that it finds itself; its"
        " authors write 1.0"
    ]


def prodigy(groups: list[dict[str, Any]], options: dict[str, Any], has_warmup: bool) -> torch.optim.Optimizer:
    """Prodigy; has_warmup: the learning rate begins low, which its estimate must not take for short steps."""
    from prodigyopt import Prodigy

    with contextlib.redirect_stdout(io.StringIO()):  # it prints that weights decay
        optimizer: torch.optim.Optimizer = Prodigy(groups, safeguard_warmup=has_warmup, **options)
    return optimizer


def schedule_free(groups: list[dict[str, Any]], options: dict[str, Any]) -> torch.optim.Optimizer:
    """Schedule-Free AdamW, always in training: the weights stay y."""
    from schedulefree import AdamWScheduleFree

    optimizer: Any = AdamWScheduleFree(groups, **options)
    optimizer.train()
    found: torch.optim.Optimizer = optimizer
    return found


def averaged_weights(
    optimizers: Sequence[torch.optim.Optimizer], weights: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    """What the average is made of: the weights as they are, or of Schedule-Free x, as its `eval` would give it."""
    (first, *_) = optimizers
    if "weight_sum" not in first.param_groups[0]:
        return weights
    beta = first.param_groups[0]["betas"][0]
    found = []
    for weight in weights:
        z = first.state[weight].get("z")
        found.append(weight if z is None else torch.lerp(weight, z, 1 - 1 / beta))
    return found


def group_state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Group and key -> number, float64, of what belongs to all weights of a group; most optimizers have none."""
    return {
        f"{place}.{key}": torch.tensor(group[key], dtype=torch.float64)
        for place, group in enumerate(optimizer.param_groups)
        for key in GROUP_STATE
        if key in group
    }


def load_group_state(optimizer: torch.optim.Optimizer, values: dict[str, torch.Tensor]) -> None:
    """Take `group_state` back."""
    for name, value in values.items():
        place, _, key = name.partition(".")
        group = optimizer.param_groups[int(place)]
        group[key] = type(group[key])(value.item())
