"""The Frechet distance between Gaussians of many dimensions, whose covariances are held by a root.

With W^T W = S of each, tr (S1 S2)^(1/2) is the sum of the singular values of W1 W2^T. A root is the centred
features themselves where they are fewer than dimensions, else Cholesky's; of a singular covariance it is made of
eigenvectors.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution in float64.

    Attributes:
        mean: (dimensions,).
        root: (rows, dimensions), no more rows than dimensions; root^T root is the covariance.
    """

    mean: np.ndarray
    root: np.ndarray


def fitted(features: np.ndarray) -> Gaussian:
    """The Gaussian of features, with their unbiased covariance.

    Args:
        features: float64, (pictures, dimensions), two rows or more.
    """
    mean, freedom = features.mean(axis=0), len(features) - 1
    centred = features - mean
    if len(features) <= features.shape[1]:
        return Gaussian(mean, centred / np.sqrt(freedom))
    return _from_covariance(mean, centred.T @ centred / freedom)


def from_statistics(mean: np.ndarray, covariance: np.ndarray) -> Gaussian:
    """The Gaussian of a mean (dimensions,) and a covariance (dimensions, dimensions), which may be singular.

    Raises:
        ValueError: they are of other shapes, hold what is no finite number, or the covariance is not one.
    """
    mean, covariance = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        raise ValueError(
            f"the mean is {mean.shape}, the covariance {covariance.shape}; they should be (d,) and (d, d)"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("the mean or the covariance holds what is no finite number")
    scale = np.abs(covariance).max(initial=0)
    if np.abs(covariance - covariance.T).max(initial=0) > 1e-6 * scale:
        raise ValueError("the covariance is not symmetric")
    return _from_covariance(mean, covariance)


def _from_covariance(mean: np.ndarray, covariance: np.ndarray) -> Gaussian:
    try:
        return Gaussian(mean, np.linalg.cholesky(covariance).T)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-3 * values[-1]:
        raise ValueError(f"the covariance has a negative eigenvalue, {values[0]:.3g}")
    # Rounding leaves eigenvalues of a singular matrix a little below zero.
    return Gaussian(mean, np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)


def distance(first: Gaussian, second: Gaussian) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    Raises:
        ValueError: they have not the same dimensions.
    """
    if len(first.mean) != len(second.mean):
        raise ValueError(
            f"the real features have {len(first.mean)} dimensions, the generated {len(second.mean)}"
        )
    gap = first.mean - second.mean
    across = first.root @ second.root.T
    across = across if len(across) <= len(across.T) else across.T
    squares = np.linalg.eigvalsh(across @ across.T)
    traces = sum(np.vdot(one.root, one.root) for one in (first, second))
    return float(gap @ gap + traces - 2 * np.sqrt(np.maximum(squares, 0)).sum())
