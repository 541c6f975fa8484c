"""`darkroom reproduce RUN`: make a published run again, apart from its results, and compare it metric by metric.

The run is made in a folder of its own, which has links to the project's code and data, and its own results and
configuration; there nothing is published, so nothing is recorded. A second call goes on where the first one ended.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from darkroom.config import Project
from darkroom.evaluate.agreement import Agreement, agreement_lines, agreements
from darkroom.publish.bundle import stages_once
from darkroom.publish.dvclock import read_lock
from darkroom.publish.listed import CHOICE
from darkroom.publish.stages import stage_name
from darkroom.publish.tracked import FOLDER, tracked_path
from darkroom.stages import manifest_path
from darkroom.store import read_manifest
from darkroom.store.found import digests

SCRATCH = Path("reproduced")
# Of `darkroom plan`, which makes small copies of runs the same way.
CALIBRATED = Path("calibrated")
# Of the project: what a run makes, and what is its own in the folder.
_NOT_LINKED = {
    "results", "checkpoints", "logs", "config", "dvc.yaml", "dvc.lock", "rates.json",
    *map(str, (FOLDER, SCRATCH, CALIBRATED)),
}  # fmt: skip

Word = Literal["the same bytes", "within the published intervals", "different", "not judged"]


@dataclass(frozen=True)
class Reproduced:
    """One metric of a run that was made again.

    Attributes:
        metric: its name.
        verdict: "not judged" where the published score has no interval and the bytes differ.
        scores: its scores, here and as published.
    """

    metric: str
    verdict: Word
    scores: list[Agreement]


def prepare(folder: Path) -> None:
    """Make a folder in which the project's runs can be made apart from its results, or bring it up to date.

    Raises:
        ValueError: the folder holds something else.
    """
    project = Path.cwd()
    if folder.exists() and any(folder.iterdir()) and not (folder / "Snakefile").is_symlink():
        raise ValueError(f"{folder}: is no folder that darkroom made; name another with --folder")
    if project.is_relative_to(folder.resolve()):
        raise ValueError(f"{folder}: holds the project itself; name another with --folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(project.iterdir()):
        if not path.name.startswith(".") and path.name not in _NOT_LINKED and path != folder.resolve():
            link = folder / path.name
            if link.is_symlink():
                link.unlink()
            link.symlink_to(path)
    shutil.rmtree(folder / "config", ignore_errors=True)
    shutil.copytree("config", folder / "config")
    choice = folder / "config" / CHOICE
    values = yaml.safe_load(choice.read_text(encoding="utf-8"))
    choice.write_text(yaml.safe_dump({**values, "published": []}), encoding="utf-8")


def make_again(project: Project, folder: Path, arguments: Sequence[str] = ()) -> None:
    """Make the run in the folder, as far as its metrics; `arguments` are more of Snakemake's.

    Raises:
        ValueError: Snakemake failed.
    """
    environment = {**os.environ, "SNAKEMAKE_PROFILE": os.environ.get("SNAKEMAKE_PROFILE", "profiles/local")}
    command = [sys.executable, "-m", "snakemake", "evaluate", *arguments, "--config", f"run={project.name}"]
    done = subprocess.run(command, cwd=folder, env=environment)
    if done.returncode:
        raise ValueError(
            f"snakemake ended with {done.returncode} in {folder}; the same command goes on from there"
        )


def compare_again(project: Project, folder: Path) -> list[Reproduced]:
    """Every metric of the run in the folder against the published one.

    Raises:
        ValueError: the run was not published, or the two were measured by unlike protocols.
    """
    path = published_metrics(project)
    here = json.loads((folder / manifest_path(project, "evaluate")).with_name("metrics.json").read_bytes())
    found = agreements(here, json.loads(path.read_bytes()))
    same = _same_metrics(project, folder)
    by_metric: dict[str, list[Agreement]] = {}
    for row in found:
        by_metric.setdefault(row.name.split(".")[1], []).append(row)
    return [Reproduced(name, _word(name in same, rows), rows) for name, rows in by_metric.items()]


def published_metrics(project: Project) -> Path:
    """Where the published metrics of a run lie.

    Raises:
        ValueError: it was not published in this clone.
    """
    path = tracked_path(stage_name(project, "evaluate"), "metrics.json")
    if not path.is_file():
        raise ValueError(f"{path}: missing; {project.name} was not published in this clone")
    return path


def first_difference(project: Project, folder: Path) -> str:
    """DVC's name of the first stage whose manifest in the folder is not what dvc.lock holds; "" if all are."""
    locked = read_lock()
    for phase, stage in stages_once(project):
        name, path = stage_name(phase, stage), manifest_path(phase, stage)
        if stage != "report" and name in locked and str(path) in locked[name].outs:
            here = folder / path
            if not here.is_file() or digests(here, with_md5=True).md5 != locked[name].outs[str(path)].md5:
                return name
    return ""


def reproduced_lines(found: Sequence[Reproduced]) -> list[str]:
    """A line a metric, and below it the scores that are not the same, for a terminal."""
    width = max((len(row.metric) for row in found), default=0)
    lines = []
    for row in found:
        lines.append(f"{row.metric:<{width}}  {row.verdict}")
        if row.verdict != "the same bytes":
            lines += [f"    {line}" for line in agreement_lines(row.scores)]
    return lines


def closing_line(run: str, found: Sequence[Reproduced]) -> str:
    """The verdict on the whole run."""
    words = {row.verdict: [r.metric for r in found if r.verdict == row.verdict] for row in found}
    if "different" in words:
        return f"{run}: different in {', '.join(words['different'])}"
    if words.keys() == {"the same bytes"}:
        return f"{run}: the same bytes"
    silent = f"; {', '.join(words['not judged'])} were published without" if "not judged" in words else ""
    return f"{run}: within the published intervals{silent}"


def _same_metrics(project: Project, folder: Path) -> set[str]:
    """The metrics whose table in the folder is the published one, to the byte."""
    here = read_manifest(folder / manifest_path(project, "measure"))["files"]
    published: Mapping[str, Any] = {}
    copy = tracked_path(stage_name(project, "measure"), "manifest.json")
    if copy.is_file():
        published = read_manifest(copy)["files"]
    names = [name.removesuffix(".parquet") for name in here if name.endswith(".parquet")]
    return {name for name in names if here[f"{name}.parquet"] == published.get(f"{name}.parquet")}


def _word(is_same: bool, scores: Sequence[Agreement]) -> Word:
    if is_same and all(row.here == row.published for row in scores):
        return "the same bytes"
    judged = [row.agrees for row in scores if row.agrees is not None]
    if not judged:
        return "not judged"
    return "within the published intervals" if all(judged) else "different"
