"""FID-infinity: what FID would be of endlessly many drawn pictures (Chong and Forsyth, arXiv 1911.07023).

FID is biased upwards by about 1 / pictures, more for one model than for another. It is computed at 15 numbers of
drawn pictures, and the line through it over 1 / number is followed to zero. The sizes are dgm-eval's.
"""

import numpy as np

from darkroom.metrics import gaussians
from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.distances import checked, measure_distance
from darkroom.metrics.features import WithInception
from darkroom.metrics.frechet import frechet_distance

_SIZES = 15
_SMALLEST = 5000
_SEED = 0


class FidInfinity(WithInception):
    """FID between drawn and real pictures without its bias by the number of drawn ones."""


def fid_infinity(real: np.ndarray | gaussians.Gaussian, generated: np.ndarray) -> float:
    """The intercept of the line through the Frechet distances of random subsets over 1 / their sizes.

    Args:
        real, generated: see `frechet_distance`. Subsets are of the generated ones, at least two of each.

    Raises:
        ValueError: the features do not fit each other, or are of fewer than 3 generated pictures.
    """
    if not isinstance(real, gaussians.Gaussian):
        real, generated = checked(real, generated)
        real = gaussians.fitted(real)
    number = len(generated)
    if number < 3:
        raise ValueError(f"FID-infinity needs 3 generated pictures or more, not {number}")
    smallest = min(_SMALLEST, max(number / 10, 2))
    sizes = np.unique(np.linspace(smallest, number, _SIZES).astype(int))
    rng = np.random.default_rng(_SEED)
    found = [frechet_distance(real, generated[rng.permutation(number)[:size]]) for size in sizes]
    _, intercept = np.polyfit(1 / sizes, found, 1)
    return float(intercept)


def measure(section: FidInfinity, inputs: Inputs) -> Measured:
    """The distance of each model's pictures."""
    return measure_distance(SPEC.name, f"FID-infinity, {_SIZES} sizes", fid_infinity, section, inputs)


SPEC = Metric(
    name="fid_infinity",
    section=FidInfinity,
    measure=measure,
    label="FID-infinity",
    direction="lower",
    digits=2,
    summary="distance",
    column="fid_infinity",
    references=True,
    statistics=True,
)
