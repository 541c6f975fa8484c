"""What really lies in a folder that anybody may have changed: no link is followed, and only plain files are read.

A named pipe would never end, a device neither, and a link may lead anywhere; so what a path is comes before its
bytes.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

Kind = Literal["file", "folder", "link", "special"]

# Snakemake leaves this empty file in every folder that is a rule's output.
SNAKEMAKES_MARK = ".snakemake_timestamp"
_CHUNK = 1 << 20


class NotPlain(ValueError):
    """A path is no plain file; the message says which, and what it is."""


@dataclass(frozen=True)
class Digests:
    """A file's bytes: their SHA-256, their number, and where it was asked for the MD5 that DVC names them by."""

    sha256: str
    size: int
    md5: str = ""


def kind_of(path: str | Path) -> Kind | None:
    """What a path is by itself, whatever a link leads to; None where there is nothing."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _kind(mode)


def entries(folder: str | Path) -> dict[str, Kind]:
    """Everything below a folder: path from there, with slashes -> what it is; links are not gone into.

    A folder that is not there, or is none, has nothing.
    """
    found: dict[str, Kind] = {}
    if kind_of(folder) != "folder":
        return found
    todo = [""]
    while todo:
        above = todo.pop()
        with os.scandir(os.path.join(folder, above)) as here:
            for entry in here:
                name = f"{above}{entry.name}"
                found[name] = _kind(entry.stat(follow_symlinks=False).st_mode)
                if found[name] == "folder":
                    todo.append(f"{name}/")
    return found


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """Open a plain file for reading; nothing else is opened, however it came to lie there.

    Raises:
        NotPlain: it is a folder, a link, a named pipe, a socket or a device.
        OSError: it is not there, or may not be read.
    """
    kind = kind_of(path)
    if kind is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if kind != "file":
        raise NotPlain(f"{shown(path)}: {described(path)}, and no file")
    # The path may have become another thing since: a link is refused, and a pipe does not wait for a writer.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise NotPlain(f"{shown(path)}: no file")
        yield file


def read_bytes(path: str | Path, max_bytes: int) -> bytes:
    """The bytes of a plain file.

    Raises:
        NotPlain, OSError: as `opened`.
        ValueError: there are more than `max_bytes`.
    """
    with opened(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"{shown(path)}: more than {max_bytes:,} bytes")
    return data


def digests(path: str | Path, with_md5: bool = False) -> Digests:
    """The digests of a plain file, read once and in pieces.

    Raises:
        NotPlain, OSError: as `opened`.
    """
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with opened(path) as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            size += len(chunk)
            if with_md5:
                md5.update(chunk)
    return Digests(sha256.hexdigest(), size, md5.hexdigest() if with_md5 else "")


def is_snakemakes_mark(path: str | Path) -> bool:
    """Whether a path is the mark that Snakemake leaves in folders, and nothing hides behind its name."""
    status = os.lstat(path)
    return os.path.basename(path) == SNAKEMAKES_MARK and stat.S_ISREG(status.st_mode) and not status.st_size


def described(path: str | Path) -> str:
    """In words what a path is, if it is no plain file: `a link to ...`, `a named pipe`."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return f"a link to {shown(os.readlink(path))}"
    names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


def shown(path: str | Path) -> str:
    """A path for a message: what a terminal would not show as it stands is escaped."""
    text = os.fspath(path)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "special"
