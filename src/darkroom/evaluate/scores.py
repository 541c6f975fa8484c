"""From values to scores: what a metric's `summary` means, and the interval of each score and difference."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from darkroom.benchmarks.table import ordered_tasks, task_label
from darkroom.metrics.base import Metric
from darkroom.metrics.intervals import bootstrap, bounds
from darkroom.metrics.rules import summarise
from darkroom.metrics.table import METRICS

_PLACE = ("prompt_index", "picture")


def score(
    model: str, whole: pl.DataFrame, tables: Mapping[str, pl.DataFrame], num_resamples: int, seed: int
) -> dict[str, Any]:
    """A model's scores: of `by_task` a mapping with every task's, of `parts` one with every part's, of the others
    a number under their name.

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
        if metric.summary == "parts":
            scores[name] = _parts(metric, whole, partial(by_prompt, whole, model), num_resamples, seed)
            continue
        tasks, values = by_prompt(whole, model, metric.column)
        drawn = bootstrap(tasks, values, num_resamples, seed)
        if metric.summary == "by_task":
            rows = zip(tasks, values, strict=True)
            flat = ((task, bool(value)) for task, row in rows for value in row if not np.isnan(value))
            scores[name] = {**summarise(flat), **bounds(drawn)}
        else:
            scores |= {name: _mean(values), **bounds({name: drawn["micro"]})}
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
        if metric.summary == "parts":
            result[name] = _parts(metric, whole, partial(_paired, whole, ours, theirs), num_resamples, seed)
            continue
        drawn = bootstrap(*_paired(whole, ours, theirs, metric.column), num_resamples, seed)
        if metric.summary == "by_task":
            names = [key for key in first[name] if not key.endswith(("_low", "_high"))]
            gaps = {key: first[name][key] - second[name][key] for key in names}
            result[name] = {**gaps, **bounds(drawn)}
        else:
            result |= {name: first[name] - second[name], **bounds({name: drawn["micro"]})}
    return result


def _parts(
    metric: Metric,
    whole: pl.DataFrame,
    values_of: Callable[[str], tuple[list[str], np.ndarray]],
    num_resamples: int,
    seed: int,
) -> dict[str, float]:
    """The mean and the interval of each of a metric's columns that has values."""
    found: dict[str, float] = {}
    for column in metric.scored(whole.columns):
        tasks, values = values_of(column)
        if tasks:
            drawn = bootstrap(tasks, values, num_resamples, seed)
            found |= {column: _mean(values), **bounds({column: drawn["micro"]})}
    return found


def _paired(whole: pl.DataFrame, ours: str, theirs: str, column: str) -> tuple[list[str], np.ndarray]:
    """The differences of two models, see `by_prompt`: picture by picture, of those that both have a value for."""
    value = pl.col(column).cast(pl.Float64)
    other = whole.filter(pl.col("model") == theirs).select(*_PLACE, value.alias("_other"))
    mine = whole.filter(pl.col("model") == ours).join(other, on=_PLACE, how="inner")
    gaps = mine.with_columns(value - pl.col("_other"))
    return by_prompt(gaps, ours, column)


def by_prompt(whole: pl.DataFrame, model: str, column: str) -> tuple[list[str], np.ndarray]:
    """The task of each prompt that a metric's column has values for, and these: float64 (prompts, pictures); NaN
    for single pictures without one."""
    mine = whole.filter(pl.col("model") == model).sort(*_PLACE)
    mine = mine.filter(pl.col(column).is_not_null().any().over("prompt_index"))
    tasks = mine.unique("prompt_index", keep="first", maintain_order=True)["tag"].to_list()
    values = mine[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
    values = values.reshape(len(tasks), len(values) // max(len(tasks), 1))
    return tasks, values


def _mean(values: np.ndarray) -> float:
    """Of all prompts, each the mean of its pictures."""
    return float(np.nanmean(values, axis=1).mean())


def score_names(metric: Metric, scores: Mapping[str, float]) -> dict[str, str]:
    """Key -> label of a nested metric's scores: of parts, each; by task, the overall one, then each task's in
    their benchmark's order."""
    keys = [key for key in scores if not key.endswith(("_low", "_high"))]
    if metric.summary == "parts":
        return {column: f"{metric.label}, {label}" for column, label in metric.scored(keys).items()}
    keys = [key for key in keys if key not in ("overall", "micro")]
    return {"overall": f"{metric.label}, overall"} | {tag: task_label(tag) for tag in ordered_tasks(keys)}
