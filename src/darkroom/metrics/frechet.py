"""The Frechet distance of CLIP features (Heusel et al., arXiv 1706.08500)."""

import numpy as np

from darkroom.metrics import gaussians
from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.distances import checked, measure_distance
from darkroom.metrics.embeddings import WithReferences

# No CLIP has so many dimensions: what was measured in CLIP features keeps its bytes.
_MANY_DIMENSIONS = 1536


class FrechetDistance(WithReferences):
    """Frechet distance of CLIP features between drawn and real pictures."""


def frechet_distance(real: np.ndarray | gaussians.Gaussian, generated: np.ndarray) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) with unbiased covariances, in float64.

    With S1 = L L^T the eigenvalues of S1 S2 are those of L^T S2 L, which is symmetric: no root of a matrix
    that is not symmetric is taken, and covariances may be singular. Of 1536 dimensions or more, `gaussians` has
    a form that takes half the time.

    Args:
        real, generated: features, float, (pictures, dimensions), at least two rows each. Fewer rows
            than dimensions are allowed; the distance is biased upwards by about 1 / rows either way. The real ones
            may be a Gaussian that somebody else fitted.

    Raises:
        ValueError: the features do not fit each other.
    """
    if isinstance(real, gaussians.Gaussian):
        _, generated = checked(generated, generated)
        return gaussians.distance(real, gaussians.fitted(generated))
    real, generated = checked(real, generated)
    if real.shape[1] >= _MANY_DIMENSIONS:
        return gaussians.distance(gaussians.fitted(real), gaussians.fitted(generated))
    gap = real.mean(axis=0) - generated.mean(axis=0)
    first, second = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (real, generated))
    values, vectors = np.linalg.eigh(first)
    factor = vectors * np.sqrt(np.maximum(values, 0))
    # Rounding leaves eigenvalues of a singular matrix a little below zero.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(factor.T @ second @ factor), 0)).sum()
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2 * cross)


def measure(section: FrechetDistance, inputs: Inputs) -> Measured:
    """The distance of each model's pictures."""
    return measure_distance(SPEC.name, "frechet", frechet_distance, section, inputs)


SPEC = Metric(
    name="frechet_clip_distance",
    section=FrechetDistance,
    measure=measure,
    label="Fréchet distance on CLIP features",
    direction="lower",
    digits=3,
    summary="distance",
    column="frechet_clip_distance",
    references=True,
    statistics=True,
)
