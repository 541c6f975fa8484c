"""What readers of all formats share: what they hand on, and how they refuse."""

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from darkroom.download import status as words
from darkroom.download.status import Refused

MAX_SIDE_PX = 65_535
"""Longest side, as the formats of cameras have it. What a filter needs grows with the side, not with the area."""
MAX_PROFILE_BYTES = 1_000_000
"""Longest ICC profile that is looked at; those of printers have 600 kB."""


def always_whole(image: Image.Image) -> bool:
    """Of a format whose decoder says so where pixels are missing."""
    return True


class Plain(NamedTuple):
    """A picture's file without what its pixels do not need.

    Args:
        format: Pillow's name for it.
        content: a file of that format.
        orientation: how it is to be turned upright, 1 to 8 as in EXIF.
        profile: its ICC profile, unchecked; None where it has none or too long a one.
        is_whole: asked with the decoded picture, whether the file had data for all of it. Some decoders leave
            pixels black or grey, and say nothing.
    """

    format: str
    content: bytes
    orientation: int = 1
    profile: bytes | None = None
    is_whole: Callable[[Image.Image], bool] = always_whole


def damaged() -> Refused:
    """One sentence whatever is wrong: what a decoder says depends on its version."""
    return Refused(words.TRUNCATED_IMAGE, "the picture is cut short or damaged")


def too_costly(what: str) -> Refused:
    """For a file whose honest siblings never have so many or so large parts."""
    return Refused(words.TOO_COSTLY, f"the file has {what}")


def animated() -> Refused:
    """For more than one frame."""
    return Refused(words.ANIMATED_IMAGE, "the picture has more than one frame or page")


def unsupported(what: str) -> Refused:
    """For a kind of a format that no decoder here reads."""
    return Refused(words.UNSUPPORTED_IMAGE, f"{what} is not decoded")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse what a header announces too much of, before anything is decoded."""
    if width < 1 or height < 1:
        raise damaged()
    if width * height > max_pixels:
        raise Refused(words.TOO_MANY_PIXELS, f"the header announces more than max_pixels = {max_pixels}")
    if max(width, height) > MAX_SIDE_PX:
        raise Refused(words.TOO_MANY_PIXELS, f"the header announces a side above {MAX_SIDE_PX} px")
