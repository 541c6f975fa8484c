"""What the report says of the evaluation: scores with intervals, and pictures side by side."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from darkroom.evaluate.geneval import ordered_tasks
from darkroom.report.inline import png_uri
from darkroom.store import read_table

TASK_NAMES = {
    "overall": "GenEval, overall",
    "single_object": "One object",
    "two_object": "Two objects",
    "counting": "Counting",
    "colors": "Colours",
    "position": "Position",
    "color_attr": "Colour binding",
}
_DISTANCES = (
    ("clip_score", "CLIPScore", "higher is better", 2),
    ("frechet_clip_distance", "Frechet distance", "lower is better", 4),
    ("kernel_clip_distance", "Kernel distance", "lower is better", 5),
)


def read_results(path: Path) -> dict[str, Any]:
    """Rows of the result table and the protocol, from metrics.json."""
    metrics = json.loads(path.read_text(encoding="utf-8"))
    trained = metrics["trained"]["geneval"]
    tasks = ["overall", *ordered_tasks(k for k in trained if k in TASK_NAMES and k != "overall")]
    return {
        "tasks": [_task_row(metrics, name) for name in tasks],
        "distances": [
            _distance_row(metrics, *entry) for entry in _DISTANCES if entry[0] in metrics["trained"]
        ],
        "has_untrained": "untrained" in metrics,
        "overall": trained["overall"],
        "untrained_overall": metrics.get("untrained", {}).get("geneval", {}).get("overall"),
        "protocol": metrics.get("protocol", {}),
    }


def read_pictures(path: Path, folder: Path, prompts_per_task: int) -> list[dict[str, Any]]:
    """For some prompts of every task, each model's pictures with their verdicts.

    The prompts are spread evenly over the task's, so nobody picked them.
    """
    table = read_table(path)
    sections = []
    for task in ordered_tasks(table["tag"]):
        mine = table.filter(pl.col("tag") == task)
        numbers = mine["prompt_index"].unique().sort().to_list()
        count = min(prompts_per_task, len(numbers))
        chosen = [numbers[round(i)] for i in np.linspace(0, len(numbers) - 1, count)]
        prompts = [_prompt(mine.filter(pl.col("prompt_index") == n), folder) for n in dict.fromkeys(chosen)]
        sections.append(
            {
                "name": TASK_NAMES.get(task, task),
                "shown": len(prompts),
                "number": len(numbers),
                "prompts": prompts,
            }
        )
    return sections


def read_failures(path: Path) -> list[dict[str, Any]]:
    """Every prompt with the trained model's share of right pictures and the reasons of the wrong ones."""
    table = read_table(path).filter(pl.col("model") == "trained")
    rows = []
    for (_, tag, prompt), pictures in table.group_by(["prompt_index", "tag", "prompt"], maintain_order=True):
        reasons = [r for r in pictures["reason"].to_list() if r]
        counted = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
        rows.append(
            {
                "task": TASK_NAMES.get(str(tag), str(tag)),
                "prompt": prompt,
                "right": int(pictures["correct"].sum()),
                "number": pictures.height,
                "reasons": sorted(counted.items(), key=lambda item: -item[1]),
            }
        )
    return rows


def _task_row(metrics: dict[str, Any], name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": TASK_NAMES[name], "key": name}
    for model in ("trained", "untrained", "difference"):
        scores = metrics.get(model, {}).get("geneval", {})
        if name in scores:
            row[model] = {
                "value": scores[name],
                "low": scores.get(f"{name}_low", scores[name]),
                "high": scores.get(f"{name}_high", scores[name]),
            }
    return row


def _distance_row(metrics: dict[str, Any], key: str, name: str, sense: str, digits: int) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "sense": sense}
    row["definition"] = metrics.get("protocol", {}).get(key, "")
    for model in ("trained", "untrained", "difference"):
        scores = metrics.get(model, {})
        if key in scores:
            bounds = [scores[f"{key}_{end}"] for end in ("low", "high") if f"{key}_{end}" in scores]
            sign = "+" if model == "difference" else ""
            row[model] = {
                "value": _signed(scores[key], sign, digits),
                "interval": " to ".join(_signed(bound, sign, digits) for bound in bounds),
            }
    return row


def _signed(value: float, sign: str, digits: int) -> str:
    return f"{value:{sign}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _prompt(pictures: pl.DataFrame, folder: Path) -> dict[str, Any]:
    models = []
    for model in ("trained", "untrained"):
        rows = pictures.filter(pl.col("model") == model).sort("picture")
        if rows.height:
            shown = [_shown(row, folder) for row in rows.iter_rows(named=True)]
            models.append({"name": model, "pictures": shown, "right": int(rows["correct"].sum())})
    return {"prompt": pictures["prompt"][0], "models": models}


def _shown(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    with Image.open(folder / row["path"]) as picture:
        uri = png_uri(np.asarray(picture.convert("RGB")))
        size = picture.size
    return {
        "uri": uri,
        "width": size[0],
        "height": size[1],
        "correct": row["correct"],
        "reason": row["reason"],
    }
