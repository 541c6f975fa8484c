"""JPEG: the segments that the pixels need, at most so many markers and scans, and whether data is missing.

ITU-T T.81, annex B, says what a file is made of.
"""

import functools
import io
import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from PIL import Image

from darkroom.download.containers.base import (
    MAX_PROFILE_BYTES,
    Plain,
    always_whole,
    check_size,
    damaged,
    too_costly,
    unsupported,
)
from darkroom.download.containers.orientation import orientation

MAX_MARKERS = 500_000
MAX_SCANS = 100

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_BASELINE, _SEQUENTIAL, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_ARITHMETIC, _ARITHMETIC_PROGRESSIVE = 0xC9, 0xCA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODED = frozenset({_BASELINE, _SEQUENTIAL, _PROGRESSIVE, _ARITHMETIC, _ARITHMETIC_PROGRESSIVE})
# Huffman tables, arithmetic conditioning, quantization tables, restart interval.
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
# A byte of 255 in the data is followed by 0; restart markers are part of the data.
_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_END_OF_DATA = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
# Bits that no Huffman table makes nothing of.
_FILLER = bytes(range(1, 251)) * 16


class Segment(NamedTuple):
    """A marker, where its segment begins (at the 255) and ends, and where its content begins."""

    marker: int
    start: int
    content: int
    end: int


def read(content: bytes, max_pixels: int) -> Plain:
    """See `containers.plain`."""
    found = _Found(max_pixels)
    pieces: list[bytes | memoryview] = [b"\xff\xd8"]
    view = memoryview(content)
    for segment in _segments(content):
        if segment.marker == _EOI:
            pieces.append(b"\xff\xd9")
            found.ended = True
        elif found.needs(segment, content):
            pieces.append(view[segment.start : segment.end])
            if segment.marker == _SOS:
                found.end_of_data = sum(map(len, pieces))
    found.check()
    plain = b"".join(pieces)
    return Plain("JPEG", plain, orientation(found.exif, found.xmp), found.profile, found.test_of(plain))


def _segments(content: bytes) -> Iterator[Segment]:
    """Every segment up to the end of the picture; a scan's includes its data."""
    place = 2
    for _ in range(MAX_MARKERS):
        match = _MARKER.search(content, place)
        if match is None:
            return
        marker, start, place = match[1][0], match.start(), match.end()
        if marker in _WITHOUT_LENGTH:
            continue
        if marker == _EOI:
            yield Segment(marker, start, place, place)
            return
        end = place + int.from_bytes(content[place : place + 2], "big")
        if marker == _SOI or marker < 0xC0 or end < place + 2 or end > len(content):
            raise damaged()
        if marker == _SOS:
            following = _END_OF_DATA.search(content, end)
            yield Segment(marker, start, place + 2, following.start() if following else len(content))
            place = following.start() if following else len(content)
        else:
            yield Segment(marker, start, place + 2, end)
            place = end
    raise too_costly(f"more than {MAX_MARKERS} markers")


class _Found:
    """What is known of a picture, segment by segment."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self.num_scans = self.end_of_data = 0
        self.exif: bytes | None = None
        self.xmp: bytes | None = None
        self.profile: bytes | None = None
        self.ended = False
        self._frame = 0
        self._profile_pieces: list[bytes] = []
        # Component -> the lowest bit that is known of each coefficient; 99: nothing is.
        self._lowest_bits: dict[int, list[int]] = {}

    def needs(self, segment: Segment, content: bytes) -> bool:
        """Look at a segment; whether the pixels need it."""
        body = content[segment.content : min(segment.end, segment.content + 65_533)]
        marker = segment.marker
        if marker in _FRAMES:
            self._see_frame(marker, body)
        elif marker == _SOS:
            self._see_scan(body)
        elif marker == _APP1:
            if self.exif is None and body.startswith(b"Exif\0\0"):
                self.exif = body
            elif self.xmp is None and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
                self.xmp = body
            return False
        elif marker == _APP2:
            if not self._frame and body.startswith(b"ICC_PROFILE\0") and len(self._profile_pieces) < 256:
                self._profile_pieces.append(body)
            return False
        elif marker == _APP0:
            return body.startswith(b"JFIF\0")
        elif marker == _APP14:
            return body.startswith(b"Adobe")
        else:
            return marker in _TABLES
        return True

    def _see_frame(self, marker: int, body: bytes) -> None:
        if self._frame or len(body) < 6:
            raise damaged()
        if marker not in _DECODED or body[0] != 8:
            raise unsupported("a JPEG that is lossless, hierarchical or of more than 8 bits")
        height, width, number = struct.unpack_from(">HHB", body, 1)
        if height == 0:
            raise unsupported("a JPEG whose height follows its first scan (DNL)")
        check_size(width, height, self._max_pixels)
        if number not in (1, 3, 4) or len(body) != 6 + 3 * number:
            raise unsupported(f"a JPEG of {number} components") if number else damaged()
        self._frame = marker
        self._lowest_bits = {body[6 + 3 * i]: [99] * 64 for i in range(number)}
        self.profile = self._joined_profile()

    def _joined_profile(self) -> bytes | None:
        pieces = sorted(self._profile_pieces)
        # Byte 13 says how many there are.
        whole = bool(pieces) and len(pieces[0]) > 13 and pieces[0][13] == len(pieces)
        if not whole or sum(map(len, pieces)) > MAX_PROFILE_BYTES:
            return None
        return b"".join(piece[14:] for piece in pieces)

    def _see_scan(self, body: bytes) -> None:
        self.num_scans += 1
        if self.num_scans > MAX_SCANS:
            raise too_costly(f"more than {MAX_SCANS} scans")
        number = body[0] if body else 0
        if not self._frame or not 1 <= number <= 4 or len(body) < 4 + 2 * number:
            raise damaged()
        first, last, bits = body[1 + 2 * number : 4 + 2 * number]
        if not self._is_progressive:
            first, last, bits = 0, 63, 0
        if last > 63:
            raise damaged()
        for component in body[1 : 1 + 2 * number : 2]:
            if component not in self._lowest_bits:
                raise damaged()
            for coefficient in range(first, last + 1):
                self._lowest_bits[component][coefficient] = bits & 15

    @property
    def _is_progressive(self) -> bool:
        return self._frame in (_PROGRESSIVE, _ARITHMETIC_PROGRESSIVE)

    def check(self) -> None:
        """Refuse a picture whose scans do not make it up."""
        if not self.num_scans:
            raise damaged()
        if self.ended and any(map(any, self._lowest_bits.values())):
            raise damaged()

    def test_of(self, plain: bytes) -> Callable[[Image.Image], bool]:
        """What tells whether the last scan's data was whole; see `_is_whole`."""
        if not self.ended or self._is_progressive:
            return always_whole
        return functools.partial(_is_whole, plain, self.end_of_data, self.num_scans > 1)


def _is_whole(plain: bytes, end_of_data: int, is_unsure: bool, image: Image.Image) -> bool:
    """Whether the last scan's data reached the last pixel, which a decoder does not say.

    Blocks without data come out as mid-grey. So where the last pixel is, the picture is decoded again with more
    data put behind the scan's: that changes nothing if there was enough.
    """
    corner = image.getpixel((image.width - 1, image.height - 1))
    values = corner if isinstance(corner, tuple) else (corner,)
    if not is_unsure and any(value is None or abs(value - 128) > 1 for value in values):
        return True
    filled = plain[:end_of_data] + _FILLER + plain[end_of_data:]
    return _small(plain) == _small(filled)


def _small(content: bytes) -> bytes:
    """The pixels at an eighth of the size."""
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        image.draft(None, (-(-image.width // 8), -(-image.height // 8)))
        return image.tobytes()
