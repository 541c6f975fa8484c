"""What the report says of the run itself: training, its cost, and where everything came from."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darkroom.metrics.table import METRICS
from darkroom.report.inline import file_uri
from darkroom.report.plots import bins_chart, loss_chart, steps_chart
from darkroom.store import read_manifest, read_table, sha256_path
from darkroom.train import speeds
from darkroom.train.goodput import LABELS


def read_history(path: Path) -> dict[str, Any]:
    """The loss curves and a few numbers, from the training's history."""
    table = read_table(path).sort("step")
    if table.is_empty():
        raise ValueError(f"{path}: has no steps")
    steps = table["step"].to_numpy()
    names = sorted((c for c in table.columns if c.startswith("loss_bin_")), key=lambda c: int(c[9:]))
    bins = [_floats(table[name].to_numpy()) for name in names]
    losses = _floats(table["loss"].to_numpy())
    validation = _floats(table["validation_loss"].to_numpy()) if "validation_loss" in table.columns else None
    tenth = max(1, len(losses) // 20)
    return {
        "steps": int(steps[-1]),
        "first_loss": float(np.nanmean(losses[:tenth])),
        "last_loss": float(np.nanmean(losses[-tenth:])),
        "validation_loss": None if validation is None else _last(validation),
        "loss_chart": loss_chart(steps, losses, validation),
        "bins_chart": bins_chart(steps, bins) if bins else None,
    }


def read_watched(manifest: Path) -> dict[str, Any]:
    """What is told of the judged steps: a curve of the metric that says which is the best, and a table."""
    body, table = read_manifest(manifest), pl.read_csv(manifest.parent / "steps.csv")
    name, best = body["params"]["watch"]["best"], body["counts"]["best_step"]
    bounds = None
    if f"{name}_low" in table.columns:
        bounds = table[f"{name}_low"].to_numpy(), table[f"{name}_high"].to_numpy()
    shown = [column for column in table.columns if column in METRICS]
    return {
        "best": best,
        "label": METRICS[name].label,
        "chart": steps_chart(table["step"].to_numpy(), table[name].to_numpy(), bounds, best),
        "columns": [(column, METRICS[column].label, METRICS[column].digits) for column in shown],
        "has_loss": "validation_loss" in table.columns,
        "rows": table.to_dicts(),
        "not_reached": body["counts"].get("not_reached", 0),
    }


def read_samples(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """PNG sheets drawn during training, in the order of the steps that their names hold."""
    sheets = []
    for path in paths:
        found = re.findall(r"\d+", path.stem)
        sheets.append({"step": int(found[-1]) if found else None, "uri": file_uri(path)})
    return sorted(sheets, key=lambda sheet: sheet["step"] or 0)


def read_costs(benchmarks: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Time and memory by stage, from Snakemake's benchmark files.

    Time is added up over jobs (they may have run side by side); memory is the largest job's.
    """
    rows: list[dict[str, Any]] = []
    for stage, paths in benchmarks.items():
        jobs = [row for path in paths for row in _benchmark(path)]
        if jobs:
            memory = [_number(job.get("max_rss")) for job in jobs]
            known = [value for value in memory if value is not None]
            rows.append(
                {
                    "stage": stage,
                    "jobs": len(jobs),
                    "seconds": sum(_number(job.get("s")) or 0.0 for job in jobs),
                    "memory_mib": max(known) if known else None,
                }
            )
    longest = max((row["seconds"] for row in rows), default=0.0) or 1.0
    for row in rows:
        row["share"] = row["seconds"] / longest
        row["time"] = clock(row["seconds"])
    return {"rows": rows, "total": clock(sum(row["seconds"] for row in rows))}


def read_goodput(path: Path) -> list[dict[str, Any]]:
    """Where the training's time went, from the file that it leaves beside its log.

    Raises:
        ValueError: it is not what a training writes.
    """
    body = json.loads(path.read_text(encoding="utf-8"))
    if set(body) != set(LABELS) or not all(isinstance(seconds, float) for seconds in body.values()):
        raise ValueError(f"{path}: should hold the seconds of {', '.join(LABELS)}")
    whole = sum(body.values()) or 1.0
    return [
        {"label": label, "time": clock(body[name]), "share": body[name] / whole}
        for name, label in LABELS.items()
    ]


def read_speeds(path: Path) -> list[dict[str, Any]]:
    """How fast the steps of each bucket were, from the file that a training leaves beside its log.

    Raises:
        ValueError: it is not what a training writes.
    """
    found = speeds.read_speeds(path)
    return [
        {
            "bucket": name,
            "steps": of.steps,
            "images_per_second": of.images_per_second,
            "tflops": None if of.flops_per_second is None else of.flops_per_second / 1e12,
            "mfu": found.mfu(of),
        }
        for name, of in found.by_size()
    ]


def read_chain(manifests: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Every stage's manifest: its digest, its files, and whether it names the manifests that lie here now.

    Where there are several datasets, their stages are called `filter/NAME` and so on.
    """
    digests = {name: sha256_path(path) for name, path in manifests.items() if path.exists()}
    rows = []
    for stage, own in digests.items():
        body = read_manifest(manifests[stage])
        dataset = stage.partition("/")[2]
        upstream = []
        for name, digest in body["upstream"].items():
            # Of several datasets, each has its own chain.
            above = digests.get(f"{name}/{dataset}" if dataset else name)
            is_current = None if above is None else above == digest
            upstream.append({"name": name, "digest": digest, "current": is_current})
        rows.append(
            {
                "stage": stage,
                "digest": own,
                "files": len(body["files"]),
                "upstream": upstream,
                "counts": body["counts"],
            }
        )
    return rows


def clock(seconds: float) -> str:
    """`4 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def as_text(value: Any) -> str:
    """Configuration as indented JSON, for reading."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _benchmark(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def _number(text: str | None) -> float | None:
    """A number of a benchmark file; Snakemake writes - or NA for jobs too short to measure."""
    try:
        return float(text or "")
    except ValueError:
        return None


def _last(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)][-1])


def _floats(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)
