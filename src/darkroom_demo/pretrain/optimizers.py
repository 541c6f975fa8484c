"""What the demo's components are trained with where minutes count: Muon, and a one-cycle learning rate."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from darkroom.train.muon import Muon


def muon(parameters: Iterable[nn.Parameter], lr: float) -> Muon:
    """Muon as all of them are trained with."""
    return Muon(parameters, lr, weight_decay=0.01, dtype=torch.bfloat16)


def one_cycle(num_steps: int) -> Callable[[int], float]:
    """Step -> factor of the learning rate: linear warm-up, then a cosine to one hundredth."""
    warmup = min(100, max(1, num_steps // 10))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * (step - warmup) / max(1, num_steps - warmup))))

    return factor
