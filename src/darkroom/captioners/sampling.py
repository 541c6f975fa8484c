"""Sampling that depends on a picture and a caption alone: not on what else is in a batch."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

# Of probabilities as integers: sums of these do not depend on the order in which they are added.
_BITS = 40


def uniforms(seeds: Sequence[int], number: int) -> npt.NDArray[np.float64]:
    """(B, number) from [0, 1), a row a seed."""
    return np.stack([np.random.Generator(np.random.Philox(key=seed)).random(number) for seed in seeds])


def sampled(logits: torch.Tensor, temperature: float, top_p: float, uniform: torch.Tensor) -> torch.Tensor:
    """Tokens (B,) drawn from logits (B, V) with one number from [0, 1) each (B,), by the inverse of their sums.

    Of each row the most probable tokens are drawn from that have the probability `top_p` together: the nucleus of
    Holtzman et al. 2020 (arXiv 1904.09751).
    """
    probability, order = (logits.double() / temperature).softmax(1).sort(dim=1, descending=True, stable=True)
    weights = (probability * 2**_BITS).round().long()
    before = weights.cumsum(1) - weights
    weights = weights.masked_fill(before >= top_p * 2**_BITS, 0)
    sums = weights.cumsum(1)
    target = (uniform.to(sums.device)[:, None] * sums[:, -1:]).long().clamp(max=sums[:, -1:] - 1)
    return order.gather(1, (sums <= target).sum(1, keepdim=True))[:, 0]
