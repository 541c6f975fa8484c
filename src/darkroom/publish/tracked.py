"""Manifests and small results of published stages that Git tracks: copies, so that a run made again leaves a clone
as it is, and so that a clone without data can be checked.

`published/train-demo/loss.csv` is what `dvc.lock` says `results/runs/demo/train/loss.csv` is. Results themselves
are ignored by Git: another kind of CPU makes them with other low bits.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from darkroom.store import replacing

FOLDER = Path("published")
# Tables and metrics of a stage that are small and worth reading.
_TRACKED = {
    "filter": ("funnel.csv",),
    "train": ("loss.csv",),
    "watch": ("steps.csv",),
    "evaluate": ("metrics.json",),
}


def tracked_names(stage: str) -> tuple[str, ...]:
    """The tables and metrics of a pipeline's stage that are copied."""
    return _TRACKED.get(stage, ())


def copied_names(stage: str) -> tuple[str, ...]:
    """All files of a pipeline's stage that are copied."""
    return ("manifest.json", *tracked_names(stage))


def copies_folder(name: str) -> Path:
    """Where the copies of a stage lie, by DVC's name."""
    return FOLDER / name


def tracked_path(name: str, file: str) -> Path:
    """Where the copy of a file lies, of a stage by DVC's name."""
    return copies_folder(name) / file


def outdated(name: str, entry: Mapping[str, Any]) -> list[tuple[Path, Path]]:
    """(result, copy) of a stage's copied files whose copy is missing or another one."""
    results = [Path(path) for out in entry["outs"] for path in out]
    copied = copied_names(name.partition("-")[0])
    pairs = [(path, tracked_path(name, path.name)) for path in results if path.name in copied]
    return [(path, copy) for path, copy in pairs if path.is_file() and not _same(path, copy)]


def copy_tracked(entries: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> list[Path]:
    """Copy what is outdated of these stages; returns the copies that were written."""
    pairs = [pair for name in names for pair in outdated(name, entries[name])]
    for path, copy in pairs:
        with replacing(copy) as beside:
            shutil.copyfile(path, beside)
    return [copy for _, copy in pairs]


def _same(path: Path, copy: Path) -> bool:
    return copy.is_file() and path.read_bytes() == copy.read_bytes()
