"""PNG: the chunks that the pixels need, with their checksums, at most so many of them; no frames of an APNG.

The chunks are those of the PNG specification, third edition (W3C, 2025).
"""

import functools
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from darkroom.download.containers import orientation
from darkroom.download.containers.base import (
    MAX_PROFILE_BYTES,
    Plain,
    animated,
    check_size,
    damaged,
    too_costly,
)

MAX_CHUNKS = 100_000

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = (b"IHDR", b"PLTE", b"tRNS")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7's passes: first column and row, and steps.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_BLOCK = 1 << 20


class Chunk(NamedTuple):
    """A chunk's name and content, and whether its checksum is right."""

    name: bytes
    content: memoryview
    is_sound: bool


def read(content: bytes, max_pixels: int) -> Plain:
    """See `containers.plain`."""
    needed: dict[bytes, bytes] = {}
    told: dict[bytes, bytes] = {}
    data: list[memoryview] = []
    is_after_data = False
    for chunk in _chunks(content):
        if not needed:
            _check_header(chunk, max_pixels)
        if chunk.name == b"IDAT":
            if is_after_data:
                continue
            if not chunk.is_sound:
                raise damaged()
            data.append(chunk.content)
            continue
        is_after_data = bool(data)
        if chunk.name in _NEEDED and not data:
            if not chunk.is_sound or (needed and chunk.name == b"IHDR"):
                raise damaged()
            needed[chunk.name] = bytes(chunk.content)
        elif chunk.is_sound:
            _keep(chunk, told, is_after_data)
    if not data:
        raise damaged()
    if _is_animated(told):
        raise animated()
    joined = b"".join(data)
    pieces = [*needed.items(), (b"IDAT", joined), (b"IEND", b"")]
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", needed[b"IHDR"][:13])
    num_bytes = _num_bytes(width, height, depth * _CHANNELS[colour], interlace)
    return Plain(
        "PNG",
        _SIGNATURE + b"".join(_packed(name, piece) for name, piece in pieces),
        orientation.orientation(told.get(b"eXIf"), told.get(b"xmp")),
        told.get(b"iCCP"),
        functools.partial(_is_whole, joined, num_bytes, interlace),
    )


def _chunks(content: bytes) -> Iterator[Chunk]:
    """Every whole chunk up to IEND."""
    view, place = memoryview(content), len(_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        name, start = content[place + 4 : place + 8], place + 8
        end = start + int.from_bytes(content[place : place + 4], "big")
        if len(name) < 4 or not name.isalnum() or end + 4 > len(content):
            if name == b"IDAT":
                raise damaged()
            return
        crc = int.from_bytes(content[end : end + 4], "big")
        yield Chunk(name, view[start:end], zlib.crc32(view[place + 4 : end]) == crc)
        if name == b"IEND":
            return
        place = end + 4
    raise too_costly(f"more than {MAX_CHUNKS} chunks")


def _check_header(chunk: Chunk, max_pixels: int) -> None:
    if chunk.name != b"IHDR" or not chunk.is_sound or len(chunk.content) < 13:
        raise damaged()
    width, height, _, colour = struct.unpack_from(">IIBB", chunk.content)
    check_size(width, height, max_pixels)
    if colour not in _CHANNELS:
        raise damaged()


def _keep(chunk: Chunk, told: dict[bytes, bytes], is_after_data: bool) -> None:
    """Keep what metadata says of colours, frames and orientation; the first of each."""
    name, content = chunk.name, chunk.content
    if name == b"iCCP" and not is_after_data and name not in told:
        title, _, packed = bytes(content[: MAX_PROFILE_BYTES + 81]).partition(b"\0")
        profile = _inflated(packed[1:], MAX_PROFILE_BYTES) if packed[:1] == b"\0" else None
        if profile and len(title) < 80:
            told[name] = profile
    elif name == b"eXIf":
        told.setdefault(name, bytes(content[: orientation.MAX_BYTES]))
    elif name in (b"acTL", b"fcTL") and not is_after_data:
        told.setdefault(name, bytes(content[:8]))
    elif name in _TEXTS:
        key, _, rest = bytes(content[: orientation.MAX_BYTES]).partition(b"\0")
        if key == b"XML:com.adobe.xmp":
            told.setdefault(b"xmp", _text(name, rest))
        elif key == b"Raw profile type exif" and b"eXIf" not in told:
            told[b"eXIf"] = _unhexed(_text(name, rest))


def _text(name: bytes, rest: bytes) -> bytes:
    """The text of a chunk, behind its keyword; empty where it is damaged or too long."""
    is_packed = name == b"zTXt"
    if name == b"zTXt":
        rest = rest[1:]
    elif name == b"iTXt":
        is_packed = rest[:1] == b"\1"
        # Two bytes of flags, a language and a translated keyword.
        rest = rest[2:].split(b"\0", 2)[-1]
    return _inflated(rest, orientation.MAX_BYTES) or b"" if is_packed else rest


def _inflated(packed: bytes, limit: int) -> bytes | None:
    """What zlib packed; None where that is damaged or above `limit` bytes."""
    unpack = zlib.decompressobj()
    try:
        found = unpack.decompress(packed, limit + 1)
    except zlib.error:
        return None
    return found if len(found) <= limit else None


def _unhexed(text: bytes) -> bytes:
    """ImageMagick's form of EXIF: a line break, a name, a length, then hex digits."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def _is_animated(told: dict[bytes, bytes]) -> bool:
    """Whether there is a frame besides the picture, which is the first frame where an fcTL stands before it."""
    number = int.from_bytes(told.get(b"acTL", b"")[:4], "big")
    return number > 1 or (number == 1 and b"fcTL" not in told)


def _packed(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))
    )


def _num_bytes(width: int, height: int, bits: int, interlace: int) -> int:
    """Bytes of all rows, each with the one that names its filter."""
    if not interlace:
        return height * (1 + (width * bits + 7) // 8)
    number = 0
    for x, y, step_x, step_y in _PASSES:
        columns, rows = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if columns > 0 and rows > 0:
            number += rows * (1 + (columns * bits + 7) // 8)
    return number


def _is_whole(data: bytes, num_bytes: int, interlace: int, image: Image.Image) -> bool:
    """Whether there were data for all rows. Pillow leaves the others zero, and says nothing."""
    last = image.crop((0, image.height - 1, *image.size)).tobytes()
    if not interlace and last.count(0) < len(last):
        return True
    unpack, left, rest = zlib.decompressobj(), num_bytes, data
    while left > 0 and rest and not unpack.eof:
        left -= len(unpack.decompress(rest, min(_BLOCK, left)))
        rest = unpack.unconsumed_tail
    return left <= 0
