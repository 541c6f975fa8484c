"""A small copy of a run, made by the real rules, so that every work of it is measured at two sizes.

Each copy is a folder with links to the project's code (as `darkroom reproduce` makes them), a configuration of its
own and its own results. The jobs go where the run's would go: by the same profile, so on a cluster to its nodes.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from darkroom.config import Project
from darkroom.planning.observations import Observation
from darkroom.planning.observe import observe
from darkroom.publish.listed import CHOICE
from darkroom.publish.reproduce import CALIBRATED, prepare

# A dataset with no more rows than this is taken whole.
_WHOLE_ROWS = 64
# The smaller of the two sizes, as a share of the larger.
_SMALLER = 4
# Real pictures that distances compare with: a share of the rows, as not all are kept.
_ROWS_PER_REFERENCE = 8
# Two checkpoints are kept, so there should be more.
_CHECKPOINTS = 3


@dataclass(frozen=True)
class Size:
    """How much of a run is made: rows of each dataset, steps of the training, prompts of each task."""

    rows: int
    steps: int
    prompts: int

    @property
    def smaller(self) -> "Size":
        """The other size that is measured, so that the start of jobs is told from their rate."""
        return Size(*(max(1, of // _SMALLER) for of in (self.rows, self.steps, self.prompts)))


def calibrate(
    project: Project, rows: dict[str, int], size: Size, arguments: Sequence[str] = ()
) -> list[Observation]:
    """Make a run at two sizes, one after the other, and return what its jobs took.

    Args:
        rows: name -> the rows of each of its datasets.
        arguments: more of Snakemake's.

    Raises:
        ValueError: Snakemake failed; the same command goes on from there.
    """
    found: list[Observation] = []
    for name, of in (("small", size.smaller), ("large", size)):
        folder = CALIBRATED / project.name / name
        prepare(folder)
        write_small(project, rows, of, folder / "config")
        _make(project, folder, arguments)
        found += observe(folder)
    shutil.rmtree(CALIBRATED / project.name)
    return found


def write_small(project: Project, rows: dict[str, int], size: Size, config: Path) -> None:
    """Replace a run and its datasets in a configuration by small ones of the same names."""
    whole = all(number <= _WHOLE_ROWS for number in rows.values())
    for name, dataset in project.datasets.items():
        values = dataset.model_dump(mode="json")
        if not whole:
            values["rows_per_part"] = min(size.rows, dataset.rows_per_part)
        _write(config / "datasets" / f"{name}.yaml", values)
        (config / "retries" / f"{name}.yaml").unlink(missing_ok=True)
    _write(config / "runs" / f"{project.name}.yaml", _small_run(project, size, whole))
    choice = yaml.safe_load((config / CHOICE).read_text(encoding="utf-8"))
    _write(config / CHOICE, {**choice, "run": project.name, **({} if whole else {"first_parts": 1})})


def _small_run(project: Project, size: Size, whole: bool) -> dict[str, Any]:
    values: dict[str, Any] = project.run.model_dump(mode="json")
    train, draw, run = values["train"], values["draw"], project.run
    steps = min(size.steps, run.train.num_steps)
    if run.watch is not None:
        # Two legs at least.
        steps = max(steps, 2)
        values["watch"] |= {"every_steps": steps // 2, "patience": None}
    train |= {
        "num_steps": steps,
        "num_warmup_steps": 0,
        "checkpoint_every_steps": max(1, min(steps // _CHECKPOINTS, run.train.checkpoint_every_steps)),
        "sample_every_steps": 0,
    }
    for key in ("initial_run", "carry_optimizer", "num_decay_steps", "skip_steps"):
        train.pop(key, None)
    if run.train.validation is not None:
        train["validation"]["every_steps"] = min(steps, run.train.validation.every_steps)
    draw["max_prompts"] = min(size.prompts, run.draw.max_prompts or size.prompts)
    for metric in values["measure"].values():
        if not whole and isinstance(metric, dict) and "num_reference_pictures" in metric:
            most = max(2, size.rows // _ROWS_PER_REFERENCE)
            metric["num_reference_pictures"] = min(most, metric["num_reference_pictures"])
    # Nobody follows it, and its curves belong to no run.
    values.pop("trackers", None)
    return values


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _make(project: Project, folder: Path, arguments: Sequence[str]) -> None:
    environment = {**os.environ, "SNAKEMAKE_PROFILE": os.environ.get("SNAKEMAKE_PROFILE", "profiles/local")}
    command = [sys.executable, "-m", "snakemake", *arguments, "--config", f"run={project.name}"]
    done = subprocess.run(command, cwd=folder, env=environment)
    if done.returncode:
        raise ValueError(
            f"snakemake ended with {done.returncode} in {folder}; the same command goes on from there"
        )
