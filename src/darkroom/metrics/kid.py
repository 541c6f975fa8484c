"""KID: the kernel distance of Inception features (Binkowski et al., arXiv 1801.01401).

Subsets are drawn as torch-fidelity draws them, from its seed, so that the number is torch-fidelity's.
"""

import numpy as np
from pydantic import Field

from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.distances import checked, measure_distance
from darkroom.metrics.features import WithInception

_SEED = 2020
_SUBSETS = 100


class Kid(WithInception):
    """KID between drawn and real pictures; may be negative."""

    subset_size: int = Field(1000, ge=2, description="pictures of each of the 100 random subsets, at most")


def kid(real: np.ndarray, generated: np.ndarray, subset_size: int) -> float:
    """The unbiased squared MMD with the kernel (x.y / d + 1)^3, mean over 100 random subsets.

    Subsets are never larger than the smaller side.

    Args:
        real, generated: features, float, (pictures, dimensions), at least two rows each.

    Raises:
        ValueError: the features do not fit each other.
    """
    real, generated = checked(real, generated)
    size = min(subset_size, len(real), len(generated))
    rng = np.random.RandomState(_SEED)
    found = []
    for _ in range(_SUBSETS):
        ours = generated[rng.choice(len(generated), size, replace=False)]
        theirs = real[rng.choice(len(real), size, replace=False)]
        found.append(_squared_mmd(ours, theirs))
    return float(np.mean(found))


def _squared_mmd(first: np.ndarray, second: np.ndarray) -> float:
    """Of equally many rows; a row and itself are no pair."""
    size, dimensions = first.shape
    within, cross = 0.0, ((first @ second.T / dimensions + 1) ** 3).sum()
    for rows in (first, second):
        kernel = (rows @ rows.T / dimensions + 1) ** 3
        within += kernel.sum() - np.trace(kernel)
    return float(within / (size * (size - 1)) - 2 * cross / size**2)


def measure(section: Kid, inputs: Inputs) -> Measured:
    """The distance of each model's pictures."""

    def distance(real: np.ndarray, generated: np.ndarray) -> float:
        return kid(real, generated, section.subset_size)

    kind = f"KID, {_SUBSETS} subsets of at most {section.subset_size}"
    return measure_distance(SPEC.name, kind, distance, section, inputs)


SPEC = Metric(
    name="kid",
    section=Kid,
    measure=measure,
    label="KID",
    direction="lower",
    digits=5,
    summary="distance",
    column="kid",
    references=True,
)
