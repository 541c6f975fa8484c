"""The line through what jobs took, and what it says of many jobs.

A job takes start + each x units, both 0 or more, and its noise is a share s of it: least squares of relative
residuals. With the covariance C of (start, each) and x = (jobs, units of all jobs), the variance of what jobs take
together is x C x + s^2 sum y^2 (Draper and Smith, Applied Regression Analysis, 3rd ed., section 8.1, weighted).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

CONFIDENCE = 0.95
# Where one size alone was measured, sizes beyond this factor are not told.
MAX_FACTOR = 2.0
# The noise of a job as a share of it, where nothing was measured twice.
UNKNOWN_SPREAD = 0.25
# Of the weights; and the least that a job is fitted with, as a share of what it took.
_ROUNDS, _LEAST = 10, 0.01


@dataclass(frozen=True)
class Line:
    """start + each x units.

    Attributes:
        start, each: of a job, and of a unit.
        inverse: (X'X)^-1 of the relative design matrix, 2 x 2; 0 for what cannot be.
        squares, freedom: of the relative residuals: their sum, and their degrees of freedom.
        size: where jobs of one size alone were measured, their units; then `each` is proportional, so that sizes
            up to MAX_FACTOR above are rather too long than too short.
    """

    start: float
    each: float
    inverse: np.ndarray
    squares: float
    freedom: int
    size: float | None = None

    def reaches(self, units: float) -> bool:
        """Whether a job of so many units is told."""
        return self.size is None or self.size / MAX_FACTOR <= units <= self.size * MAX_FACTOR

    def of_job(self, units: float) -> float:
        """What a job of so many units takes."""
        if self.size is not None:
            return max(self.start, self.each * units)
        return self.start + self.each * units


@dataclass(frozen=True)
class Sum:
    """What many jobs take: the mean, and the variance of it."""

    mean: float
    variance: float

    @property
    def half(self) -> float:
        """The standard deviation."""
        return math.sqrt(self.variance)


def fit(units: Sequence[float], values: Sequence[float]) -> Line:
    """The line through measured jobs.

    Args:
        units, values: of each job, 0 or more; values above 0.

    Raises:
        ValueError: there are none, or a value is 0.
    """
    u, y = np.asarray(units, float), np.asarray(values, float)
    if not len(y) or len(u) != len(y) or not (y > 0).all() or not (u >= 0).all():
        raise ValueError("a line needs jobs that took something")
    if np.ptp(u) == 0:
        found, size = _line(u, y, np.array([True, False])), float(u[0])
        return replace(found, each=found.start / size, size=size) if size else found
    found = _line(u, y, np.array([True, True]))
    if found.start >= 0 and found.each >= 0:
        return found
    # The best line that is allowed lies on the border then: it has a start alone, or a rate alone.
    borders = [_line(u, y, np.array(columns)) for columns in ((False, True), (True, False))]
    # What is not known of the two stays unknown: noise that hides a rate must not make it surely 0.
    return replace(min(borders, key=lambda line: line.squares), inverse=found.inverse)


def proportional(units: Sequence[float], values: Sequence[float]) -> Line:
    """The same without a start: of what has units alone, as the steps of a training."""
    return _line(np.asarray(units, float), np.asarray(values, float), np.array([False, True]))


def _line(u: np.ndarray, y: np.ndarray, columns: np.ndarray) -> Line:
    whole, fitted = np.stack([np.ones_like(u), u], axis=1)[:, columns], y
    # Weighed by what is fitted, not by what was measured: that would take the fast jobs for the usual ones.
    for _ in range(_ROUNDS):
        design = whole / fitted[:, None]
        inner = np.linalg.pinv(design.T @ design)
        solved = inner @ (design.T @ (y / fitted))
        fitted = np.maximum(whole @ solved, _LEAST * y)
    coefficients, inverse = np.zeros(2), np.zeros((2, 2))
    coefficients[columns] = solved
    start, each = coefficients.tolist()
    inverse[np.ix_(columns, columns)] = inner
    squares = float(((y / fitted - 1) ** 2).sum())
    return Line(start, each, inverse, squares, len(y) - int(columns.sum()))


def add_up(line: Line, sizes: Iterable[tuple[float, int]], spread: float) -> Sum:
    """What jobs take together.

    Args:
        sizes: (units of a job, number of such jobs).
        spread: the noise of a job as a share of it.
    """
    jobs = units = mean = squares = 0.0
    for size, number in sizes:
        one = line.of_job(size)
        jobs, units = jobs + number, units + size * number
        mean, squares = mean + one * number, squares + one * one * number
    x = np.array([jobs, 0.0 if line.size is not None else units])
    variance = spread**2 * (float(x @ line.inverse @ x) + squares)
    if line.size is not None:
        # Nobody knows how much of it is the start: anything from all to nothing.
        variance += ((mean - line.start * jobs) / 2) ** 2
    return Sum(mean, variance)


def pooled_spread(lines: Iterable[Line]) -> tuple[float, int]:
    """The noise of jobs as a share of them, over all kinds of work, and its degrees of freedom."""
    known = [line for line in lines if line.freedom > 0]
    freedom = sum(line.freedom for line in known)
    if not freedom:
        return UNKNOWN_SPREAD, 0
    return math.sqrt(sum(line.squares for line in known) / freedom), freedom


def quantile(freedom: int) -> float:
    """Student's t for a two-sided interval of CONFIDENCE; where nothing was measured twice, the normal one."""
    return float(student.ppf((1 + CONFIDENCE) / 2, freedom or math.inf))
