"""What the captions of a part are asked about: its pictures."""

import copy
import io
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from PIL import Image, UnidentifiedImageError

from darkroom.captioners.progress import Progress
from darkroom.recaption.asking import Key
from darkroom.store import TarReader

Row = Mapping[str, Any]


class Part:
    """What all that captions are asked about has, see `recaption.asking.PartSubjects`.

    Args:
        rows: a picture each, in the order of their uids, with uid and the alt-text as `caption`.
        where: the file that they are from, for messages.
        scratch: see `captioners.base.Subjects`.
    """

    def __init__(self, rows: Sequence[Row], where: str, scratch: Path) -> None:
        self.where, self.scratch = where, scratch
        self.uids: Sequence[str] = [str(row["uid"]) for row in rows]
        self.originals: Sequence[str] = [str(row["caption"] or "") for row in rows]
        self.unasked: Mapping[Key, str] = {}
        self._progress = Progress()

    def hint(self, place: int, name: str) -> str | None:
        """The alt-text, where it is part of a request."""
        del place, name
        return None

    def for_fallback(self, number: int) -> Self:
        """The same pictures, with what a fallback keeps of them in a folder of its own."""
        pictures = copy.copy(self)
        pictures.scratch = self.scratch / f"fallback-{number}"
        return pictures

    def expect(self, num_captions: int) -> None:
        """Say that so many captions more are asked for."""
        self._progress.expect(num_captions)

    def tell(self, num_captions: int) -> None:
        """Say that so many captions more are there."""
        self._progress.add(num_captions)


class PartPictures(Part):
    """See `captioners.base.Pictures`.

    Args:
        rows: of the download's table, in the order of their uids, with the alt-text as `caption`.
        reader: of the part's tar.
        where: what that is called, for messages.
        scratch: see `captioners.base.Subjects`.
    """

    def __init__(self, rows: Sequence[Row], reader: TarReader, where: str, scratch: Path) -> None:
        super().__init__(rows, where, scratch)
        self._rows, self._reader, self._reading = rows, reader, threading.Lock()

    @property
    def content(self) -> list[str]:
        """A uid tells a picture's bytes."""
        return list(self.uids)

    def jpeg(self, place: int) -> bytes:
        content = self._read(place)
        self._open(content, place).close()
        return content

    def image(self, place: int) -> Image.Image:
        with self._open(self._read(place), place) as image:
            try:
                return image.convert("RGB")
            except OSError as error:
                raise self._undecoded(place, error) from error

    def _read(self, place: int) -> bytes:
        with self._reading:
            return self._reader.read(self._rows[place]["offset"], self._rows[place]["size"])

    def _open(self, content: bytes, place: int) -> Image.Image:
        """Its header is compared with the table before it is decoded."""
        row = self._rows[place]
        try:
            image = Image.open(io.BytesIO(content), formats=["JPEG"])
        except (UnidentifiedImageError, OSError) as error:
            raise self._undecoded(place, error) from error
        if image.size != (row["width"], row["height"]):
            raise ValueError(
                f"{self.where}: picture {row['uid']} is {image.size[0]}x{image.size[1]} px, its table says "
                f"{row['width']}x{row['height']}; make the download part again"
            )
        return image

    def _undecoded(self, place: int, error: Exception) -> ValueError:
        return ValueError(f"{self.where}: picture {self.uids[place]} cannot be decoded ({error})")
