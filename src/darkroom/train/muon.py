"""Muon, whose orthogonal updates are computed in the dtype of the training.

torch.optim.Muon computes them in bfloat16 whatever the training does: on a CPU without its instructions a step
took 4.3 times as long as with them. In bfloat16 both are the same to the bit.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
# Of the quintic whose slope at zero is steep, kellerjordan.github.io/posts/muon.
_COEFFICIENTS, _NUM_ITERATIONS, _EPSILON = (3.4445, -4.7750, 2.0315), 5, 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum with Nesterov's step ahead, made nearly orthogonal; decoupled weight decay.

    Args:
        params: matrices, and kernels of convolutions: matrices of (output channels) x (input channels and places).
        lr: learning rate; a matrix with more rows than columns has sqrt(rows / columns) times as much.
        weight_decay: share of the weights, times `lr`, that a step takes away.
        dtype: what updates are made orthogonal in.

    Raises:
        ValueError: a parameter is neither.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float, dtype: torch.dtype
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": MOMENTUM})
        self._dtype = dtype
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim < 2:
                    raise ValueError(
                        f"Muon takes matrices and kernels, not a parameter of shape {tuple(p.shape)}"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            momentum = group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p.grad, memory_format=torch.preserve_format)
                average = state["momentum_buffer"]
                average.lerp_(p.grad, 1 - momentum)
                ahead = p.grad.lerp(average, momentum).flatten(1)
                update = orthogonal(ahead, self._dtype).reshape(p.shape)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * math.sqrt(max(1, ahead.shape[0] / ahead.shape[1])))
        return loss


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix with its singular values brought near 1 (0.7 to 1.2), by Newton-Schulz iterations in `dtype`."""
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(dtype, copy=True)
    x = x.T if is_tall else x
    x.div_(x.norm().clamp(min=_EPSILON))
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
