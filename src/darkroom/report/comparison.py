"""A page that shows several runs side by side: their scores, and what they drew of the same prompts and noise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darkroom.benchmarks.table import ordered_tasks, task_label
from darkroom.evaluate.compare import compare, trained_pictures
from darkroom.evaluate.comparison import comparison_header, comparison_rows
from darkroom.report.inline import jpeg_uri
from darkroom.report.pages import render
from darkroom.store import TarReader, replacing

_MAX_SIDE_PX = 256


def build_comparison(
    runs: Mapping[str, str | Path], out: str | Path, prompts_per_task: int = 4, max_pictures: int = 2
) -> Path:
    """Write the page to `out` and return that path.

    Args:
        runs: name -> the folder of the run's results, with the stages draw and evaluate.
        out: the HTML file; styles and pictures are inside, no script runs, and nothing is loaded.
        prompts_per_task: prompts whose pictures are shown, spread evenly over each task's.
        max_pictures: pictures of a prompt, the first of each run.

    Raises:
        ValueError: as `compare`.
    """
    folders = {name: Path(folder) for name, folder in runs.items()}
    compared = compare({name: folder / "evaluate" for name, folder in folders.items()})
    values = {
        "runs": list(runs),
        "header": comparison_header(list(runs)),
        "rows": comparison_rows(compared),
        "gallery": gallery(folders, prompts_per_task, max_pictures),
    }
    page = render("darkroom.report", "comparison.html", values)
    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8")
    return Path(out)


def gallery(folders: Mapping[str, Path], prompts_per_task: int, max_pictures: int) -> list[dict[str, Any]]:
    """By task, prompts with the pictures of each run, which began from the same noise."""
    tables = {name: trained_pictures(folder / "evaluate") for name, folder in folders.items()}
    first = next(iter(tables.values()))
    sections = []
    for task in ordered_tasks(first["tag"].unique().to_list()):
        numbers = first.filter(tag=task)["prompt_index"].unique().sort().to_list()
        count = min(prompts_per_task, len(numbers))
        chosen = dict.fromkeys(numbers[round(i)] for i in np.linspace(0, len(numbers) - 1, count))
        prompts = [_prompt(tables, folders, number, max_pictures) for number in chosen]
        sections.append({"name": task_label(task), "number": len(numbers), "prompts": prompts})
    return sections


def _prompt(
    tables: Mapping[str, pl.DataFrame], folders: Mapping[str, Path], number: int, max_pictures: int
) -> dict[str, Any]:
    shown, prompt = [], ""
    for name, table in tables.items():
        rows = table.filter(prompt_index=number).sort("picture").head(max_pictures)
        prompt = rows["prompt"][0]
        verdicts = rows["correct"].to_list() if "correct" in rows.columns else [None] * rows.height
        pictures = [
            {"uri": _uri(folders[name] / "draw/pictures", row), "seed": row["seed"], "correct": verdict}
            for row, verdict in zip(rows.iter_rows(named=True), verdicts, strict=True)
        ]
        shown.append({"name": name, "pictures": pictures})
    return {"prompt": prompt, "runs": shown}


def _uri(folder: Path, row: Mapping[str, Any]) -> str:
    with TarReader(folder / row["tar"]) as tar:
        return jpeg_uri(tar.read(row["offset"], row["size"]), _MAX_SIDE_PX)
