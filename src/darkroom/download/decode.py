"""From downloaded bytes to the stored JPEG: checked before decoding, upright, 8-bit sRGB, bounded in size.

The order: what of the file the pixels need, header (dimensions, frames), decode, 16 to 8 bit, reduce, colour
profile to sRGB, transparency over white, orientation, encode. Reducing comes before colour conversion because that
is cheaper by the ratio of the areas and filters the same values.

It runs in a process of its own, see `worker`, and so imports nothing that is large.
"""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from PIL import AvifImagePlugin, Image, ImageCms

from darkroom.download import status as words
from darkroom.download.containers import Plain, plain
from darkroom.download.containers.base import animated, check_size, damaged
from darkroom.download.containers.orientation import orientation
from darkroom.download.profile import to_srgb
from darkroom.download.status import Refused

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the stored picture upright; 5 to 8 swap width and height."""

_WITH_PROFILE = ("L", "RGB", "CMYK")
_HIGH_BYTE = [value >> 8 for value in range(65_536)]
# The processor time of a picture is bounded, and counts the threads together.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


class Wanted(NamedTuple):
    """Of the `download` section what decoding depends on."""

    max_pixels: int
    max_side_px: int
    jpeg_quality: int


class Decoded(NamedTuple):
    """A picture ready to be stored. Sizes are of the upright picture, px; the original ones before reduction."""

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int


def decode(content: bytes, wanted: Wanted) -> Decoded:
    """Decode, normalise and encode one picture.

    Raises:
        Refused: empty_body, not_an_image, unsupported_image, too_many_pixels, animated_image, truncated_image or
            too_costly.
    """
    file = plain(content, wanted.max_pixels)
    with _open(file, wanted.max_pixels) as image:
        width, height = image.size
        turn = file.orientation
        if file.format == "AVIF":
            # Of the properties that turn it Pillow makes EXIF; the file's own EXIF does not come so far.
            turn = orientation(image.info.get("exif"), None)
        reduced = _reduce(image, file, wanted.max_side_px)
    # Where nothing was to be reduced they are the same; otherwise some decoders are large.
    del image
    upright = _to_rgb(reduced, file.profile)
    if turn in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[turn])
    if turn >= 5:
        width, height = height, width
    return Decoded(_encode(upright, wanted.jpeg_quality), *upright.size, width, height)


@contextmanager
def _open(file: Plain, max_pixels: int) -> Iterator[Image.Image]:
    """Read the header only, and turn what goes wrong from there to the end of the block into Refused."""
    limit = Image.MAX_IMAGE_PIXELS
    # Pillow refuses above twice its limit, also where a format allocates before we could look
    # (WebP's canvas, frames of a GIF), so its limit follows ours while this picture is open.
    Image.MAX_IMAGE_PIXELS = max_pixels / 2  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about files say what the row's status says
            with Image.open(io.BytesIO(file.content), formats=(file.format,)) as image:
                # Of an AVIF only the decoder knows how many there are.
                if file.format == "AVIF" and getattr(image, "is_animated", False):
                    raise animated()
                check_size(*image.size, max_pixels)
                yield image
    except Image.DecompressionBombError as error:
        message = f"the header announces more than max_pixels = {max_pixels}"
        raise Refused(words.TOO_MANY_PIXELS, message) from error
    except (Refused, MemoryError):
        raise
    except Exception as error:  # Pillow's parsers raise nearly anything on malformed bytes
        raise damaged() from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _reduce(image: Image.Image, file: Plain, max_side_px: int) -> Image.Image:
    """Decode to L, RGB, RGBA or CMYK, 8 bit, with the longest side at most `max_side_px`."""
    width, height = image.size
    scale = max_side_px / max(width, height)
    size = (width, height)
    if scale < 1:
        size = (max(1, math.floor(width * scale + 0.5)), max(1, math.floor(height * scale + 0.5)))
    box: tuple[float, float, float, float] = (0.0, 0.0, float(width), float(height))
    if scale < 1:
        # libjpeg decodes at 1/2, 1/4 or 1/8, for less time. At a half 1.75 times the final size is as near to the
        # average of the area as all pixels are, at a quarter and an eighth twice the size is.
        least = 1.75 if scale > 1 / 7 else 2.0
        drafted = image.draft(None, (math.ceil(least * size[0]), math.ceil(least * size[1])))  # type: ignore[arg-type]
        box = drafted[1] if drafted is not None else box
    image.load()
    if not file.is_whole(image):
        raise damaged()
    eight_bit = _eight_bit(image)
    if scale >= 1:
        return eight_bit
    # Near to the average of the area, in a third of the time of Lanczos' filter; of a large reduction the first
    # whole step is that average. Pillow filters RGBA with premultiplied alpha, so hidden colours do not bleed in.
    return eight_bit.resize(size, Image.Resampling.HAMMING, box=box, reducing_gap=3.0)


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255; the high byte is what it keeps of 16-bit RGB.
        values = image.convert("I")
        grey = values.point(_HIGH_BYTE, "L")
        transparent = image.info.get("transparency")
        if not isinstance(transparent, int):
            return grey
        alpha = values.point([0 if value == transparent else 255 for value in range(65_536)], "L")
        return Image.merge("RGBA", (grey, grey, grey, alpha))
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        # Windows' programs leave the fourth byte zero, which is no alpha then.
        return image.convert("RGB")
    if image.mode in ("RGBA", *_WITH_PROFILE) and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """To sRGB: colours through the profile when it fits, transparency composited over white."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colours = image.convert("RGB") if alpha is not None else image
    convert = to_srgb(profile, colours.mode) if profile else None
    if convert is not None:
        colours = ImageCms.applyTransform(colours, convert) or colours
    colours = colours.convert("RGB")
    if alpha is None:
        return colours
    white = Image.new("RGB", colours.size, (255, 255, 255))
    return Image.composite(colours, white, alpha)


def _encode(image: Image.Image, quality: int) -> bytes:
    """The same pixels give the same bytes: no metadata, and no chroma subsampling to blur letters."""
    image.info.clear()
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()
