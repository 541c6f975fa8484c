"""The averaged pipelines of steps on the way, kept in a training's run directory for who judges them."""

import filecmp
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from darkroom.store import replacing

FOLDER = "averages"


class KeptAverages:
    """Folders `averages/step-00001000` of a run directory; what two of them have in common lies there once."""

    def __init__(self, run_dir: str | Path) -> None:
        self._folder = Path(run_dir) / FOLDER

    def keep(self, step: int, export: Callable[[str | Path], None]) -> None:
        """Have `export` write the pipeline of a step, if it is not there."""
        if (folder := self._of(step)).exists():
            return
        with replacing(folder) as beside:
            export(beside)
            others = sorted(self._folder.glob("step-*"))
            if others:
                _share_files(beside, others[0])

    def copy(self, step: int, out: str | Path) -> None:
        """Put the pipeline of a step at `out`: the same files by another name where the file system allows.

        Raises:
            RuntimeError: it is not there.
        """
        if not (folder := self._of(step)).exists():
            raise RuntimeError(
                f"train: the training is past step {step}, and its average of then was not kept: watch.every_steps"
                f" was another, or none. Write the one that it was, or remove {self._folder.parent} to train from"
                " step 0"
            )
        with replacing(out) as beside:
            shutil.copytree(folder, beside, copy_function=link_or_copy)

    def _of(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}"


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """The same file by another name; a copy of it where that cannot be, as on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _share_files(folder: Path, other: Path) -> None:
    """Files of `folder` that `other` has too, as text encoders are, become the same files."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        same = other / path.relative_to(folder)
        if same.is_file() and filecmp.cmp(path, same, shallow=False):
            path.unlink()
            link_or_copy(same, path)
