"""What a run was started with: its configuration and its code, the same for all of its jobs until it ends.

A job reads the configuration and imports the library when it starts, hours after the driver (the `snakemake`
that a person started). So the driver takes a snapshot, writes it below `.snakemake` and names its folder in an
environment variable, which its jobs inherit. They read the configuration from there, and compare the code with
the digests there: an edit changes nothing of a run in progress, and other code is refused.
"""

import contextlib
import hashlib
import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.kinds import plugin_packages
from darkroom.store import read_manifest, replacing, sha256_file, sha256_json, write_json

VARIABLE = "DARKROOM_PINNED"
# Of the configuration's folder: options, and what was withdrawn.
_CONFIG = ("*.yaml", "withdrawn/*.txt")
# Of the workflow's own folder.
_WORKFLOW = ("Snakefile", "rules/**/*.smk", "workflow/**/*.py")
# Weights are inputs of rules, which Snakemake compares itself.
_WEIGHTS = ".safetensors"
_NUM_NAMED = 5  # files that an error names
_looked_at = float("-inf")


class PinError(RuntimeError):
    """A job would not do what its driver was started to do; the message says what to do."""


@dataclass(frozen=True)
class Snapshot:
    """The files below `config/` with their content, and the code with its digests.

    Attributes:
        config: name below the configuration's folder -> content.
        workflow: absolute path of the folder with the Snakefile.
        code: `workflow`, `darkroom` and each package that adds kinds to it -> name below the folder that each
            lies in -> SHA-256.
    """

    config: dict[str, bytes]
    workflow: str
    code: dict[str, dict[str, str]]


def take_snapshot(workflow: str | Path, config: str | Path = "config") -> Snapshot:
    """Read configuration and code as they are now; `workflow` is the folder with the Snakefile."""
    files = {}
    for path in sorted(p for pattern in _CONFIG for p in Path(config).rglob(pattern)):
        try:
            files[path.relative_to(config).as_posix()] = path.read_bytes()
        except OSError:  # of no run that could be loaded
            continue
    root = Path(workflow).resolve()
    packages = {name: _package_files(path) for name, path in _packages().items()}
    found = {"workflow": _workflow_files(root), **packages}
    folders = _folders(str(root))
    code = {
        kind: {p.relative_to(folders[kind]).as_posix(): sha256_file(p) for p in paths}
        for kind, paths in found.items()
    }
    return Snapshot(files, str(root), code)


def hold(snapshot: Snapshot, below: str | Path) -> None:
    """Give the snapshot to all jobs that this process starts from now on.

    What drivers before it left below `below` is removed: their jobs are over. The caller holds the folder.
    """
    folder = write_snapshot(snapshot, below)
    os.environ[VARIABLE] = str(folder)
    for other in folder.parent.iterdir():
        if other != folder:
            with contextlib.suppress(OSError):
                shutil.rmtree(other)


def write_snapshot(snapshot: Snapshot, below: str | Path) -> Path:
    """Write a snapshot into a folder below `below` that is named by its content, and return that folder."""
    record = {"workflow": snapshot.workflow, "code": snapshot.code}
    content = {name: hashlib.sha256(data).hexdigest() for name, data in snapshot.config.items()}
    folder = Path(below).resolve() / sha256_json({"config": content, **record})[:16]
    if not folder.is_dir():
        with replacing(folder) as beside:
            for name, data in snapshot.config.items():
                path = beside / "config" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            write_json(beside / "code.json", record)
    return folder


def config_folder() -> Path:
    """Where a job reads its configuration.

    Raises:
        PinError: this process is no job of a driver that is still there.
    """
    return _pinned() / "config"


def check_code(pause_s: float = 0.0) -> None:
    """Compare the code with the driver's; outside of a driver and its jobs any code is right.

    Args:
        pause_s: nothing is read again when it was so short ago: a driver asks before each job that it sends.
    Raises:
        PinError: files have changed; names them and what to do.
    """
    global _looked_at
    if VARIABLE not in os.environ or time.monotonic() - _looked_at < pause_s:
        return
    changed = list(_changed(read_manifest(_pinned() / "code.json")))
    if changed:
        more = f" and {len(changed) - _NUM_NAMED} more" if len(changed) > _NUM_NAMED else ""
        raise PinError(
            f"the code of this run changed while it ran: {', '.join(changed[:_NUM_NAMED])}{more};"
            " put it back, or start snakemake again"
        )
    _looked_at = time.monotonic()


def _changed(record: dict[str, Any]) -> Iterator[str]:
    """The recorded files that are others now, as a person calls them."""
    folders = _folders(record["workflow"])
    for part, files in record["code"].items():
        if part not in folders:
            yield f"the package {part}, which is not installed any more"
            continue
        for name, digest in files.items():
            path = folders[part] / name
            try:
                is_same = sha256_file(path) == digest
            except FileNotFoundError:
                is_same = False
            if not is_same:
                yield str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _pinned() -> Path:
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise PinError(
            f"the environment of the snakemake that sent this job did not reach it ({VARIABLE} is not set);"
            " jobs need it"
        )
    if not Path(folder, "code.json").is_file():
        raise PinError(
            "the snakemake that sent this job is over, and another has begun; it sends its own jobs"
        )
    return Path(folder)


def _folders(workflow: str) -> dict[str, Path]:
    return {"workflow": Path(workflow), **{name: path.parent for name, path in _packages().items()}}


def _packages() -> dict[str, Path]:
    """Name -> folder (or file, of a single module) of darkroom and of the packages that add kinds to it."""
    found = {}
    for name in ("darkroom", *plugin_packages()):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).resolve()
            found[name] = path if spec.submodule_search_locations is None else path.parent
    return found


def _workflow_files(root: Path) -> list[Path]:
    return sorted(p for pattern in _WORKFLOW for p in root.glob(pattern) if p.is_file())


def _package_files(package: Path) -> list[Path]:
    """The package's code and data."""
    if package.is_file():
        return [package]
    found = []
    for folder, folders, names in os.walk(package):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        visible = (name for name in names if not name.startswith(".") and not name.endswith(_WEIGHTS))
        found += [Path(folder, name) for name in visible]
    return sorted(found)
