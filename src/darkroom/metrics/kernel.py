"""The kernel distance of CLIP features (Binkowski et al., arXiv 1801.01401), which is torchmetrics'."""

import warnings

import numpy as np

from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.distances import checked, measure_distance
from darkroom.metrics.embeddings import WithReferences

_SEED = 0
_SUBSETS = 100
_SUBSET_SIZE = 1000


class KernelDistance(WithReferences):
    """Kernel distance of CLIP features between drawn and real pictures."""


def kernel_distance(
    real: np.ndarray, generated: np.ndarray, num_subsets: int = _SUBSETS, subset_size: int = _SUBSET_SIZE
) -> float:
    """The unbiased squared MMD with the kernel (x.y / d + 1)^3, mean over random subsets.

    May be negative. Subsets have at most `subset_size` pictures and never more than there are; they are
    drawn from a fixed seed and leave torch's random state as it was.

    Args:
        real, generated: features, float, (pictures, dimensions), at least two rows each.
    """
    import torch
    from torchmetrics.image.kid import KernelInceptionDistance

    from darkroom.metrics.given import Given

    real, generated = checked(real, generated)
    size = min(subset_size, len(real), len(generated))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features is known: the caller has them anyway
        metric = KernelInceptionDistance(
            feature=Given(real.shape[1]), subsets=num_subsets, subset_size=size, normalize=True
        ).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(generated), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        mean, _ = metric.compute()
    return float(mean)


def measure(section: KernelDistance, inputs: Inputs) -> Measured:
    """The distance of each model's pictures."""
    return measure_distance(SPEC.name, "kernel", kernel_distance, section, inputs)


SPEC = Metric(
    name="kernel_clip_distance",
    section=KernelDistance,
    measure=measure,
    label="Kernel distance on CLIP features",
    direction="lower",
    digits=4,
    summary="distance",
    column="kernel_clip_distance",
    references=True,
)
