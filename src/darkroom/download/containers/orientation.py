"""How a picture is to be turned upright, from the metadata that says so: EXIF, or XMP where that does not.

Of EXIF only the first directory's entry of that one tag is looked at.
"""

import re
import struct

MAX_BYTES = 1_000_000
"""Of longer metadata only so much is looked at; a JPEG's segment has at most 65,533 bytes."""

_TAG = 0x0112
_BYTE, _SHORT, _LONG = 1, 3, 4
_ENDIAN = {b"II*\0": "<", b"MM\0*": ">", b"MM*\0": ">", b"II\0*": "<"}
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """1 to 8; 1, which is upright, where nothing or something unknown is told."""
    found = _of_exif(exif[:MAX_BYTES]) if exif else None
    if found is None and xmp and (match := _IN_XMP.search(xmp[:MAX_BYTES])):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else 1


def _of_exif(block: bytes) -> int | None:
    """The value of the tag; None where the block has none, or is damaged before it."""
    for _ in range(2):
        block = block.removeprefix(b"Exif\0\0")
    endian = _ENDIAN.get(block[:4])
    if endian is None or len(block) < 8:
        return None
    (start,) = struct.unpack_from(f"{endian}I", block, 4)
    if start + 2 > len(block):
        return None
    (number,) = struct.unpack_from(f"{endian}H", block, start)
    for place in range(start + 2, min(start + 2 + 12 * number, len(block) - 11), 12):
        tag, kind, count = struct.unpack_from(f"{endian}HHI", block, place)
        if tag == _TAG:
            form = {_BYTE: "B", _SHORT: "H", _LONG: "I"}.get(kind)
            return int(struct.unpack_from(endian + form, block, place + 8)[0]) if form and count == 1 else 0
    return None
