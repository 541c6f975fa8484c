"""`darkroom publish RUN`: a run becomes one of those that are published, with all that Git tracks of it."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from darkroom.config import ConfigError, Project, load_project
from darkroom.publish.bundle import bundle_path, bundle_texts, missing_copies, write_bundle
from darkroom.publish.dvclock import PIPELINE
from darkroom.publish.listed import CHOICE, published_runs
from darkroom.publish.readme import README, readme_text
from darkroom.publish.signature import sign
from darkroom.publish.stages import pipeline_text
from darkroom.stages import STAGES, current_stages, problems
from darkroom.store import replacing

_RECORD = "workflow/scripts/dvc_commit.py"
_LISTED = re.compile(r"^published:[ \t]*(\[[^\]]*\])?[ \t]*(#.*)?$((?:\n[ \t]*-[ \t].*$)*)", re.MULTILINE)


def publish(run: str, key: Path | None = None) -> list[str]:
    """Add a finished run to the published ones: dvc.yaml, dvc.lock, what Git tracks, and README's table.

    A run that was published before is published as it is now.

    Args:
        run: its name.
        key: an SSH key to sign it with.

    Returns:
        What was done, a line each.

    Raises:
        ConfigError: the run is wrong.
        ValueError: it is not finished, cannot be recorded or cannot be signed; says why.
    """
    project = load_project(run)
    require_finished(project)
    told = []
    if run not in published_runs():
        path = Path("config") / CHOICE
        _write(path, with_run(path.read_text(encoding="utf-8"), run))
        told.append(f"{path} lists {run}")
    told += write_generated()
    done = subprocess.run([sys.executable, _RECORD, run, "--replace"], capture_output=True, text=True)
    missing = missing_copies(project)
    if done.returncode or missing:
        why = (done.stdout + done.stderr).strip() or f"{missing[0]} is missing"
        raise ValueError(f"{run} was not recorded: {why}")
    told += done.stdout.splitlines() + write_generated()
    if key is not None:
        told.append(f"{sign(bundle_path(run), key)} signed")
    return told


def require_finished(project: Project) -> None:
    """Refuse a run of which a stage is missing or not current.

    Raises:
        ValueError: names the first such stage.
    """
    run, current = project.name, current_stages(project)
    absent = [stage for stage in STAGES if stage not in current]
    if absent:
        raise ValueError(
            f"{run} is not finished: {problems(project, absent[0])[0]}; run `snakemake --config run={run}` first"
        )


def write_generated() -> list[str]:
    """Bring everything that is written from the published results in step with them; returns what was written."""
    told = [line for run in published_runs() for line in write_bundle(load_project(run))]
    return told + [_write(path, text) for path, text in generated().items() if _differs(path, text)]


def out_of_step() -> list[str]:
    """Of the same files, those that are not in step."""
    return [
        f"{path} is not in step with what is published"
        for path, text in generated().items()
        if _differs(path, text)
    ]


def generated() -> dict[Path, str]:
    """What is written from the list of published runs and from published/: file -> text.

    That is dvc.yaml, the runs' cards and bundles, and README's tables.
    """
    texts = {Path(PIPELINE): pipeline_text()}
    for run in published_runs():
        texts |= bundle_texts(load_project(run))
    readme = Path(README)
    if readme.is_file():
        texts[readme] = readme_text(readme.read_text(encoding="utf-8"))
    return texts


def with_run(text: str, run: str) -> str:
    """The text of config/config.yaml with one more published run; comments stay.

    Raises:
        ConfigError: the list is not written so that a name can be added.
    """
    names = [*(yaml.safe_load(text).get("published") or []), run]
    found = _LISTED.search(text)
    if found is None:
        added = f"{text.rstrip()}\npublished: [{run}]\n"
    elif found[3]:
        added = f"{text[: found.end(3)]}\n{_indent(found[3])}- {run}{text[found.end(3) :]}"
    else:
        line = f"published: [{', '.join(names)}]{f'  {found[2]}' if found[2] else ''}"
        added = text[: found.start()] + line + text[found.end() :]
    if yaml.safe_load(added).get("published") != names:
        raise ConfigError(
            f"config/{CHOICE}: published: add {run} to this list by hand, then give the command again"
        )
    return added


def _indent(items: str) -> str:
    return re.match(r"\n([ \t]*)", items)[1]  # type: ignore[index]


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text(encoding="utf-8") != text


def _write(path: Path, text: str) -> str:
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return f"{path} written"
