"""TIFF: the first directory with the tags that the pixels need, of the kinds that are common; one page.

The tags are those of TIFF 6.0 (Adobe, 1992). Other programs keep as TIFF what only they can read; of cameras' raw
files the first directory is a preview.
"""

import struct
from typing import NamedTuple

from darkroom.download.containers.base import (
    MAX_PROFILE_BYTES,
    Plain,
    animated,
    check_size,
    damaged,
    too_costly,
    unsupported,
)
from darkroom.download.containers.jpeg import MAX_SCANS
from darkroom.download.containers.orientation import MAX_BYTES, orientation

MAX_TAGS = 1_000
MAX_STRIPS = 200_000
MAX_PAGES = 16

_KIND, _OLD_KIND, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
_FILL_ORDER, _STRIPS, _ORIENTATION, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANES = 266, 273, 274, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = (
    317,
    322,
    323,
    324,
    325,
    338,
    339,
)
_XMP, _DNG, _PROFILE = 700, 50_706, 34_675
# Besides those above: the options of faxes, a palette, inks, JPEG's tables and how YCbCr is stored.
_NEEDED = frozenset(
    {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES}
    | {_PLANES, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT}
    | {292, 293, 320, 332, 347, 529, 530, 531, 532}
)
# None, three kinds of fax, LZW, JPEG, two names of deflate, PackBits.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32_773, 32_946})
_JPEG = 7
# Grey from white or from black, RGB, palette, CMYK, YCbCr.
_PHOTOMETRICS = frozenset({0, 1, 2, 3, 5, 6})
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_INTEGERS = {1: "B", 3: "H", 4: "I"}


class Entry(NamedTuple):
    """An entry of a directory: where it stands, its type, how many values, and where these stand."""

    place: int
    kind: int
    number: int
    values: int


class Directory:
    """The entries of one page by their tags; the first of each."""

    def __init__(self, content: bytes, start: int) -> None:
        self.endian = "<" if content[:2] == b"II" else ">"
        self.content, self.start = content, start
        if start + 2 > len(content):
            raise damaged()
        (number,) = struct.unpack_from(f"{self.endian}H", content, start)
        self.end = start + 2 + 12 * number
        if number > MAX_TAGS:
            raise too_costly(f"more than {MAX_TAGS} tags")
        if self.end > len(content):
            raise damaged()
        self.entries: dict[int, Entry] = {}
        for place in range(start + 2, self.end, 12):
            tag, kind, count, value = struct.unpack_from(f"{self.endian}HHII", content, place)
            within = count * _SIZES.get(kind, 8) <= 4
            self.entries.setdefault(tag, Entry(place, kind, count, place + 8 if within else value))

    @property
    def next_page(self) -> int:
        """Where the next directory stands; 0: there is none."""
        if self.end + 4 > len(self.content):
            return 0
        return int(struct.unpack_from(f"{self.endian}I", self.content, self.end)[0])

    def num_bytes(self, tag: int) -> int:
        """Length of a tag's values; 0 if it is missing."""
        entry = self.entries.get(tag)
        return entry.number * _SIZES.get(entry.kind, 8) if entry else 0

    def numbers(self, tag: int, default: int, most: int = 1) -> tuple[int, ...]:
        """A tag's first `most` values.

        Raises:
            Refused: truncated_image, they are no whole numbers or lie outside the file.
        """
        entry = self.entries.get(tag)
        if entry is None:
            return (default,)
        number, form = min(entry.number, most), _INTEGERS.get(entry.kind)
        if form is None or not number or entry.values + number * _SIZES[entry.kind] > len(self.content):
            raise damaged()
        return struct.unpack_from(f"{self.endian}{number}{form}", self.content, entry.values)

    def block(self, tag: int, limit: int) -> bytes | None:
        """A tag's bytes; None if it is missing, too long or cut."""
        entry, size = self.entries.get(tag), self.num_bytes(tag)
        if entry is None or size > limit or entry.values + size > len(self.content):
            return None
        return self.content[entry.values : entry.values + size]


def read(content: bytes, max_pixels: int) -> Plain:
    """See `containers.plain`."""
    if len(content) < 8:
        raise damaged()
    page = Directory(content, struct.unpack_from("<I" if content[:2] == b"II" else ">I", content, 4)[0])
    if _is_preview(page) or _DNG in page.entries:
        raise unsupported("a TIFF that is a camera's raw file")
    (width,), (height,) = page.numbers(_WIDTH, 0), page.numbers(_HEIGHT, 0)
    check_size(width, height, max_pixels)
    _check_kind(page)
    _check_strips(page, width, height, max_pixels)
    _check_pages(page)
    turned = page.numbers(_ORIENTATION, 0)[0] if _ORIENTATION in page.entries else None
    upright = orientation(None, page.block(_XMP, MAX_BYTES)) if turned is None else turned
    return Plain(
        "TIFF",
        _with_needed_tags(page),
        upright if 1 <= upright <= 8 else 1,
        page.block(_PROFILE, MAX_PROFILE_BYTES),
    )


def _is_preview(page: Directory) -> bool:
    """Whether a page is another one in fewer pixels."""
    return bool(page.numbers(_KIND, 0)[0] & 1) or page.numbers(_OLD_KIND, 1)[0] == 2


def _check_kind(page: Directory) -> None:
    """Refuse what is not 1 to 8 bits, or 16, of whole numbers in a common form."""
    compression, photometric = page.numbers(_COMPRESSION, 1)[0], page.numbers(_PHOTOMETRIC, 0)[0]
    bits = set(page.numbers(_BITS, 1, most=6))
    if compression not in _COMPRESSIONS:
        raise unsupported("a TIFF of this compression")
    if photometric not in _PHOTOMETRICS or set(page.numbers(_FORMAT, 1, most=6)) != {1}:
        raise unsupported("a TIFF of these colours")
    if not bits <= {1, 2, 4, 8, 16} or len(bits) != 1 or (photometric == 0 and bits == {16}):
        raise unsupported("a TIFF of these bits")


def _check_strips(page: Directory, width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture whose strips or tiles are not as many as its size asks for."""
    is_tiled = not page.entries.keys().isdisjoint((_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES))
    if is_tiled and not page.entries.keys().isdisjoint((_STRIPS, _STRIP_BYTES)):
        raise damaged()
    if is_tiled:
        (tile_width,), (tile_height,) = page.numbers(_TILE_WIDTH, 0), page.numbers(_TILE_HEIGHT, 0)
    else:
        tile_width, tile_height = width, min(page.numbers(_ROWS, height)[0], height)
    check_size(tile_width, tile_height, max_pixels)
    planes = page.numbers(_SAMPLES, 1)[0] if page.numbers(_PLANES, 1)[0] == 2 else 1
    expected = -(-width // tile_width) * -(-height // tile_height) * planes
    if expected > MAX_STRIPS:
        raise too_costly(f"more than {MAX_STRIPS} strips")
    entry = page.entries.get(_TILES if is_tiled else _STRIPS)
    if entry is None or entry.number != expected:
        raise damaged()
    is_jpeg = page.numbers(_COMPRESSION, 1)[0] == _JPEG
    if is_jpeg and page.content.count(b"\xff\xda") > max(MAX_SCANS, 4 * expected):
        raise too_costly(f"more than {MAX_SCANS} scans")


def _check_pages(page: Directory) -> None:
    """Refuse a second page that is not the first one in fewer pixels."""
    seen = {page.start}
    for _ in range(MAX_PAGES):
        start = page.next_page
        if start == 0 or start in seen or start + 6 > len(page.content):
            return
        seen.add(start)
        page = Directory(page.content, start)
        if not _is_preview(page):
            break
    raise animated()


def _with_needed_tags(page: Directory) -> bytes:
    """The file with a directory of the tags that the pixels need, and no next one."""
    kept = sorted((tag, entry) for tag, entry in page.entries.items() if tag in _NEEDED)
    if sum(page.num_bytes(tag) for tag, _ in kept) > len(page.content):
        raise damaged()
    table = b"".join(page.content[entry.place : entry.place + 12] for _, entry in kept)
    directory = struct.pack(f"{page.endian}H", len(kept)) + table + bytes(4)
    after = page.start + len(directory)
    return page.content[: page.start] + directory + page.content[after:]
