"""DreamBooth's prior preservation: pictures of the class keep the class while a subject is learnt.

Ruiz et al., arXiv 2208.12242, equation 2: the mean loss of the subject's pictures plus lambda times the mean
loss of the class's pictures.
"""

import torch
from torch import Tensor


def prior_weights(is_prior: Tensor, prior_weight: float) -> Tensor:
    """(B,) weights whose mean product with the samples' losses is mean(subject) + prior_weight x mean(class).

    Weights instead of two sums, so that any cut of the batch into microbatches and ranks gives the same loss.

    Args:
        is_prior: (B,) bool over the global batch, True on pictures of the class.
        prior_weight: lambda, 1 in the paper.
    Raises:
        ValueError: when the batch lacks one of the two, or the weight is negative.
    """
    if prior_weight < 0:
        raise ValueError(f"prior_weight {prior_weight:g} is negative")
    num, num_prior = len(is_prior), int(is_prior.sum())
    if num_prior in (0, num):
        lacking = "pictures of the class" if num_prior == 0 else "pictures of the subject"
        raise ValueError(f"a batch of {num} has no {lacking}; prior preservation needs both in every batch")
    weights = torch.full((num,), num / (num - num_prior), device=is_prior.device)
    return torch.where(is_prior, prior_weight * num / num_prior, weights)
