"""Results that are read-only, made writable: Snakemake refuses to make a read-only output again."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from darkroom.store import replacing


def make_writable(results: Iterable[Path]) -> None:
    """Give every read-only file below `results` (files or folders) its owner's write permission.

    DVC leaves read-only files where `cache.type` asks for links, as this project's did once. A link shares
    its mode with the file in DVC's cache, so a copy with the same bytes and time takes its place.
    """
    for result in results:
        for path in (result, *result.rglob("*")):
            # Another driver may be replacing it; in somebody else's folder it stays as it is.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                if path.is_file() and not path.is_symlink() and not path.stat().st_mode & stat.S_IWUSR:
                    _mend(path)


def _mend(path: Path) -> None:
    status = path.stat()
    if status.st_nlink == 1 and status.st_uid == os.geteuid():
        path.chmod(stat.S_IMODE(status.st_mode) | stat.S_IWUSR)
        return
    with replacing(path) as beside:
        shutil.copy2(path, beside)
        beside.chmod(stat.S_IMODE(status.st_mode) | stat.S_IWUSR)
