"""The Frechet distance of two sets of features: ours, torchmetrics' and clean-fid's, from features to the number.

They have to agree to 1e-4.

    python speed/frechet.py
    python speed/frechet.py --size small
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import race
from race import OURS, Race, Side, Sizes, Work

LIMIT = 1e-4
Distance = Callable[[np.ndarray, np.ndarray], float]


def features(num_rows: int, dimensions: int, seed: int) -> np.ndarray:
    """Not negative and of a spectrum that decays, as Inception's are."""
    rng = np.random.default_rng(seed)
    spread = 1 / np.sqrt(np.arange(1, dimensions + 1))
    return np.maximum(rng.normal(size=(num_rows, dimensions)) * spread * (1 + seed / 10), 0)


def work(sizes: Sizes, distance: Distance) -> Work:
    """The distance of the same two sets."""
    warnings.simplefilter("ignore")
    real, drawn = (features(sizes["rows"], sizes["dimensions"], seed) for seed in (0, 1))
    return Work(lambda: distance(real, drawn), lambda: distance(real, drawn))


def ours(folder: Path, sizes: Sizes) -> Work:
    from darkroom.metrics.frechet import frechet_distance

    return work(sizes, frechet_distance)


def torchmetrics(folder: Path, sizes: Sizes) -> Work:
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    from darkroom.metrics.given import Given

    torch.set_num_threads(1)

    def distance(real: np.ndarray, drawn: np.ndarray) -> float:
        metric = FrechetInceptionDistance(feature=Given(real.shape[1]), normalize=True)
        metric.set_dtype(torch.float64)
        metric.update(torch.from_numpy(real), real=True)
        metric.update(torch.from_numpy(drawn), real=False)
        return float(metric.compute())

    return work(sizes, distance)


def clean_fid(folder: Path, sizes: Sizes) -> Work:
    from cleanfid.fid import frechet_distance

    def distance(real: np.ndarray, drawn: np.ndarray) -> float:
        moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (real, drawn)]
        return float(frechet_distance(*moments[0], *moments[1]))

    return work(sizes, distance)


def same(ours: float, theirs: float) -> str | None:
    """To LIMIT, of the distance."""
    gap = abs(theirs / ours - 1)
    return f"{theirs:.8f}, ours {ours:.8f}, off by {gap:.1e}" if gap > LIMIT else None


RACE = Race(
    title="Frechet distance of features",
    told=lambda sizes: f"{sizes['rows']:,} x {sizes['dimensions']:,} against as many, in float64",
    sizes={
        "smallest": {"rows": 300, "dimensions": 64},
        "small": {"rows": 10_000, "dimensions": 2048},
        "large": {"rows": 10_000, "dimensions": 2048},
    },
    sides=(
        Side(OURS, ours),
        Side("torchmetrics", torchmetrics, 2.0),
        Side("clean-fid", clean_fid, 4.0, "clean-fid"),
    ),
    same=same,
)

if __name__ == "__main__":
    race.main(RACE, __doc__)
