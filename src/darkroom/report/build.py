"""One HTML page that shows a run to somebody who was not there.

The page is a single file: styles and pictures are inside, nothing is loaded and no script runs. All text
from the data is escaped by the template; a content security policy stands behind that.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from darkroom.report import data, planned, results, runs, scores
from darkroom.report.pages import render
from darkroom.score.pictures import ScoredPictures
from darkroom.sources.base import Truth
from darkroom.store import replacing

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetInputs:
    """Where what is shown of a dataset lies.

    Attributes:
        dataset: its name.
        funnel: the filter's funnel.json.
        captions: the recaption parts; `tables` and `tars` are the download parts in their order.
        listed: the folder that the dataset's list was written into.
        truth: what the dataset's source knows of its pictures, for marking captions right or wrong.
        rewritten: the rewrite parts, where there are any.
        buckets: the bucket stage's buckets.json.
        scored: its parts with their scores, as the filter judged them.
    """

    dataset: str
    funnel: Path | None = None
    captions: Sequence[Path] = ()
    rewritten: Sequence[Path] = ()
    tables: Sequence[Path] = ()
    tars: Sequence[Path] = ()
    listed: Path | None = None
    truth: Truth | None = None
    buckets: Path | None = None
    scored: ScoredPictures | None = None


@dataclass(frozen=True)
class ReportInputs:
    """Where the report's contents lie. What is None, empty or not there is shown as missing.

    Attributes:
        run, description: its name and one sentence.
        datasets: those that it is trained on, in their order.
        metrics, prompts: the evaluate stage's metrics.json and prompts.parquet.
        pictures: the draw stage's folder of tars.
        history: the training's history.parquet.
        samples: PNG sheets drawn during training; the last number in a name is the step.
        benchmarks: stage -> Snakemake's benchmark files, in the order of the page.
        goodput: where the training's time went, see `train.goodput.Account`.
        speeds: how fast its steps were, by bucket, see `train.speeds`.
        plan: what `darkroom plan` said before, see `report.planned`.
        manifests: stage -> manifest.json, in the order of the page.
        config: the resolved configuration, by section.
    """

    run: str
    datasets: Sequence[DatasetInputs]
    description: str = ""
    metrics: Path | None = None
    prompts: Path | None = None
    pictures: Path | None = None
    history: Path | None = None
    samples: Sequence[Path] = ()
    benchmarks: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    goodput: Path | None = None
    speeds: Path | None = None
    plan: Path | None = None
    manifests: Mapping[str, Path] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


def build_report(
    inputs: ReportInputs, out: str | Path, prompts_per_task: int = 4, num_captions: int = 8
) -> Path:
    """Write the report to `out` and return that path.

    Args:
        inputs: where the contents lie.
        out: the HTML file.
        prompts_per_task: prompts whose pictures are shown, spread evenly over each task's.
        num_captions: pictures whose captions are shown.

    Raises:
        ValueError: a file that is there is not what it should be.
    """
    values = {
        "run": inputs.run,
        "description": inputs.description,
        **_contents(inputs, prompts_per_task, num_captions),
    }
    filters = {"share": _share, "gain": _gain}
    page = render("darkroom.report", "template.html", values, filters)
    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8")
    _LOG.info("report: %s, %.1f MB", out, len(page.encode()) / 1e6)
    return Path(out)


def _contents(inputs: ReportInputs, prompts_per_task: int, num_captions: int) -> dict[str, Any]:
    """The sections of the page; None where the input is missing."""
    metrics, prompts, pictures = _here(inputs.metrics), _here(inputs.prompts), _here(inputs.pictures)
    chain = runs.read_chain(inputs.manifests)
    benchmarks = {stage: _some_here(paths) for stage, paths in inputs.benchmarks.items()}
    return {
        "results": _maybe(results.read_results, metrics),
        "failures": _maybe(results.read_failures, prompts),
        "gallery": results.read_pictures(prompts, pictures, prompts_per_task)
        if prompts and pictures
        else None,
        "datasets": [_of_dataset(of, num_captions) for of in inputs.datasets],
        "training": _maybe(runs.read_history, _here(inputs.history)),
        "watched": _maybe(runs.read_watched, _here(inputs.manifests.get("watch"))),
        "train_counts": next((row["counts"] for row in chain if row["stage"] == "train"), {}),
        "samples": runs.read_samples(_some_here(inputs.samples)),
        "costs": runs.read_costs(benchmarks),
        "goodput": _maybe(runs.read_goodput, _here(inputs.goodput)),
        "speeds": _maybe(runs.read_speeds, _here(inputs.speeds)),
        "planned": _maybe(partial(planned.read_planned, benchmarks=benchmarks), _here(inputs.plan)),
        "chain": chain,
        "config": {name: runs.as_text(value) for name, value in inputs.config.items()},
    }


def _of_dataset(inputs: DatasetInputs, num_captions: int) -> dict[str, Any]:
    captions, tables, tars = (_all_here(p) for p in (inputs.captions, inputs.tables, inputs.tars))
    listed, truth = _here(inputs.listed), inputs.truth
    judge = partial(truth.judge, listed) if truth and listed else None
    told = captions and len(captions) == len(tables) == len(tars)
    funnel = _here(inputs.funnel)
    rewritten = _all_here(inputs.rewritten)
    shown = data.read_captions(captions, tables, tars, judge, num_captions, rewritten) if told else None
    steps = _maybe(data.read_funnel, funnel)
    return {
        "name": inputs.dataset,
        "funnel": data.after_gates(steps, shown["gates"]) if steps and shown and shown["gates"] else steps,
        "scores": scores.read_scores(inputs.scored, data.read_json(funnel))
        if inputs.scored and funnel
        else None,
        "captions": shown,
        "right_means": truth.right_means if truth else "",
        "buckets": _maybe(data.read_buckets, _here(inputs.buckets)),
    }


def _maybe(read: Callable[[Path], Any], path: Path | None) -> Any:
    return None if path is None else read(path)


def _here(path: Path | None) -> Path | None:
    return Path(path) if path is not None and Path(path).exists() else None


def _some_here(paths: Sequence[Path]) -> list[Path]:
    return [Path(p) for p in paths if Path(p).exists()]


def _all_here(paths: Sequence[Path]) -> list[Path]:
    """All paths, or none if one is missing: parts belong together."""
    return [Path(p) for p in paths] if all(Path(p).exists() for p in paths) else []


def _share(value: float | None, digits: int = 0) -> str:
    return "\N{EN DASH}" if value is None else f"{100 * value:.{digits}f} %"


def _gain(value: float) -> str:
    """A difference of shares in percentage points, with a proper minus."""
    return f"{100 * value:+.0f}".replace("-", "\N{MINUS SIGN}")
