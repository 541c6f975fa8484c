"""Precision, recall, density and coverage: how drawn pictures lie among real ones, by nearest neighbours.

Precision and recall are those of Kynkaanniemi et al. (arXiv 1904.06991), density and coverage of Naeem et al.
(arXiv 2002.09797), whose code's strict inequality is kept: a picture is near another one when it is closer than
that one's k-th nearest neighbour among its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.distances import checked, measure_distance
from darkroom.metrics.embeddings import Compared, WithReferences
from darkroom.metrics.features import WithFeatures

# Pictures whose distances to all others are in memory at once.
_ROWS = 1024
# Squared distances below this share of the largest square are rounding of the same picture's.
_ROUNDING = 1e-12


class Neighbours(WithReferences):
    """Nearest neighbours of CLIP features among drawn and real pictures."""

    num_neighbours: int = Field(5, ge=1, description="a picture's neighbourhood reaches to so many others")


class NeighboursOf(WithFeatures):
    """Nearest neighbours among drawn and real pictures, in the features of one network."""

    num_neighbours: int = Field(5, ge=1, description="a picture's neighbourhood reaches to so many others")


@dataclass(frozen=True)
class Neighbourhood:
    """Shares of pictures: `precision`, `recall` and `coverage` 0 to 1, `density` from 0, above 1 where drawn
    pictures are packed closer than real ones."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhood(real: np.ndarray, generated: np.ndarray, num_neighbours: int) -> Neighbourhood:
    """All four, in float64.

    Args:
        real, generated: features, float, (pictures, dimensions); more rows than `num_neighbours` each.

    Raises:
        ValueError: the features do not fit each other, or are too few.
    """
    real, generated = checked(real, generated)
    if (fewest := min(len(real), len(generated))) <= num_neighbours:
        raise ValueError(f"{num_neighbours} neighbours need more pictures than {fewest}")
    middle = real.mean(axis=0)
    real, generated = real - middle, generated - middle
    real_radii, generated_radii = (_radii(features, num_neighbours) for features in (real, generated))
    memberships = np.zeros(len(generated), np.int64)
    recalled = covered = 0
    for start, squares in _squares(real, generated):
        is_near = squares < real_radii[start : start + len(squares), None]
        memberships += is_near.sum(axis=0)
        covered += int(is_near.any(axis=1).sum())
        recalled += int((squares < generated_radii).any(axis=1).sum())
    return Neighbourhood(
        precision=float((memberships > 0).mean()),
        recall=recalled / len(real),
        density=float(memberships.mean()) / num_neighbours,
        coverage=covered / len(real),
    )


def _radii(features: np.ndarray, num_neighbours: int) -> np.ndarray:
    """Squared distance of each picture to its k-th nearest other one."""
    # The nearest one is the picture itself.
    parts = [
        np.partition(squares, num_neighbours)[:, num_neighbours]
        for _, squares in _squares(features, features)
    ]
    return np.concatenate(parts)


def _squares(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, squared distances of some rows of `first` to all of `second`)."""
    ones, others = (np.einsum("nd,nd->n", x, x) for x in (first, second))
    least = _ROUNDING * max(ones.max(), others.max())
    for start in range(0, len(first), _ROWS):
        rows = slice(start, start + _ROWS)
        squares = ones[rows, None] + others - 2 * (first[rows] @ second.T)
        yield start, np.where(squares < least, 0, squares)


def _metric(name: str, label: str, section: type[Compared], column: str) -> Metric:
    def measure(section: Neighbours | NeighboursOf, inputs: Inputs) -> Measured:
        def found(real: np.ndarray, generated: np.ndarray) -> float:
            return float(getattr(neighbourhood(real, generated, section.num_neighbours), name))

        kind = f"{name} of {section.num_neighbours} nearest neighbours"
        return measure_distance(column, kind, found, section, inputs)

    return Metric(
        name=column, section=section, measure=measure, label=label, direction="higher", digits=3,
        summary="distance", column=column, references=True,
    )  # fmt: skip


_LABELS = {"precision": "Precision", "recall": "Recall", "density": "Density", "coverage": "Coverage"}
ON_CLIP = [
    _metric(name, f"{label} on CLIP features", Neighbours, f"{name}_clip") for name, label in _LABELS.items()
]
ON_FEATURES = [_metric(name, label, NeighboursOf, name) for name, label in _LABELS.items()]
