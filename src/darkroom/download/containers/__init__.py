"""The files that pictures come in: each format's reader walks a file's parts before any decoder sees it.

What a reader hands on holds what the pixels need and nothing else: no metadata, no second frame, no part whose
checksum is wrong. So what decoders do with metadata, which is where most of their faults are, cannot be reached.
"""

import struct
from collections.abc import Callable

from darkroom.download import status as words
from darkroom.download.containers import avif, bmp, gif, jpeg, png, tiff, webp
from darkroom.download.containers.base import Plain, damaged
from darkroom.download.status import Refused

__all__ = ["Plain", "plain"]

_READERS: tuple[tuple[tuple[bytes, ...], Callable[[bytes, int], Plain]], ...] = (
    ((b"\xff\xd8\xff",), jpeg.read),
    ((b"\x89PNG\r\n\x1a\n",), png.read),
    ((b"GIF87a", b"GIF89a"), gif.read),
    ((b"II*\0", b"MM\0*"), tiff.read),
    ((b"BM",), bmp.read),
)
_OTHERS: tuple[bytes, ...] = (
    b"II+\0",
    b"MM\0+",
    b"\0\0\1\0",
    b"\0\0\2\0",
    b"8BPS",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
)
_OTHERS += (b"\xff\x0a", b"\0\0\0\x0cJXL ", b"%!PS", b"qoif", b"DDS ")


def plain(content: bytes, max_pixels: int) -> Plain:
    """What the pixels of a picture need, of a file of any format.

    Raises:
        Refused: empty_body, not_an_image, unsupported_image, too_many_pixels, animated_image, truncated_image or
            too_costly.
    """
    try:
        return _plain(content, max_pixels)
    except (IndexError, struct.error) as error:  # a reader went beyond the end
        raise damaged() from error


def _plain(content: bytes, max_pixels: int) -> Plain:
    if not content:
        raise Refused(words.EMPTY_BODY, "the server sent an empty body")
    for beginnings, read in _READERS:
        if content.startswith(beginnings):
            return read(content, max_pixels)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return webp.read(content, max_pixels)
    if avif.is_avif(content):
        return avif.read(content, max_pixels)
    head = content[:1024]
    vector = head.lstrip().startswith((b"<svg", b"<?xml")) and b"<svg" in head
    if vector or head[4:8] == b"ftyp" or head.startswith(_OTHERS):
        raise Refused(
            words.UNSUPPORTED_IMAGE, "only JPEG, PNG, WebP, GIF, TIFF, BMP and AVIF pictures are decoded"
        )
    raise Refused(words.NOT_AN_IMAGE, "the body does not begin like a picture")
