"""How sure a score is: bootstrap over prompts.

Pictures of one prompt succeed and fail together, so prompts are resampled, within each task, and never
single pictures. The difference of two models is paired: resample the differences of their prompts.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from darkroom.benchmarks.table import ordered_tasks

_LEVEL = 0.95


def bootstrap(
    tasks: Sequence[str], values: np.ndarray, num_resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Resampled means of every task, `overall` (mean of the tasks' means) and `micro` (over all prompts).

    The same tasks, number and seed draw the same prompts, whatever the values.

    Args:
        tasks: each prompt's task.
        values: each prompt's score, or one for each of its pictures, not all of them NaN: float, (prompts,) or
            (prompts, pictures).
        num_resamples: how often prompts are drawn with replacement.
        seed: of the draws.

    Returns:
        name -> float64, (num_resamples,).
    """
    if len(tasks) != len(values) or not len(tasks):
        raise ValueError(f"{len(tasks)} tasks for {len(values)} prompts; one for each is needed")
    by_prompt = np.nanmean(values.reshape(len(values), -1), axis=1).astype(np.float64)
    labels = np.array(tasks)
    rng = np.random.default_rng(seed)
    means: dict[str, np.ndarray] = {}
    total = np.zeros(num_resamples)
    for task in ordered_tasks(tasks):
        mine = by_prompt[labels == task]
        drawn = mine[rng.integers(len(mine), size=(num_resamples, len(mine)))]
        means[task] = drawn.mean(axis=1)
        total += drawn.sum(axis=1)
    overall = np.mean(list(means.values()), axis=0)
    return {"overall": overall, "micro": total / len(labels), **means}


def bounds(resamples: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The central 95 % of resampled scores: `<name>_low` and `<name>_high` for every name."""
    tail = (1 - _LEVEL) / 2
    result = {}
    for name, values in resamples.items():
        low, high = np.quantile(values, (tail, 1 - tail))
        result[f"{name}_low"], result[f"{name}_high"] = float(low), float(high)
    return result
