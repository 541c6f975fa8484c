"""A folder of pictures that anybody made: which files are pictures, and their pixels, within bounds.

Pixels are what the reference libraries read: no colour profile is applied, nothing is turned by EXIF, transparency
is dropped.
"""

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, UnidentifiedImageError

from darkroom.store import sha256_json
from darkroom.store.found import shown

MODEL = "pictures"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 64_000_000
MAX_BYTES = 256_000_000
# A CLIP scales the shorter side up to its own: a line of pixels would fill the memory.
MAX_RATIO = 50


@dataclass(frozen=True)
class Folder:
    """The pictures of a folder and of those inside it.

    Attributes:
        root: the folder.
        names: paths in it of those that can be read, sorted, with `/`.
        digests: SHA-256 of each of these files.
        unreadable: the others that have a picture's ending, and folders that are not looked into, and why.
        num_others: files that have not.
    """

    root: Path
    names: Sequence[str]
    digests: Sequence[str]
    unreadable: Mapping[str, str]
    num_others: int

    @property
    def sha256(self) -> str:
        """Of the names and the files' bytes."""
        return sha256_json(list(zip(self.names, self.digests, strict=True)))

    def only(self, names: Sequence[str]) -> "Folder":
        """Those of these names, in the folder's order."""
        wanted = set(names)
        kept = [pair for pair in zip(self.names, self.digests, strict=True) if pair[0] in wanted]
        return replace(self, names=[name for name, _ in kept], digests=[digest for _, digest in kept])

    def table(self) -> pl.DataFrame:
        """A row for each picture: `model`, `prompt_index` (each has a record of its own), `picture`, `file`."""
        number = len(self.names)
        columns = {"prompt_index": range(number), "picture": [0] * number, "file": self.names}
        return pl.DataFrame({"model": [MODEL] * number, **columns})

    def called(self, number: int) -> Sequence[str]:
        """What the first `number` pictures are called."""
        return self.names[:number]

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the first picture."""
        height, width, _ = next(self.pictures()).shape
        return width, height

    def pictures(self, number: int | None = None) -> Iterator[np.ndarray]:
        """uint8 (height, width, 3), RGB, in the order of `names`; the first `number`."""
        for name in self.names[:number]:
            yield decoded(read(self.root / name))

    def picture(self, place: int) -> np.ndarray:
        """The one of a row of `table`; on any thread."""
        return decoded(read(self.root / self.names[place]))


def look_through(root: str | Path) -> Folder:
    """Find the pictures of a folder and read each once. Links to folders are not followed.

    Raises:
        ValueError: it is no folder, or no picture of it can be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: is no folder; it should hold pictures ({', '.join(ENDINGS)})")
    found: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    num_others = 0
    for name in sorted(_files(root, unreadable)):
        if not name.lower().endswith(ENDINGS):
            num_others += 1
            continue
        try:
            if shown(name) != name:
                raise ValueError("its name is no plain text")
            content = read(root / name)
            decoded(content)
        except ValueError as error:
            unreadable[shown(name)] = str(error)
        else:
            found[name] = hashlib.sha256(content).hexdigest()
    unreadable = dict(sorted(unreadable.items()))
    if not found:
        first = next((f"; {name}: {why}" for name, why in unreadable.items()), "")
        raise ValueError(f"{root}: holds no picture that can be read ({', '.join(ENDINGS)}){first}")
    return Folder(root, list(found), list(found.values()), unreadable, num_others)


def _files(root: Path, unreadable: dict[str, str]) -> Iterator[str]:
    """Paths in the folder; what of the folders in it cannot be looked into goes to `unreadable`."""

    def told(path: str | Path) -> str:
        return Path(path).relative_to(root).as_posix()

    def failed(error: OSError) -> None:
        unreadable[shown(told(error.filename))] = error.strerror or str(error)

    for folder, inside, names in os.walk(root, onerror=failed):
        links = [told(Path(folder, name)) for name in inside if Path(folder, name).is_symlink()]
        unreadable.update((shown(link), "a link to a folder, which is not followed") for link in links)
        yield from (told(Path(folder, name)) for name in names)


def read(path: Path) -> bytes:
    """The bytes of a file of at most MAX_BYTES.

    Raises:
        ValueError: it is larger, no regular file, or cannot be read.
    """
    try:
        if not path.is_file():
            raise ValueError("no regular file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def decoded(content: bytes) -> np.ndarray:
    """One picture: uint8 (height, width, 3), RGB. Its header is looked at before anything is decoded.

    Raises:
        ValueError: it is damaged, animated, of 16-bit grey or of another format, or too large or long.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width} x {height} px, more than {MAX_PIXELS:,}")
            if max(width, height) > MAX_RATIO * min(width, height):
                raise ValueError(f"{width} x {height} px, one side more than {MAX_RATIO} times the other")
            # A JPEG of several pictures is a camera's, with previews behind the first.
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise ValueError("animated")
            if image.mode.startswith(("I", "F")):
                raise ValueError("grey of more than 8 bits")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise ValueError("no PNG, JPEG or WebP") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels") from None
    except ValueError:
        raise
    except Exception as error:  # Pillow's parsers raise nearly anything on malformed bytes
        raise ValueError(f"damaged: {error}") from None
