"""One page of all runs: a table to sort, what each cost, and pictures of the same prompts and noise side by side.

Scores are compared only where they were measured alike: of a metric that runs have measured in several ways, each
way has a column of its own.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from darkroom.differences import dotted
from darkroom.evaluate.compare import judged_by
from darkroom.evaluate.comparison import score_cell
from darkroom.metrics.base import Metric
from darkroom.metrics.table import METRICS
from darkroom.report.comparison import gallery
from darkroom.report.pages import own_script, render
from darkroom.report.runs import clock, read_costs
from darkroom.store import replacing, sha256_json

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class ShownRun:
    """What the page tells of one run.

    Attributes:
        name, description, datasets, model: as the configuration has them; model is the family.
        steps: of its training, or None where it has none here.
        num_parameters: of its network, where known.
        metrics: what its metrics.json holds, or None where the run was not evaluated.
        folder: its results here, with the stages draw and evaluate, or None.
        page: its own report, or None.
        benchmarks: stage -> Snakemake's benchmark files.
        notes: what is missing or not current, a sentence each.
    """

    name: str
    description: str = ""
    datasets: Sequence[str] = ()
    model: str = ""
    steps: int | None = None
    num_parameters: int | None = None
    metrics: Mapping[str, Any] | None = None
    folder: Path | None = None
    page: Path | None = None
    benchmarks: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Column:
    """A score, measured in one way: metric, key among its scores, and what it depends on."""

    metric: Metric
    key: str
    label: str
    way: str


def build_all_runs(
    runs: Sequence[ShownRun], out: str | Path, prompts_per_task: int = 2, max_pictures: int = 2
) -> Path:
    """Write the page to `out` and return that path.

    Args:
        runs: those that are shown, in this order until a reader sorts them.
        out: the HTML file; styles, pictures and the one script are inside, and nothing is loaded.
        prompts_per_task: prompts whose pictures are shown, spread evenly over each task's.
        max_pictures: pictures of a prompt, the first of each run.
    """
    columns, ways = _columns(runs)
    values = {
        "rows": [_row(run, columns, Path(out).parent) for run in runs],
        "columns": columns,
        "ways": ways,
        "galleries": _galleries(runs, prompts_per_task, max_pictures),
        **own_script("darkroom.report", "sort_script.html"),
    }
    page = render("darkroom.report", "all_runs.html", values)
    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8")
    return Path(out)


def _columns(runs: Sequence[ShownRun]) -> tuple[list[_Column], list[dict[str, Any]]]:
    """The columns of scores, and of metrics that were measured in several ways what differs between these."""
    columns, told = [], []
    for name, metric in METRICS.items():
        ways: dict[str, Mapping[str, Any]] = {}
        for run in runs:
            if run.metrics and name in run.metrics["trained"]:
                protocol = judged_by(run.metrics["protocol"], [name])
                ways.setdefault(sha256_json(protocol), protocol)
        flat = [dotted(protocol) for protocol in ways.values()]
        for number, (way, mine) in enumerate(zip(ways, flat, strict=True), start=1):
            sign = str(number).translate(_SUPERSCRIPTS) if len(ways) > 1 else ""
            named = metric.named(ways[way].get(name, {}))
            columns += [_Column(named, key, label + sign, way) for key, label in _keys(named).items()]
            if sign:
                differing = {k: v for k, v in mine.items() if any(other.get(k) != v for other in flat)}
                told.append({"label": named.label + sign, "differs": differing})
    return columns, told


def _keys(metric: Metric) -> dict[str, str]:
    """Key -> label of the scores of a metric that the table shows: by task, the overall one."""
    if metric.summary == "by_task":
        return {"overall": metric.label}
    if metric.is_nested:
        return {column: f"{metric.label}, {label}" for column, label in metric.parts.items()}
    return {metric.name: metric.label}


def _row(run: ShownRun, columns: Sequence[_Column], beside: Path) -> dict[str, Any]:
    costs = read_costs(run.benchmarks)
    seconds = {row["stage"]: row["seconds"] for row in costs["rows"]}
    memory = [row["memory_mib"] for row in costs["rows"] if row["memory_mib"] is not None]
    return {
        "run": run,
        "page": None if run.page is None else _link(run.page, beside),
        "scores": [_score(run.metrics, column) for column in columns],
        "training": _time(seconds.get("train")),
        "all_stages": _time(sum(seconds.values()) if seconds else None),
        "memory": max(memory, default=None),
    }


def _score(metrics: Mapping[str, Any] | None, column: _Column) -> dict[str, Any] | None:
    """A number as text and for sorting, with its interval; None where the run was not judged in this way."""
    name, key = column.metric.name, column.key
    if metrics is None or name not in metrics["trained"]:
        return None
    if sha256_json(judged_by(metrics["protocol"], [name])) != column.way:
        return None
    scores = metrics["trained"][name] if column.metric.is_nested else metrics["trained"]
    if scores.get(key) is None:
        return None
    cell = score_cell(column.metric, key, scores)
    return {"value": cell.value, "sorts": scores[key], "interval": cell.interval}


def _time(seconds: float | None) -> dict[str, Any] | None:
    return None if seconds is None else {"value": clock(seconds), "sorts": seconds, "interval": None}


def _link(page: Path, beside: Path) -> str:
    """The way from the folder of one page to another page."""
    return quote(Path(os.path.relpath(page.resolve(), beside.resolve())).as_posix())


def _galleries(runs: Sequence[ShownRun], prompts_per_task: int, max_pictures: int) -> list[dict[str, Any]]:
    """Of runs that drew the same prompts from the same noise, their pictures; a run that did so alone is named."""
    alike: dict[str, dict[str, Path]] = {}
    for run in runs:
        if run.metrics and run.folder and (run.folder / "evaluate/prompts.parquet").exists():
            way = judged_by(run.metrics["protocol"], [])
            drawn = {key: way.get(key) for key in ("prompts", "pictures_per_prompt", "sampling", "seed")}
            alike.setdefault(sha256_json(drawn), {})[run.name] = run.folder
    return [
        {
            "runs": list(folders),
            "tasks": gallery(folders, prompts_per_task, max_pictures) if len(folders) > 1 else [],
        }
        for folders in alike.values()
    ]
