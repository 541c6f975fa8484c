"""How much each noise level counts: declared as the weight of |x0' - x0|^2, converted to what is predicted.

An error d of the prediction is an error -s d / det of x0 (`algebra.determinant`), so a weight w in x0 space is
w (s / det)^2 on the prediction: w sigma^2 = w / SNR for epsilon, w / (SNR + 1) for v, w t^2 for flow.
"""

from typing import Literal

import torch
from torch import Tensor

from darkroom.objectives.algebra import NoiseLevel, Prediction, determinant

Weighting = Literal["none", "min_snr", "min_snr_plus_one", "soft_min_snr"]

# Edges of sigma between the bands of noise that a log tells of. 14.6 is where Stable Diffusion's schedule ends;
# 29 is twice that.
BAND_EDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 29.0)


def x0_weight(weighting: Weighting, snr: Tensor, gamma: float, floor: float) -> Tensor:
    """(B,) weight of |x0' - x0|^2.

    min_snr: min(SNR, gamma) (Hang et al., arXiv 2303.09556); min_snr_plus_one: min(SNR + 1, gamma), as some
    trainers have it for v; soft_min_snr: SNR gamma / (SNR + gamma). The first and the last are 0 for pure noise;
    no weight is below `floor`.
    """
    if weighting == "min_snr":
        weight = snr.clamp(max=gamma)
    elif weighting == "min_snr_plus_one":
        weight = (snr + 1).clamp(max=gamma)
    else:
        weight = gamma / (1 + gamma / snr)
    return weight.clamp(min=floor)


def prediction_weight(
    weighting: Weighting, prediction: Prediction, level: NoiseLevel, gamma: float = 5.0, floor: float = 0.0
) -> Tensor:
    """(B,) weight of the squared error of the prediction; `none` is 1 everywhere."""
    if weighting == "none":
        return torch.ones_like(level.signal)
    weight = x0_weight(weighting, level.snr, gamma, floor)
    if prediction == "x0":
        return weight
    return weight * (level.noise / determinant(prediction, level)).square()


def band_shares(sigma: Tensor, weight: Tensor, edges: tuple[float, ...] = BAND_EDGES) -> Tensor:
    """(len(edges) + 1,) shares of the weights (N,) whose sigma lies below, between and above the edges."""
    band = torch.bucketize(sigma.double(), torch.tensor(edges, dtype=torch.float64), right=True)
    sums = torch.zeros(len(edges) + 1, dtype=torch.float64).index_add_(0, band, weight.double())
    return sums / sums.sum()
