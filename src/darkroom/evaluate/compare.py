"""Runs compared: the differences of their scores, paired prompt by prompt, if they were measured alike."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.evaluate.scores import difference, score
from darkroom.metrics.base import Metric
from darkroom.metrics.table import METRICS
from darkroom.store import read_table

NUM_RESAMPLES = 1000
_SEED = 0


def compare(runs: Mapping[str, str | Path], num_resamples: int = NUM_RESAMPLES) -> dict[str, dict[str, Any]]:
    """The scores of several trained models and each one's minus the first's, with intervals over prompts.

    Only metrics that all runs have measured are compared.

    Args:
        runs: name -> the folder of its evaluate stage, of two or more.
        num_resamples: of the bootstrap.

    Returns:
        `scores`: name -> what metrics.json has as `trained`; `differences`: the same of every name but the first.

    Raises:
        ValueError: a run is not evaluated, they share no metric, or a score depends on something that differs
            between them: names the key.
    """
    bodies = {name: _read(Path(folder)) for name, folder in runs.items()}
    names = [name for name in METRICS if all(name in body["trained"] for body in bodies.values())]
    if not names:
        raise ValueError(f"{' and '.join(map(str, runs.values()))} have measured no metric in common")
    first, *others = runs
    for other in others:
        mine, theirs = (judged_by(bodies[run]["protocol"], names) for run in (first, other))
        for key, one, another in _unequal(mine, theirs):
            raise ValueError(
                f"protocol.{key} is {one!r} in {runs[first]} and {another!r} in {runs[other]}; scores of unequal"
                " protocols do not compare"
            )
    whole = pl.concat(
        trained_pictures(folder).with_columns(model=pl.lit(name)) for name, folder in runs.items()
    )
    tables = {name: _distances(METRICS[name], bodies) for name in names}
    return {
        "scores": {run: score(run, whole, tables, num_resamples, _SEED) for run in runs},
        "differences": {run: difference(run, first, whole, tables, num_resamples, _SEED) for run in others},
    }


def trained_pictures(folder: str | Path) -> pl.DataFrame:
    """The rows of a run's prompts.parquet that are of its trained model, from the folder of its evaluate stage."""
    return read_table(Path(folder) / "prompts.parquet").filter(pl.col("model") == "trained")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    if not path.exists():
        raise ValueError(f"{path}: missing; snakemake evaluate makes it")
    body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return body


def judged_by(protocol: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Of a metrics.json's protocol, what the scores of these metrics depend on.

    How many resamples an interval took is no part of it.
    """
    return {k: v for k, v in protocol.items() if k in names or (k not in METRICS and k != "intervals")}


def _unequal(mine: Any, theirs: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, mine, theirs) of every value that differs."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for name in sorted({*mine, *theirs}):
            yield from _unequal(mine.get(name), theirs.get(name), f"{key}.{name}".lstrip("."))
    elif mine != theirs:
        yield key, mine, theirs


def _distances(metric: Metric, bodies: Mapping[str, dict[str, Any]]) -> pl.DataFrame:
    """A distance's table: one number a model. Of other metrics the values stand with the pictures."""
    if metric.summary != "distance":
        return pl.DataFrame()
    values = [body["trained"][metric.name] for body in bodies.values()]
    return pl.DataFrame({"model": list(bodies), metric.column: values})
