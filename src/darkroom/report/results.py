"""What the report says of the evaluation: scores with intervals, and pictures side by side.

Which scores there are, what they are called and how they are written follows from the table of metrics.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from darkroom.benchmarks.table import ordered_tasks, task_label
from darkroom.evaluate.scores import score_names
from darkroom.metrics.base import Metric
from darkroom.metrics.table import METRICS
from darkroom.report.inline import png_uri
from darkroom.store import TarReader, read_table

MODELS = ("trained", "untrained")
_BOUNDS = ("_low", "_high")


def measured(metrics: dict[str, Any]) -> list[Metric]:
    """The metrics that a metrics.json holds, in the order of reports."""
    protocol = metrics.get("protocol", {})
    return [
        metric.named(protocol.get(name, {})) for name, metric in METRICS.items() if name in metrics["trained"]
    ]


def read_results(path: Path) -> dict[str, Any]:
    """Rows of the result tables and the protocol, from metrics.json."""
    metrics = json.loads(path.read_text(encoding="utf-8"))
    found = measured(metrics)
    return {
        "by_task": [_task_table(metrics, metric) for metric in found if metric.summary == "by_task"],
        "numbers": [row for metric in found for row in _number_rows(metrics, metric)],
        "has_untrained": "untrained" in metrics,
        "headline": _headline(metrics, found[0]) if found else None,
        "silent": list(metrics.get("not_measured", {}).values()),
        "protocol": metrics.get("protocol", {}),
    }


def read_pictures(path: Path, folder: Path, prompts_per_task: int) -> list[dict[str, Any]]:
    """For some prompts of every task, each model's pictures, with their verdicts where there are any.

    The prompts are spread evenly over the task's, so nobody picked them.
    """
    table = read_table(path)
    judged = _judged(table)
    if judged is None:
        table = table.with_columns(correct=pl.lit(None, pl.Boolean), reason=pl.lit(""))
    sections = []
    for task in ordered_tasks(table["tag"]):
        mine = table.filter(pl.col("tag") == task)
        numbers = mine["prompt_index"].unique().sort().to_list()
        count = min(prompts_per_task, len(numbers))
        chosen = [numbers[round(i)] for i in np.linspace(0, len(numbers) - 1, count)]
        prompts = [_prompt(mine.filter(pl.col("prompt_index") == n), folder) for n in dict.fromkeys(chosen)]
        sections.append(
            {"name": task_label(task), "shown": len(prompts), "number": len(numbers), "prompts": prompts}
        )
    return sections


def read_failures(path: Path) -> list[dict[str, Any]]:
    """Every judged prompt with the trained model's share of right pictures and the reasons of the wrong ones."""
    table = read_table(path).filter(pl.col("model") == "trained")
    if _judged(table) is None:
        return []
    table, rows = table.drop_nulls("correct"), []
    for (_, tag, prompt), pictures in table.group_by(["prompt_index", "tag", "prompt"], maintain_order=True):
        reasons = [r for r in pictures["reason"].to_list() if r]
        counted = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
        rows.append(
            {
                "task": task_label(str(tag)),
                "prompt": prompt,
                "right": int(pictures["correct"].sum()),
                "number": pictures.height,
                "reasons": sorted(counted.items(), key=lambda item: -item[1]),
            }
        )
    return rows


def _judged(table: pl.DataFrame) -> str | None:
    """The column of verdicts, if pictures were judged."""
    return "correct" if {"correct", "reason"} <= set(table.columns) else None


def _headline(metrics: dict[str, Any], metric: Metric) -> dict[str, Any]:
    """The first metric's score, before and after training."""

    def text(model: str) -> str | None:
        scores = metrics.get(model, {}).get(metric.name)
        if scores is None:
            return None
        if metric.summary == "by_task":
            return f"{100 * scores['overall']:.0f} %"
        return _signed(scores[metric.column] if metric.is_nested else scores, "", metric)

    name = f"{metric.label} overall" if metric.summary == "by_task" else metric.label
    name = f"{metric.label}, {metric.parts[metric.column]}" if metric.parts else name
    return {"name": name, "trained": text("trained"), "untrained": text("untrained")}


def _task_table(metrics: dict[str, Any], metric: Metric) -> dict[str, Any]:
    names = score_names(metric, metrics["trained"][metric.name])
    return {"label": metric.label, "rows": [_task_row(metrics, metric, *item) for item in names.items()]}


def _task_row(metrics: dict[str, Any], metric: Metric, key: str, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "key": key}
    for model in (*MODELS, "difference"):
        scores = metrics.get(model, {}).get(metric.name, {})
        if key in scores:
            row[model] = {
                "value": scores[key],
                "low": scores.get(f"{key}_low", scores[key]),
                "high": scores.get(f"{key}_high", scores[key]),
            }
    return row


def _number_rows(metrics: dict[str, Any], metric: Metric) -> list[dict[str, Any]]:
    if metric.summary == "by_task":
        return []
    if not metric.is_nested:
        scores = {model: metrics.get(model, {}) for model in (*MODELS, "difference")}
        return [_number_row(metrics, metric, metric.name, metric.label, scores)]
    scores = {model: metrics.get(model, {}).get(metric.name, {}) for model in (*MODELS, "difference")}
    names = score_names(metric, scores[MODELS[0]])
    return [_number_row(metrics, metric, key, label, scores) for key, label in names.items()]


def _number_row(
    metrics: dict[str, Any], metric: Metric, key: str, label: str, by_model: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": label, "sense": f"{metric.direction} is better"}
    row["definition"] = metrics.get("protocol", {}).get(metric.name, {}).get("definition", "")
    for model, scores in by_model.items():
        if key in scores:
            bounds = [scores[key + end] for end in _BOUNDS if key + end in scores]
            sign = "+" if model == "difference" else ""
            row[model] = {
                "value": _signed(scores[key], sign, metric),
                "interval": " to ".join(_signed(bound, sign, metric) for bound in bounds),
            }
    return row


def _signed(value: float, sign: str, metric: Metric) -> str:
    return f"{value:{sign}.{metric.digits}f}".replace("-", "\N{MINUS SIGN}")


def _prompt(pictures: pl.DataFrame, folder: Path) -> dict[str, Any]:
    models = []
    for model in MODELS:
        rows = pictures.filter(pl.col("model") == model).sort("picture")
        if rows.height:
            shown = [_shown(row, folder) for row in rows.iter_rows(named=True)]
            right = None if rows["correct"].null_count() else int(rows["correct"].sum())
            models.append({"name": model, "pictures": shown, "right": right})
    return {"prompt": pictures["prompt"][0], "models": models}


def _shown(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    with TarReader(folder / row["tar"]) as tar:
        content = tar.read(row["offset"], row["size"])
    with Image.open(io.BytesIO(content)) as picture:
        uri, size = png_uri(np.asarray(picture.convert("RGB"))), picture.size
    return {
        "uri": uri,
        "width": size[0],
        "height": size[1],
        "correct": row["correct"],
        "reason": row["reason"] or "",
    }
