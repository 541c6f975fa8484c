"""`darkroom retry DATASET`: one more round in which rows that failed are fetched again.

A round is part of the configuration, so that every clone, Snakemake and DVC know it: what `config/retries` says is
made like anything else, goes on after an interruption, and is there once.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from darkroom.config import ConfigError, Project, load_project
from darkroom.config.retries import Retries, retries_path, retries_text
from darkroom.download.rounds import Failed, find_failed, next_round
from darkroom.publish.listed import CHOICE, Choice, read_section
from darkroom.sources.table import is_fetched
from darkroom.stages import folder, manifest_path, problems, retried_parts
from darkroom.store import num_parts, part_name, read_manifest, replacing


class Told(NamedTuple):
    """What a call has to say, and whether Snakemake has something to do."""

    sentence: str
    is_to_make: bool


def project_of(dataset: str, run: str = "") -> Project:
    """The run called `run`, or one that has the dataset: of those in config/config.yaml, else the first.

    Raises:
        ConfigError: there is none, or the run has another dataset.
    """
    if run:
        project = load_project(run)
        if dataset not in project.datasets:
            raise ConfigError(f"--run {run}: its dataset is {', '.join(project.datasets)}, not {dataset}")
        return _member(project, dataset)
    chosen = read_section(Choice, Path("config") / CHOICE).run
    names = [*([chosen] if isinstance(chosen, str) else chosen)]
    names += sorted(path.stem for path in Path("config/runs").glob("*.yaml"))
    wrong = []
    for name in dict.fromkeys(names):
        try:
            project = load_project(name)
        except ConfigError as error:
            wrong.append(str(error))
            continue
        if dataset in project.datasets:
            return _member(project, dataset)
    more = f" (some cannot be read: {wrong[0]})" if wrong else ""
    raise ConfigError(f"{dataset}: no run in config/runs has this dataset{more}")


def _member(project: Project, dataset: str) -> Project:
    return next(of for of in project.members if of.dataset_name == dataset)


def begin(project: Project) -> Told:
    """Write the next round into the configuration, or find that the last one is still to be made.

    Raises:
        ValueError: the download is not current, its tables are not here, or its pictures are files.
    """
    dataset, rounds = project.dataset_name, project.retries.rounds
    if not is_fetched(project.dataset.source):
        raise ValueError(
            f"{dataset}: its pictures are files, which `snakemake download` reads again when they change"
        )
    path = manifest_path(project, "download")
    if rounds and not (path.exists() and retried_parts(read_manifest(path)) == list(project.retries.parts)):
        return Told(f"round {len(rounds)} of {dataset} is not finished; it goes on", True)
    if wrong := problems(project, "download"):
        raise ValueError(f"{wrong[0]}; run `snakemake download --config run={project.name}` first")
    num_rows, per_part = read_manifest(path)["counts"]["rows"], project.dataset.rows_per_part
    names = [*map(part_name, range(num_parts(num_rows, per_part))), *project.retries.parts]
    tables = {name: folder(project, "download") / f"{name}.parquet" for name in names}
    absent = [table for table in tables.values() if not table.exists()]
    if absent:
        raise ValueError(
            f"{absent[0]}: not here; what failed stands in the tables, so make or pull them first"
        )
    failed = find_failed(tables, rounds)
    if not failed.by_part:
        return Told(f"{dataset}: none of {num_rows:,} rows has failed in a way that may pass", False)
    new = Retries(rounds=(*rounds, next_round(failed, rounds, per_part, num_rows)))
    written = retries_path(dataset)
    with replacing(written) as beside:
        beside.write_text(retries_text(dataset, new), encoding="utf-8")
    return Told(_sentence(dataset, new, failed, written), True)


def make(project: Project, arguments: Sequence[str] = ()) -> int:
    """Have Snakemake make what the configuration names, and return its exit status."""
    environment = {**os.environ, "SNAKEMAKE_PROFILE": os.environ.get("SNAKEMAKE_PROFILE", "profiles/local")}
    command = [sys.executable, "-m", "snakemake", "download", *arguments, "--config", f"run={project.name}"]
    return subprocess.run(command, env=environment).returncode


def outcome(project: Project) -> str:
    """How all rows ended, when a round was made."""
    # The configuration names a round more than when it was read.
    now = project_of(project.dataset_name, project.name)
    path, parts = manifest_path(now, "download"), list(now.retries.parts)
    if not path.exists() or retried_parts(body := read_manifest(path)) != parts:
        # Snakemake was asked for a plan, or for something else.
        return f"{project.dataset_name}: the round is not made yet"
    counts = body["counts"]
    statuses = ", ".join(f"{status} {number:,}" for status, number in counts["status"].items() if number)
    return f"{project.dataset_name}: {counts['rows']:,} rows: {statuses}"


def _sentence(dataset: str, new: Retries, failed: Failed, written: Path) -> str:
    number, parts = len(new.rounds), len(new.rounds[-1])
    statuses = ", ".join(f"{status} {count:,}" for status, count in sorted(failed.by_status.items()))
    return (
        f"round {number} of {dataset}: {sum(failed.by_part.values()):,} rows of {len(failed.by_part):,} parts"
        f" ({statuses}) are fetched again, in {parts:,} {'part' if parts == 1 else 'parts'} of their own;"
        f" {written} says so, and belongs into Git"
    )
