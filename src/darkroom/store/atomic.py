"""Files that appear whole or not at all: written beside their final name, then renamed."""

import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What `replacing` leaves of a process that is killed while it writes; the group is the name that it writes.
UNFINISHED = re.compile(r"\.(.+)\.\d+\.tmp")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` when the block succeeds.

    The block may create a file or a folder there, and its modes become those that the umask asks for. On any
    error nothing is left behind and an older `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{os.getpid()}.tmp"
    _remove(beside)
    try:
        yield beside
        apply_umask(beside)
        if beside.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(beside, path)
    finally:
        _remove(beside)


def apply_umask(path: Path) -> None:
    """Give what was just written, a file or a folder with all in it, the modes of any new file and folder here.

    safetensors makes its files 0600, and copies keep the modes of their source.
    """
    of_file, of_folder = _modes_of_new(path)
    for found in [path, *(path.rglob("*") if path.is_dir() else ())]:
        mode = found.lstat().st_mode
        if stat.S_ISLNK(mode):
            continue
        wanted = of_folder if stat.S_ISDIR(mode) else of_file
        if mode & 0o777 != wanted:
            found.chmod(mode & 0o7000 | wanted)


def _modes_of_new(path: Path) -> tuple[int, int]:
    """Permissions of a new file and a new folder beside `path`.

    By trying: a process cannot ask for its umask without changing it for all its threads, and a folder's
    default access list stands above it.
    """
    probe = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.mode.tmp")
    try:
        probe.touch()
        of_file = probe.stat().st_mode & 0o777
        probe.unlink()
        probe.mkdir()
        return of_file, probe.stat().st_mode & 0o777
    finally:
        _remove(probe)


def json_text(value: Any) -> str:
    """`value` as sorted, indented JSON with a final newline; NaN and infinity are refused."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as `json_text` gives it."""
    text = json_text(value)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
