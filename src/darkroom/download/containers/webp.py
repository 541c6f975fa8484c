"""WebP: the chunks that the pixels need, at most so many of them, and one frame.

The chunks are those of RFC 9649.
"""

import struct
from collections.abc import Iterator

from darkroom.download.containers.base import (
    MAX_PROFILE_BYTES,
    Plain,
    animated,
    check_size,
    damaged,
    too_costly,
)
from darkroom.download.containers.orientation import MAX_BYTES, orientation

MAX_CHUNKS = 10_000

_LOSSY, _LOSSLESS, _EXTENDED, _FRAME = b"VP8 ", b"VP8L", b"VP8X", b"ANMF"
_NEEDED = frozenset({_LOSSY, _LOSSLESS, _EXTENDED, _FRAME, b"ALPH", b"ANIM"})
# Of VP8X's flags: a profile, EXIF, XMP.
_METADATA = 0x20 | 0x08 | 0x04


def read(content: bytes, max_pixels: int) -> Plain:
    """See `containers.plain`."""
    size: tuple[int, int] | None = None
    told: dict[bytes, bytes] = {}
    pieces: list[bytes] = []
    num_frames = 0
    for name, start, end in _chunks(content):
        if size is None:
            size = _size(name, content[start : start + 10])
            check_size(*size, max_pixels)
        if name not in _NEEDED:
            limit = MAX_PROFILE_BYTES if name == b"ICCP" else MAX_BYTES
            if name in (b"ICCP", b"EXIF", b"XMP ") and end - start <= limit and end <= len(content):
                told.setdefault(name, content[start:end])
            continue
        num_frames += name == _FRAME
        if num_frames > 1:
            raise animated()
        if end > len(content) or (name == _EXTENDED and end - start < 10):
            raise damaged()
        body = content[start:end]
        if name == _EXTENDED:
            body = bytes([body[0] & ~_METADATA]) + body[1:]
        pieces.append(name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2))
    if size is None:
        raise damaged()
    joined = b"WEBP" + b"".join(pieces)
    plain = b"RIFF" + struct.pack("<I", len(joined)) + joined
    return Plain("WEBP", plain, orientation(told.get(b"EXIF"), told.get(b"XMP ")), told.get(b"ICCP"))


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of every chunk; the last may end behind the file's end."""
    place, last = 12, min(len(content), 8 + int.from_bytes(content[4:8], "little"))
    for _ in range(MAX_CHUNKS):
        if place + 8 > last:
            return
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        yield content[place : place + 4], place + 8, place + 8 + size
        place += 8 + size + size % 2
    raise too_costly(f"more than {MAX_CHUNKS} chunks")


def _size(name: bytes, head: bytes) -> tuple[int, int]:
    """Width and height, px, of the first chunk's first ten bytes."""
    if name not in (_LOSSY, _LOSSLESS, _EXTENDED):
        raise damaged()
    if name == _LOSSLESS:
        if len(head) < 5 or head[0] != 0x2F:
            raise damaged()
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if len(head) < 10:
        raise damaged()
    if name == _EXTENDED:
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if head[3:6] != b"\x9d\x01\x2a":
        raise damaged()
    width, height = struct.unpack_from("<HH", head, 6)
    return width & 0x3FFF, height & 0x3FFF
