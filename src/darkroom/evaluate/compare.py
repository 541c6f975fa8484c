"""Two runs compared: the differences of their scores, paired prompt by prompt, if they were measured alike."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.evaluate.scores import difference, score, task_names
from darkroom.metrics.base import Metric
from darkroom.metrics.table import METRICS
from darkroom.store import read_table

NUM_RESAMPLES = 1000
_SEED = 0


def compare(first: str | Path, second: str | Path, num_resamples: int = NUM_RESAMPLES) -> dict[str, Any]:
    """The scores of two trained models and the second's minus the first's, with intervals over prompts.

    Only metrics that both runs have measured are compared.

    Args:
        first, second: the folders of two runs' evaluate stage.
        num_resamples: of the bootstrap.

    Returns:
        `first`, `second` and `difference`, each as metrics.json has `trained`.

    Raises:
        ValueError: a run is not evaluated, they share no metric, or a score depends on something that differs
            between them: names the key.
    """
    bodies = [_read(Path(folder)) for folder in (first, second)]
    names = [name for name in METRICS if all(name in body["trained"] for body in bodies)]
    if not names:
        raise ValueError(f"{first} and {second} have measured no metric in common")
    mine, theirs = (_protocol(body["protocol"], names) for body in bodies)
    for key, one, other in _unequal(mine, theirs):
        raise ValueError(
            f"protocol.{key} is {one!r} in {first} and {other!r} in {second}; scores of unequal protocols do"
            " not compare"
        )
    whole = pl.concat(
        read_table(Path(folder) / "prompts.parquet")
        .filter(pl.col("model") == "trained")
        .with_columns(model=pl.lit(name))
        for name, folder in (("first", first), ("second", second))
    )
    tables = {name: _distances(METRICS[name], bodies) for name in names}
    found = {model: score(model, whole, tables, num_resamples, _SEED) for model in ("first", "second")}
    gaps = difference("second", "first", whole, tables, num_resamples, _SEED)
    return {**found, "difference": gaps}


def comparison_markdown(compared: Mapping[str, Any], first: str, second: str) -> str:
    """What `compare` found as a table, with 95 % intervals of the differences where there are any."""
    lines = [f"| | {first} | {second} | difference |", "|---|---|---|---|"]
    parts = [compared[part] for part in ("first", "second", "difference")]
    for name, metric in METRICS.items():
        if name in compared["first"] and metric.summary == "by_task":
            scores = [part[name] for part in parts]
            labels = task_names(metric, scores[0])
            lines += [_row(label, metric, key, scores) for key, label in labels.items()]
        elif name in compared["first"]:
            lines.append(_row(metric.label, metric, name, parts))
    return "\n".join(lines) + "\n"


def _row(label: str, metric: Metric, key: str, scores: Sequence[Mapping[str, float]]) -> str:
    def text(value: float, sign: str = "") -> str:
        return f"{value:{sign}.{metric.digits}f}"

    first, second, gap = scores
    interval = ""
    if f"{key}_low" in gap:
        interval = f" ({text(gap[f'{key}_low'], '+')} to {text(gap[f'{key}_high'], '+')})"
    return f"| {label} | {text(first[key])} | {text(second[key])} | {text(gap[key], '+')}{interval} |"


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    if not path.exists():
        raise ValueError(f"{path}: missing; snakemake evaluate makes it")
    body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return body


def _protocol(protocol: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """What the scores of these metrics depend on; how many resamples an interval took is no part of it."""
    return {k: v for k, v in protocol.items() if k in names or (k not in METRICS and k != "intervals")}


def _unequal(mine: Any, theirs: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, mine, theirs) of every value that differs."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for name in sorted({*mine, *theirs}):
            yield from _unequal(mine.get(name), theirs.get(name), f"{key}.{name}".lstrip("."))
    elif mine != theirs:
        yield key, mine, theirs


def _distances(metric: Metric, bodies: list[dict[str, Any]]) -> pl.DataFrame:
    """A distance's table: one number a model. Of other metrics the values stand with the pictures."""
    if metric.summary != "distance":
        return pl.DataFrame()
    values = [body["trained"][metric.name] for body in bodies]
    return pl.DataFrame({"model": ["first", "second"], metric.column: values})
