"""Gives exports to a tool and says how far what it draws is from what darkroom draws."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environments
import numpy as np
from exports import CLASSES, PROMPT, SEED, Exported, drawn
from rows import OTHER, REFUSED, SAME, Row

from darkroom.formats.lora_files import LORA_FILE

HERE = Path(__file__).parent
TIMEOUT_S = 1800


@dataclass(frozen=True)
class Found:
    """outcome: as in a `Row`. difference: largest, in levels of 255. message: of an error."""

    outcome: str
    difference: float = float("nan")
    message: str = ""


def compared(found: np.ndarray, expected: np.ndarray, base: np.ndarray, tolerance: float) -> Found:
    """What a picture (0 to 1) is beside what it should be, and what the model without its adapters draws."""
    difference = float(np.abs(found - expected).max() * 255)
    # Else a tool that reads nothing of the adapters would pass.
    assert np.abs(expected - base).max() * 255 > max(1, 10 * tolerance)
    return Found(SAME if difference <= tolerance else OTHER, difference)


def run(tool: str, script: str, *arguments: Path, beside: Path) -> None:
    """Run a script of this folder with a tool beside our packages, and without darkroom."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(environments.folder(tool)), "HF_HUB_OFFLINE": "1"}
    environment |= {"HF_MODULES_CACHE": str(beside / "modules"), "XDG_CACHE_HOME": str(beside)}
    done = subprocess.run(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        cwd=beside, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def in_diffusers(
    tool: str, rows: list[Row], models: Callable[[str, str], Exported], folder: Path
) -> dict[tuple[Row, str], Found]:
    """(row, kind) -> what diffusers made of it."""
    cases = {
        (row, kind): models(kind, row.method.replace("merged", "lora")) for row in rows for kind in row.kinds
    }
    jobs = [_job(row, kind, model, folder) for (row, kind), model in cases.items()]
    failed: dict[str, str] = {}
    # diffusers calls the code of every folder by one name, and so runs that of one in a process.
    for own in (False, True):
        mine = [job for job in jobs if (job["cls"] == "DiffusionPipeline") == own]
        (folder / "jobs.json").write_text(json.dumps(mine))
        run(tool, "diffusers_draws.py", folder / "jobs.json", folder / "failed.json", beside=folder)
        failed |= json.loads((folder / "failed.json").read_text())
    found, ours = {}, {}
    for ((row, kind), model), job in zip(cases.items(), jobs, strict=True):
        if job["name"] in failed:
            found[row, kind] = Found(REFUSED, message=failed[job["name"]])
            continue
        if model.tuned not in ours:
            ours[model.tuned] = [drawn(path, model.call) for path in (model.tuned, model.base)]
        found[row, kind] = compared(np.load(job["out"]), *ours[model.tuned], row.tolerance)
    return found


def _job(row: Row, kind: str, model: Exported, folder: Path) -> dict[str, Any]:
    name = f"{row.form}-{row.method}-{kind}"
    form, path, weights = row.form, model.files.get(row.form, model.tuned), ""
    if row.form == "diffusers":
        form = "adapter" if row.method == "lokr" and kind != "mmdit" else "lora"
        weights = LORA_FILE
    if row.form == "lora_kohya":
        form, weights, path = "lora", path.name, path.parent
    return {
        "name": name, "cls": CLASSES[kind], "form": form, "path": str(path), "folder": str(model.base),
        "part": model.part, "prompt": PROMPT, "seed": SEED, "call": model.call, "weights": weights,
        "out": str(folder / f"{name}.npy"),
    }  # fmt: skip
