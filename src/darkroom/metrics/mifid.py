"""MIFID: FID that grows where drawn pictures are copies of real ones (Bai et al., arXiv 2106.03062).

FID divided by how far real pictures lie from the nearest drawn one, as torchmetrics computes it.
"""

import numpy as np

from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.distances import checked, measure_distance
from darkroom.metrics.features import WithInception
from darkroom.metrics.frechet import frechet_distance

# Pictures that lie farther are no copies, and nothing is divided.
_THRESHOLD = 0.1
# What torchmetrics adds, lest it be zero.
_LEAST = 1e-14
# Below it FID is rounding, which would be divided by next to nothing.
_NO_DISTANCE = 1e-8
_ROWS = 1024


class Mifid(WithInception):
    """FID between drawn and real pictures, larger where drawn ones repeat real ones."""


def mifid(real: np.ndarray, generated: np.ndarray) -> float:
    """The Frechet distance, over the mean of 1 - |cos| of each real picture and the nearest drawn one, where that
    is below 0.1.

    Args:
        real, generated: features, float, (pictures, dimensions), at least two rows each. Rows of zeros have no
            direction and no part in the mean.

    Raises:
        ValueError: the features do not fit each other, or of one side all are zero.
    """
    real, generated = checked(real, generated)
    ones, others = (_directions(features) for features in (real, generated))
    nearest = [
        1 - np.abs(ones[start : start + _ROWS] @ others.T).max(axis=1) for start in range(0, len(ones), _ROWS)
    ]
    memorised = float(np.concatenate(nearest).mean())
    fid = frechet_distance(real, generated)
    if fid <= _NO_DISTANCE or memorised >= _THRESHOLD:
        return max(fid, 0.0)
    return fid / (memorised + _LEAST)


def _directions(features: np.ndarray) -> np.ndarray:
    kept = features[features.any(axis=1)]
    if not len(kept):
        raise ValueError("all features are zero and have no direction")
    return kept / np.linalg.norm(kept, axis=1, keepdims=True)


def measure(section: Mifid, inputs: Inputs) -> Measured:
    """The distance of each model's pictures."""
    return measure_distance(SPEC.name, f"MIFID, threshold {_THRESHOLD}", mifid, section, inputs)


SPEC = Metric(
    name="mifid",
    section=Mifid,
    measure=measure,
    label="MIFID",
    direction="lower",
    digits=2,
    summary="distance",
    column="mifid",
    references=True,
)
