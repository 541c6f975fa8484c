"""What lies where in a tar of samples: names are grouped as the `webdataset` package groups them.

Nothing is unpacked, and of the members only small ones are read here. A name is never a path.
"""

import logging
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

# Of the headers of one member; the longest that are in use are long names and a few attributes.
_MAX_HEADER_BYTES = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}

_log = logging.getLogger(__name__)


class Member(NamedTuple):
    """A regular file in a tar: its name, and where its bytes lie."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Sample:
    """Members that belong together. members: ending in lower case, without the first dot -> member."""

    key: str
    members: dict[str, Member]


class DamagedTar(ValueError):
    """A file cannot be read as a tar; the message names it."""


class TarIndex:
    """A tar that is read by its headers.

    Args:
        path: the file.
        name: what errors call it.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._file = path.open("rb")

    def samples(self) -> Iterator[Sample]:
        """The samples, in order.

        Raises:
            ValueError: it is no tar, is compressed or cut short, or a sample has two members of one name.
        """
        # Heavy: it imports torch.
        from webdataset.tariterators import base_plus_ext, group_by_keys

        def named() -> Iterator[dict[str, object]]:
            for member in self._members():
                yield {"fname": member.name, "data": member, "__url__": self._name}

        try:
            for found in group_by_keys(named(), keys=base_plus_ext):
                members = {ending: member for ending, member in found.items() if isinstance(member, Member)}
                yield Sample(str(found["__key__"]), members)
        except DamagedTar:
            raise
        except ValueError as error:
            raise ValueError(f"source.path: {self._path}: {error.args[0]}") from None

    def read(self, member: Member) -> bytes:
        """The bytes of a member.

        Raises:
            ValueError: the tar ends before them.
        """
        content = os.pread(self._file.fileno(), member.size, member.offset)
        if len(content) != member.size:
            raise ValueError(f"source.path: {self._path}: ends within {member.name}")
        return content

    def is_at(self, member: Member) -> bool:
        """Whether a member of this size still begins there; its header comes right before it."""
        try:
            block = os.pread(self._file.fileno(), tarfile.BLOCKSIZE, member.offset - tarfile.BLOCKSIZE)
            found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, OSError, OverflowError):
            return False
        # A long name is cut in this header.
        return found.isreg() and found.size == member.size

    def _members(self) -> Iterator[Member]:
        """The regular files of the tar but webdataset's own."""
        try:
            file: Any = _ShortReads(self._file)
            with tarfile.open(fileobj=file, mode="r:") as opened:
                tar: Any = opened
                for info in tar:
                    if info.isreg() and not info.issparse() and not re.match(r"__[^/]*__($|/)", info.name):
                        yield Member(info.name, info.offset_data, info.size)
                    # It would keep all of them.
                    tar.members = []
                self._check_end(tar.offset)
        except tarfile.TarError as error:
            told = f"cannot be read as a tar ({error})"
            for begin, name in _COMPRESSED.items():
                if os.pread(self._file.fileno(), 2, 0) == begin:
                    told = (
                        f"is compressed ({name}); unpack it, so that pictures can be read from where they lie"
                    )
            raise DamagedTar(f"source.path: {self._path}: {told}") from None

    def _check_end(self, offset: int) -> None:
        """Look at what ended the members, which `tarfile` does not tell: an end mark, the end, or else."""
        block = os.pread(self._file.fileno(), tarfile.BLOCKSIZE, offset)
        if not block:
            _log.warning("%s: has no end mark; it may have been cut short", self._path)
        elif block != b"\0" * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"damaged or cut short at byte {offset:,}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _ShortReads:
    """What `tarfile` reads headers from: one that says it is longer than any of use is not read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes."""
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)
