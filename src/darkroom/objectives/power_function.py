"""Power-function averages of weights, and how one of any width is put together from others.

After Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2, arXiv
2312.02696), section 3 and appendix C. An average with exponent g at time t weighs the weights of each time u <= t
by its profile p(u) = (g + 1) u^g / t^(g + 1). So it forgets in proportion to how long the training is, and its
width, the standard deviation of the profile divided by t, stays the same.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def exponent_of(width: float) -> float:
    """The exponent of profiles of this relative standard deviation, 0 < width < sqrt(1/12).

    width^2 = (g + 1) / ((g + 2)^2 (g + 3)), solved for g: with a = width^-2 the largest root of the cubic
    g^3 + 7 g^2 + (16 - a) g + (12 - a).
    """
    a = width**-2
    return float(np.roots([1, 7, 16 - a, 12 - a]).real.max())


def width_of(exponent: float) -> float:
    """The relative standard deviation of profiles with this exponent."""
    return float(np.sqrt((exponent + 1) / ((exponent + 2) ** 2 * (exponent + 3))))


def update_weight(step: int, exponent: float) -> float:
    """How much of the weights enters their average after `step` completed steps, from 1: 1 - (1 - 1/t)^(g + 1).

    So the average of one step is the weights after it, and what was before has no part in any.
    """
    return float(1 - (1 - 1 / step) ** (exponent + 1))


@dataclass(frozen=True)
class Profiles:
    """Profiles of averages: steps (n,) at which they are taken, and exponents (n,)."""

    steps: Floats
    exponents: Floats

    @classmethod
    def of(cls, averages: list[tuple[int, float]]) -> "Profiles":
        """Those of averages with these (step, width)."""
        exponents = {width: exponent_of(width) for _, width in averages}
        return cls(
            np.array([step for step, _ in averages], np.float64),
            np.array([exponents[width] for _, width in averages], np.float64),
        )


def inner_products(one: Profiles, other: Profiles) -> Floats:
    """(n, m): the integral of each product of a profile of `one` with one of `other`.

    Of exponents g at t and h at s >= t it is (g + 1)(h + 1) / (g + h + 1) x (t / s)^h / s.
    """
    t, g = one.steps[:, None], one.exponents[:, None]
    s, h = other.steps[None, :], other.exponents[None, :]
    is_earlier = t < s
    later = np.maximum(t, s)
    decay = (np.minimum(t, s) / later) ** np.where(is_earlier, h, g)
    return (g + 1) * (h + 1) / (g + h + 1) * decay / later


def coefficients(stored: Profiles, wanted: Profiles) -> tuple[Floats, Floats]:
    """How profiles are best put together from stored ones, and how far from them that is.

    Returns coefficients (n stored, m wanted) with the least squared error of each wanted profile, and these errors
    (m,), as parts of the wanted profile's norm.
    """
    matrix = inner_products(stored, stored)
    # In units of their norms. Profiles of many snapshots are nearly the same ones, so least squares: what is
    # below the rounding error among the singular values is left out.
    scale = 1 / np.sqrt(np.diag(matrix))
    matrix *= scale * scale[:, None]
    right = inner_products(stored, wanted) * scale[:, None]
    found = np.linalg.lstsq(matrix, right, rcond=None)[0]
    norms = np.diag(inner_products(wanted, wanted))
    left = norms - 2 * (found * right).sum(axis=0) + (found * (matrix @ found)).sum(axis=0)
    return found * scale[:, None], np.sqrt(np.maximum(left, 0) / norms)
