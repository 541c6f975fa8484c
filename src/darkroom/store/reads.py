"""Bytes of many files, read from any place straight to where they are wanted."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
# Of the 1024 that most systems allow a process.
MAX_OPEN = 256


@dataclass(frozen=True)
class FileState:
    """Which file lay at a path: another one there, or other bytes in it, have another state."""

    path: Path
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str | Path, fd: int) -> "FileState":
        found = os.fstat(fd)
        return cls(Path(path), found.st_ino, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class Reads:
    """What to read: n runs of bytes, all arrays are (n,).

    files: the place of each run's file among those given. offsets, sizes: bytes in that file. targets: the byte
    of the memory where each begins.
    """

    files: Ints
    offsets: Ints
    sizes: Ints
    targets: Ints

    @classmethod
    def joined(cls, parts: "Sequence[Reads]") -> "Reads":
        names = ("files", "offsets", "sizes", "targets")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class RandomFiles:
    """Files that are read in no order: the system is told so, or it would read many times what is asked for.

    At most MAX_OPEN are open at once. Threads may share it.
    """

    def __init__(self, files: Sequence[FileState]) -> None:
        self._files = list(files)
        self._opened: OrderedDict[int, int] = OrderedDict()
        self._users: dict[int, int] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._opened).atexit = False

    def read(self, reads: Reads, memory: memoryview) -> None:
        """Read all runs into the memory (bytes), file by file in the order of their offsets.

        Raises:
            ValueError: a file is no longer the one that was given, or ends too early; names it.
        """
        order = np.lexsort((reads.offsets, reads.files))
        columns = (reads.files, reads.offsets, reads.sizes, reads.targets)
        before, fd = -1, -1
        try:
            for number, offset, size, target in zip(*(c[order].tolist() for c in columns), strict=True):
                if number != before:
                    self._leave(before)
                    before = -1
                    fd = self._enter(number)
                    before = number
                self._fill(number, fd, offset, memory[target : target + size])
        finally:
            self._leave(before)

    def _fill(self, number: int, fd: int, offset: int, target: memoryview) -> None:
        done = os.preadv(fd, [target], offset)
        while done < len(target):
            # The system may give less than asked for, and nothing at the end of a file.
            more = os.preadv(fd, [target[done:]], offset + done)
            if not more:
                raise ValueError(f"{self._files[number].path}: ends before byte {offset + len(target)}")
            done += more

    def _enter(self, number: int) -> int:
        """The descriptor of a file, which stays open until `_leave`."""
        with self._lock:
            fd = self._opened.get(number)
            if fd is None:
                fd = self._opened[number] = _opened(self._files[number])
            self._opened.move_to_end(number)
            self._users[number] = self._users.get(number, 0) + 1
            return fd

    def _leave(self, number: int) -> None:
        if number < 0:
            return
        with self._lock:
            self._users[number] -= 1
            idle = [n for n in self._opened if not self._users.get(n)] if len(self._opened) > MAX_OPEN else []
            for other in idle[: len(self._opened) - MAX_OPEN]:
                self._users.pop(other, None)
                os.close(self._opened.pop(other))


def _close_all(opened: OrderedDict[int, int]) -> None:
    while opened:
        os.close(opened.popitem()[1])


def _opened(file: FileState) -> int:
    fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    if FileState.of(file.path, fd) != file:
        os.close(fd)
        raise ValueError(f"{file.path}: was written again while it was in use; start again")
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    return fd
