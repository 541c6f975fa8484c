"""How long the Frechet distance takes on one thread: ours, torchmetrics' and clean-fid's, on the same features.

From features to the distance, in processor seconds, in turn, the quickest of each. They have to agree to 1e-4, and
ours to be twice as quick as torchmetrics' and four times as clean-fid's, which is no part of this project's
environment: `pip install --no-deps --target FOLDER clean-fid==0.1.35`, and FOLDER into PYTHONPATH.

    python benchmarks/frechet.py
    python benchmarks/frechet.py --rows 500 --dimensions 2048
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before numpy is imported

import numpy as np  # noqa: E402

GOALS = {"torchmetrics": 2.0, "clean-fid": 4.0}
LIMIT = 1e-4
Distance = Callable[[np.ndarray, np.ndarray], float]


def features(num_rows: int, dimensions: int, seed: int) -> np.ndarray:
    """Not negative and of a spectrum that decays, as Inception's are."""
    rng = np.random.default_rng(seed)
    spread = 1 / np.sqrt(np.arange(1, dimensions + 1))
    return np.maximum(rng.normal(size=(num_rows, dimensions)) * spread * (1 + seed / 10), 0)


def ours() -> Distance:
    from darkroom.metrics.frechet import frechet_distance

    return frechet_distance


def torchmetrics() -> Distance:
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

    return distance


def clean_fid() -> Distance:
    from cleanfid.fid import frechet_distance

    def distance(real: np.ndarray, drawn: np.ndarray) -> float:
        moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (real, drawn)]
        return float(frechet_distance(*moments[0], *moments[1]))

    return distance


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    distances = {"darkroom": ours(), "torchmetrics": torchmetrics()}
    try:
        distances["clean-fid"] = clean_fid()
    except ImportError as error:
        print(f"clean-fid is left out: {error}")
    real, drawn = (features(asked.rows, asked.dimensions, seed) for seed in (0, 1))
    seconds: dict[str, list[float]] = {name: [] for name in distances}
    found: dict[str, float] = {}
    # In turn, so that all see what else the machine does.
    for _ in range(asked.repeats):
        for name, distance in distances.items():
            begin = time.process_time()
            found[name] = distance(real, drawn)
            seconds[name].append(time.process_time() - begin)
    quickest = {name: min(times) for name, times in seconds.items()}
    is_well = True
    for name, value in found.items():
        ratio, gap = quickest[name] / quickest["darkroom"], abs(value / found["darkroom"] - 1)
        print(f"{name:<14}{quickest[name]:>8.2f} s{ratio:>7.2f} x  {value:.8f}  off by {gap:.1e}")
        is_well &= gap <= LIMIT and ratio >= GOALS.get(name, 1.0)
    print(f"agree to {LIMIT} and as quick as was to be: {is_well}")
    sys.exit(not is_well)


if __name__ == "__main__":
    main()
