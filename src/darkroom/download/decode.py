"""From downloaded bytes to the stored JPEG: checked before decoding, upright, 8-bit sRGB, bounded in size.

The order: signature, header (dimensions, frames), decode, 16 to 8 bit, reduce, colour profile to
sRGB, transparency over white, EXIF orientation, encode. Reducing comes before colour conversion
because that is cheaper by the ratio of the areas and filters the same values.
"""

import functools
import hashlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from darkroom.config.dataset import Download
from darkroom.download import status as words
from darkroom.download.status import Failure

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_OTHER_PICTURES = (b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"8BPS", b"\0\0\0\x0cjP  ", b"\xff\x0a", b"%!PS")
_ORIENTATION_TAG = 0x0112
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

_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_MAX_PROFILE_BYTES = 4_000_000
_log = logging.getLogger(__name__)


class Picture(NamedTuple):
    """A picture ready to be stored. Sizes are in pixels of the upright picture.

    `original_width` and `original_height` are those before reduction; `sha256` and `num_bytes` are
    of the bytes that were downloaded.
    """

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    sha256: str
    num_bytes: int


class Refused(Exception):
    """A picture that is not stored: a status and a sentence."""

    def __init__(self, status: str, error: str) -> None:
        self.status = status
        self.error = error
        super().__init__(f"{status}: {error}")


class Decoder:
    """img2dataset's resizer: a stream to (Picture, width, height, original size, error message).

    It runs in the thread that drives the download, one picture at a time.
    """

    def __init__(self, settings: Download) -> None:
        self._settings = settings

    def __call__(
        self, stream: io.BytesIO, bbox_list: Any = None
    ) -> tuple[Picture | None, int | None, int | None, int | None, int | None, str | None]:
        """Never raises: a failure is returned as a `Failure` message."""
        content = stream.getvalue()
        try:
            picture = decode(content, self._settings)
        except Refused as refused:
            failure = Failure(refused.status, refused.error, _sha256(content), len(content))
        except Exception as error:
            failure = Failure(
                words.INTERNAL_ERROR,
                f"unexpected {type(error).__name__} while decoding",
                _sha256(content),
                len(content),
            )
            _log.exception("unexpected failure while decoding the picture with sha256 %s", failure.sha256)
        else:
            return picture, *picture[1:5], None
        return None, None, None, None, None, failure.to_message()


def decode(content: bytes, settings: Download) -> Picture:
    """Decode, normalise and encode one picture.

    Raises:
        Refused: empty_body, not_an_image, unsupported_image, too_many_pixels, animated_image or
            truncated_image.
    """
    _check_signature(content)
    with _open(content, settings.max_pixels) as image:
        width, height = image.size
        # A JPEG with several frames (MPO) is one photograph and its previews, not an animation.
        if image.format not in ("JPEG", "MPO") and getattr(image, "is_animated", False):
            raise Refused(words.ANIMATED_IMAGE, "the picture has more than one frame")
        orientation = _orientation(image)
        profile = image.info.get("icc_profile")
        reduced = _reduce(image, settings.max_side_px)
    upright = _to_srgb(reduced, profile)
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
    if orientation >= 5:
        width, height = height, width
    return Picture(
        _encode(upright, settings.jpeg_quality),
        *upright.size,
        width,
        height,
        _sha256(content),
        len(content),
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_signature(content: bytes) -> None:
    """Refuse what does not begin like one of the formats we decode."""
    if not content:
        raise Refused(words.EMPTY_BODY, "the server sent an empty body")
    head = content[:1024]
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    if webp or head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")):
        return
    vector = head.lstrip().startswith((b"<svg", b"<?xml")) and b"<svg" in head
    if vector or head[4:8] == b"ftyp" or head.startswith(_OTHER_PICTURES):
        raise Refused(words.UNSUPPORTED_IMAGE, "only JPEG, PNG, WebP and GIF pictures are decoded")
    raise Refused(words.NOT_AN_IMAGE, "the body does not begin like a picture")


@contextmanager
def _open(content: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Read the header only, and turn what goes wrong from there to the end of the block into Refused."""
    damaged = Refused(words.TRUNCATED_IMAGE, "the picture is cut short or damaged")
    too_large = Refused(words.TOO_MANY_PIXELS, f"the header announces more than max_pixels = {max_pixels}")
    limit = Image.MAX_IMAGE_PIXELS
    # Pillow refuses above twice its limit, also where a format allocates before we could look
    # (WebP's canvas, frames of a GIF), so its limit follows ours while this picture is open.
    Image.MAX_IMAGE_PIXELS = max_pixels / 2  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about files say what the row's status says
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise too_large
                yield image
    except Image.DecompressionBombError as error:
        raise too_large from error
    except (Refused, MemoryError):
        raise
    except Exception as error:  # Pillow's parsers raise nearly anything on malformed bytes
        raise damaged from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a malformed EXIF block does not make the pixels worse
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _reduce(image: Image.Image, max_side_px: int) -> Image.Image:
    """Decode to L, RGB, RGBA or CMYK, 8 bit, with the longest side at most `max_side_px`."""
    width, height = image.size
    scale = max_side_px / max(width, height)
    size = (width, height)
    if scale < 1:
        size = (max(1, math.floor(width * scale + 0.5)), max(1, math.floor(height * scale + 0.5)))
    box: tuple[float, float, float, float] = (0.0, 0.0, float(width), float(height))
    if scale <= 0.25:
        # libjpeg decodes at 1/2, 1/4 or 1/8; at least twice the final size keeps the filter honest.
        drafted = image.draft(None, (2 * size[0], 2 * size[1]))  # type: ignore[arg-type]
        box = drafted[1] if drafted is not None else box
    image.load()
    plain = _eight_bit(image)
    if scale >= 1:
        return plain
    # Pillow filters RGBA with premultiplied alpha, so hidden colours do not bleed in.
    return plain.resize(size, Image.Resampling.LANCZOS, box=box)


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255; the high byte is what it keeps of 16-bit RGB.
        values = np.asarray(image)
        grey = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
        transparent = image.info.get("transparency")
        if not isinstance(transparent, int):
            return grey
        alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
        return Image.merge("RGBA", (grey, grey, grey, alpha))
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in _PROFILE_SPACES:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """To RGB: colours through the profile when it fits, transparency composited over white."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colours = image.convert("RGB") if alpha is not None else image
    convert = _profile_transform(profile, colours.mode) if profile else None
    if convert is not None:
        colours = ImageCms.applyTransform(colours, convert) or colours
    colours = colours.convert("RGB")
    if alpha is None:
        return colours
    white = Image.new("RGB", colours.size, (255, 255, 255))
    return Image.composite(colours, white, alpha)


@functools.lru_cache(maxsize=16)
def _profile_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from an ICC profile to sRGB; None if it is damaged or for other colours."""
    if len(profile) > _MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _PROFILE_SPACES[mode]:
            return None
        return ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _encode(image: Image.Image, quality: int) -> bytes:
    """The same pixels give the same bytes: no metadata, and no chroma subsampling to blur letters."""
    image.info.clear()
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()
