"""From values to scores: what a metric's `summary` means, and the interval of each score and difference."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from darkroom.benchmarks.table import ordered_tasks, task_label
from darkroom.metrics.base import Metric
from darkroom.metrics.intervals import bootstrap, bounds
from darkroom.metrics.rules import summarise
from darkroom.metrics.table import METRICS


def score(
    model: str, whole: pl.DataFrame, tables: Mapping[str, pl.DataFrame], num_resamples: int, seed: int
) -> dict[str, Any]:
    """A model's scores: of `by_task` a mapping with every task's, of the others a number under their name.

    `<score>_low` and `<score>_high` bound 95 % of a bootstrap over prompts, where there is one.

    Args:
        model: "trained" or "untrained".
        whole: a row for each picture of each model, with the values of the metrics.
        tables: metric -> its own table, in the order of reports.
        num_resamples, seed: of the bootstrap.
    """
    scores: dict[str, Any] = {}
    for name, table in tables.items():
        metric = METRICS[name]
        if metric.summary == "distance":
            scores[name] = float(table.filter(pl.col("model") == model)[metric.column].item())
            continue
        tasks, values = by_prompt(whole, model, metric)
        drawn = bootstrap(tasks, values, num_resamples, seed)
        if metric.summary == "by_task":
            flat = ((task, bool(value)) for task, row in zip(tasks, values, strict=True) for value in row)
            scores[name] = {**summarise(flat), **bounds(drawn)}
        else:
            scores |= {name: float(values.mean()), **bounds({name: drawn["micro"]})}
    return scores


def difference(
    ours: str,
    theirs: str,
    whole: pl.DataFrame,
    tables: Mapping[str, pl.DataFrame],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The scores of `ours` minus those of `theirs`, with the intervals of the paired differences by prompt."""
    first, second = (score(model, whole, tables, num_resamples, seed) for model in (ours, theirs))
    result: dict[str, Any] = {}
    for name in tables:
        metric = METRICS[name]
        if metric.summary == "distance":
            result[name] = first[name] - second[name]
            continue
        tasks, mine = by_prompt(whole, ours, metric)
        drawn = bootstrap(tasks, mine - by_prompt(whole, theirs, metric)[1], num_resamples, seed)
        if metric.summary == "by_task":
            names = [key for key in first[name] if not key.endswith(("_low", "_high"))]
            gaps = {key: first[name][key] - second[name][key] for key in names}
            result[name] = {**gaps, **bounds(drawn)}
        else:
            result |= {name: first[name] - second[name], **bounds({name: drawn["micro"]})}
    return result


def by_prompt(whole: pl.DataFrame, model: str, metric: Metric) -> tuple[list[str], np.ndarray]:
    """The task of each prompt that the metric has values for, and these: float64 (prompts, pictures)."""
    mine = whole.filter((pl.col("model") == model) & pl.col(metric.column).is_not_null())
    mine = mine.sort("prompt_index", "picture")
    tasks = mine.unique("prompt_index", keep="first", maintain_order=True)["tag"].to_list()
    values = mine[metric.column].cast(pl.Float64).to_numpy().reshape(len(tasks), -1)
    return tasks, values


def task_names(metric: Metric, scores: Mapping[str, float]) -> dict[str, str]:
    """Key -> label of a by_task metric's scores: the overall one, then each task's in their benchmark's order."""
    keys = [key for key in scores if not key.endswith(("_low", "_high")) and key not in ("overall", "micro")]
    return {"overall": f"{metric.label}, overall"} | {tag: task_label(tag) for tag in ordered_tasks(keys)}
