"""How far generated pictures lie from real ones: the Frechet and the kernel distance of features.

Both are torchmetrics' (Heusel et al., arXiv 1706.08500; Binkowski et al., arXiv 1801.01401) over
features that are computed once by the caller. A distance means nothing without its features, the resize
before them and the number of pictures, so `distance_name` tells all of them.
"""

import warnings

import numpy as np
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

_KERNEL_SEED = 0
_KERNEL_SUBSETS = 100
_KERNEL_SUBSET_SIZE = 1000


class _Given(torch.nn.Module):
    """Takes features for pictures: torchmetrics' extractor where there is nothing left to extract."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) with unbiased covariances.

    Args:
        real, generated: features, float, (pictures, dimensions), at least two rows each. Fewer rows
            than dimensions are allowed; the distance is biased upwards by about 1 / rows either way.
    """
    real, generated = _checked(real, generated)
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]), normalize=True).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(generated), real=False)
    return float(metric.compute())


def kernel_distance(
    real: np.ndarray,
    generated: np.ndarray,
    num_subsets: int = _KERNEL_SUBSETS,
    subset_size: int = _KERNEL_SUBSET_SIZE,
) -> float:
    """The unbiased squared MMD with the kernel (x.y / d + 1)^3, mean over random subsets.

    May be negative. Subsets have at most `subset_size` pictures and never more than there are; they are
    drawn from a fixed seed and leave torch's random state as it was.

    Args:
        real, generated: features, float, (pictures, dimensions), at least two rows each.
    """
    real, generated = _checked(real, generated)
    size = min(subset_size, len(real), len(generated))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features is known: the caller has them anyway
        metric = KernelInceptionDistance(
            feature=_Given(real.shape[1]), subsets=num_subsets, subset_size=size, normalize=True
        ).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(generated), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_KERNEL_SEED)
        mean, _ = metric.compute()
    return float(mean)


def distance_name(kind: str, feature: str, resize: str, num_real: int, num_generated: int) -> str:
    """A distance's full name, e.g. `frechet, demo-clip, bicubic 64 px, 1000 real, 252 generated`."""
    return f"{kind}, {feature}, {resize}, {num_real} real, {num_generated} generated"


def _checked(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for name, features in (("real", real), ("generated", generated)):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(
                f"{name} features are {features.shape}; two or more rows of one length are needed"
            )
    if real.shape[1] != generated.shape[1]:
        raise ValueError(f"real features have {real.shape[1]} dimensions, generated {generated.shape[1]}")
    return np.ascontiguousarray(real, np.float64), np.ascontiguousarray(generated, np.float64)
