"""What there is of every run of a project, here or as published."""

import json
from pathlib import Path
from typing import Any

from darkroom.config import ConfigError, Project, load_project
from darkroom.config.names import nearest
from darkroom.publish import stage_name, tracked_path
from darkroom.report.all_runs import ShownRun
from darkroom.stages import STAGES, folder, manifest_path, members, problems
from darkroom.store import read_manifest

_LOGS = Path("logs")


def run_names(root: Path = Path()) -> list[str]:
    """The names of all runs of a project, sorted."""
    return sorted(path.stem for path in (root / "config/runs").glob("*.yaml"))


def shown_run(name: str) -> ShownRun:
    """What there is of one run; one whose configuration is wrong says so among its notes.

    Raises:
        ConfigError: there is no such run.
    """
    if name not in (known := run_names()):
        raise ConfigError(f"there is no run {name!r} in config/runs{nearest(name, known)}")
    try:
        project = load_project(name)
    except ConfigError as error:
        return ShownRun(name, notes=[str(error)])
    metrics, origin = _found(project, "evaluate", "metrics.json")
    counts = _train_counts(project)
    here = folder(project, "evaluate").parent
    page = folder(project, "report") / "report.html"
    return ShownRun(
        name=name,
        description=project.run.description,
        datasets=[member.dataset_name for member in project.members],
        model=project.run.model.family,
        steps=counts.get("steps"),
        num_parameters=counts.get("num_parameters"),
        metrics=None if metrics is None else json.loads(metrics.read_text(encoding="utf-8")),
        folder=here if here.is_dir() else None,
        page=page if page.exists() else None,
        benchmarks=_benchmarks(project),
        notes=_notes(project, metrics, origin),
    )


def _found(project: Project, stage: str, file: str) -> tuple[Path | None, str]:
    """A stage's file here, or as it was published; and which of them it is."""
    here = folder(project, stage) / file
    published = tracked_path(stage_name(project, stage), file)
    for path, origin in ((here, "here"), (published, "published")):
        if path.exists():
            return path, origin
    return None, ""


def _train_counts(project: Project) -> dict[str, Any]:
    path, _ = _found(project, "train", "manifest.json")
    counts: dict[str, Any] = read_manifest(path)["counts"] if path is not None else {}
    return counts


def _benchmarks(project: Project) -> dict[str, list[Path]]:
    """Stage -> its jobs' benchmark files."""
    found = {}
    for stage in STAGES:
        # results/runs/NAME/train has its logs in logs/runs/NAME/train.
        folders = [_LOGS / folder(of, stage).relative_to("results") for of in members(project, stage)]
        files = [file for path in folders for file in sorted(path.glob("*.tsv"))]
        if files:
            found[stage] = files
    return found


def _notes(project: Project, metrics: Path | None, origin: str) -> list[str]:
    if metrics is None:
        return ["not evaluated"]
    if origin == "published":
        return ["scores as published; its results are not here"]
    return problems(project, "evaluate") if manifest_path(project, "evaluate").exists() else []
