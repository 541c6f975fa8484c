"""CMMD: the maximum mean discrepancy of CLIP features (Jayasumana et al., arXiv 2401.09603).

A thousandfold squared MMD with a Gaussian kernel of width 10 between unit vectors, the biased estimate, as in the
paper's code. Published numbers are of CLIP ViT-L/14 at 336 px: the protocol names the CLIP that was used.
"""

import numpy as np

from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.distances import checked, measure_distance
from darkroom.metrics.embeddings import WithReferences

_SIGMA = 10.0
_SCALE = 1000.0
# Pictures whose kernel with all others is in memory at once.
_ROWS = 1024


class Cmmd(WithReferences):
    """CMMD of CLIP features between drawn and real pictures."""


def cmmd(real: np.ndarray, generated: np.ndarray) -> float:
    """1000 (E k(r, r') + E k(g, g') - 2 E k(r, g)) with k(x, y) = exp(-|x - y|^2 / (2 10^2)), over all pairs.

    Args:
        real, generated: features, float, (pictures, dimensions), at least two rows each; normalised here.

    Raises:
        ValueError: the features do not fit each other, or one is zero.
    """
    real, generated = (_unit(features) for features in checked(real, generated))
    cross = _mean_kernel(real, generated)
    return _SCALE * (_mean_kernel(real, real) + _mean_kernel(generated, generated) - 2 * cross)


def _mean_kernel(first: np.ndarray, second: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(first), _ROWS):
        # Of unit vectors |x - y|^2 = 2 - 2 x.y.
        cosines = first[start : start + _ROWS] @ second.T
        total += float(np.exp((cosines - 1) / _SIGMA**2).sum())
    return total / (len(first) * len(second))


def _unit(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError(f"feature {int(norms.argmin())} is zero and has no direction")
    return features / norms


def measure(section: Cmmd, inputs: Inputs) -> Measured:
    """The distance of each model's pictures."""
    return measure_distance(SPEC.name, "cmmd", cmmd, section, inputs)


SPEC = Metric(
    name="cmmd",
    section=Cmmd,
    measure=measure,
    label="CMMD",
    direction="lower",
    digits=3,
    summary="distance",
    column="cmmd",
    references=True,
)
