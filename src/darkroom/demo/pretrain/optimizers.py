"""What the demo's components are trained with where minutes count: Muon, and a one-cycle learning rate."""

from collections.abc import Callable, Iterable

import numpy as np
import torch


class Muon(torch.optim.Optimizer):
    """Muon: momentum whose update is made nearly orthogonal (kellerjordan.github.io/posts/muon).

    Not torch.optim.Muon, which takes matrices alone: of a convolution, the kernel is a matrix of (output
    channels) x (input channels and places).
    """

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(average, group["momentum"]).flatten(1)
                rows, columns = update.shape
                scale = group["lr"] * max(1, rows / columns) ** 0.5
                parameter.mul_(1 - 0.01 * group["lr"])
                parameter.sub_(_orthogonal(update).view_as(parameter), alpha=scale)


def _orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix with its singular values brought near 1, by five Newton-Schulz steps with Muon's coefficients."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x if wide else x.T).float()


def one_cycle(num_steps: int) -> Callable[[int], float]:
    """Step -> factor of the learning rate: linear warm-up, then a cosine to one hundredth."""
    warmup = min(100, max(1, num_steps // 10))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * (step - warmup) / max(1, num_steps - warmup))))

    return factor
