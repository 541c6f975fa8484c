"""BMP: the kinds of Windows' bitmaps that are common, and how large those packed in runs may be."""

import struct

from darkroom.download.containers.base import Plain, check_size, damaged, too_costly, unsupported

MAX_RUN_PIXELS = 4_000_000
"""Runs are undone pixel by pixel, in Python."""
MAX_RUN_BYTES = 4_000_000

_OLD_HEADER = 12
_HEADERS = frozenset({_OLD_HEADER, 40, 52, 56, 64, 108, 124})
_BITS = frozenset({1, 4, 8, 16, 24, 32})
_NONE, _RUNS_OF_8, _RUNS_OF_4, _MASKS = range(4)


def read(content: bytes, max_pixels: int) -> Plain:
    """See `containers.plain`."""
    if len(content) < 26:
        raise damaged()
    start, header = struct.unpack_from("<II", content, 10)
    if header not in _HEADERS or (header > _OLD_HEADER and len(content) < 54):
        raise unsupported("a BMP with this header")
    if header == _OLD_HEADER:
        width, height, _, bits = struct.unpack_from("<HHHH", content, 18)
        compression = _NONE
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", content, 18)
    # A negative height says that the first row is the upper one.
    check_size(width, abs(height), max_pixels)
    if bits not in _BITS or compression not in (_NONE, _RUNS_OF_8, _RUNS_OF_4, _MASKS):
        raise unsupported("a BMP of this kind")
    is_large = width * abs(height) > MAX_RUN_PIXELS or len(content) - start > MAX_RUN_BYTES
    if compression in (_RUNS_OF_8, _RUNS_OF_4) and is_large:
        raise too_costly(f"runs of more than {MAX_RUN_PIXELS} pixels or bytes")
    return Plain("BMP", content)
