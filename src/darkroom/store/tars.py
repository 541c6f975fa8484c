"""Image shards: WebDataset tars with fixed headers, read by byte offset."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from darkroom.store.atomic import replacing


def write_tar(path: str | Path, members: Iterable[tuple[str, bytes]]) -> dict[str, tuple[int, int]]:
    """Write `members` (name, content) in the order given; return name -> (offset, size) of content.

    Owner, mode and time are constants, so the same members give the same bytes.
    """
    spans = {}
    with replacing(path) as beside, tarfile.open(beside, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            header.mode = 0o644
            tar.addfile(header, io.BytesIO(content))
            # addfile pads to whole blocks; the content starts right after its 512-byte header.
            blocks = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            spans[name] = (tar.offset - blocks, len(content))
    return spans


class TarReader:
    """Random access to the members of a tar by the (offset, size) that its part table keeps."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115 - closed by __exit__

    def read(self, offset: int, size: int) -> bytes:
        """The bytes of one member.

        Raises:
            ValueError: the file ends before the member does.
        """
        self._file.seek(offset)
        content = self._file.read(size)
        if len(content) != size:
            raise ValueError(f"{self._path}: ends before byte {offset + size}; make the part again")
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
