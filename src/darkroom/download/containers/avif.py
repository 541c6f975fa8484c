"""AVIF: whether a file is one, how large what describes it is, and no EXIF.

The boxes are those of ISO/IEC 14496-12. A reader turns an AVIF as its own properties say, not as EXIF does.
"""

from collections.abc import Iterator

from darkroom.download.containers.base import Plain, damaged, too_costly

MAX_BOXES = 1_000
MAX_META_BYTES = 2_000_000
"""Longest description of the items; a profile of 1 MB is part of it."""

_BRANDS = (b"avif", b"avis")
_MAJOR = (*_BRANDS, b"mif1", b"msf1")


def is_avif(content: bytes) -> bool:
    """Whether the first box names the format; others of its family, such as HEIC, are not decoded."""
    size = int.from_bytes(content[:4], "big")
    brands = [content[place : place + 4] for place in (8, *range(16, min(size, 1024), 4))]
    return content[4:8] == b"ftyp" and brands[0] in _MAJOR and any(brand in brands for brand in _BRANDS)


def read(content: bytes, max_pixels: int) -> Plain:
    """See `containers.plain`; how many pixels and frames there are only the decoder knows."""
    pieces, is_described = [], False
    for name, start, end in _boxes(content):
        if name == b"meta":
            is_described = True
            if end - start > MAX_META_BYTES:
                raise too_costly(f"a description of more than {MAX_META_BYTES} bytes")
            # An item of a type that nobody knows is passed over.
            pieces.append(content[start:end].replace(b"Exif", b"none"))
        else:
            pieces.append(content[start:end])
    if not is_described:
        raise damaged()
    return Plain("AVIF", b"".join(pieces))


def _boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of every box; the last may be cut."""
    place = 0
    for _ in range(MAX_BOXES):
        if place + 8 > len(content):
            return
        size, name = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        if size == 1:
            size = int.from_bytes(content[place + 8 : place + 16], "big")
        elif size == 0:
            size = len(content) - place
        if size < 8:
            raise damaged()
        yield name, place, min(place + size, len(content))
        place += size
    raise too_costly(f"more than {MAX_BOXES} boxes")
