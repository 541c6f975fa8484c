"""Pictures as files, in the ways that the web has them. Pictures are uint8 (height, width, 3) RGB."""

import io
import struct
import zlib
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".jp2": "image/jp2",
    ".svg": "image/svg+xml",
}
_STORED_AS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_EXIF_ORIENTATION = 0x0112


def jpeg(picture: np.ndarray, quality: int) -> bytes:
    """A baseline JPEG."""
    return _opencv(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])


def png(picture: np.ndarray) -> bytes:
    """An 8-bit RGB PNG, hardly compressed: the demo saves time, not bytes."""
    return _opencv(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])


def webp(picture: np.ndarray, quality: int) -> bytes:
    """A lossy WebP."""
    return _opencv(".webp", picture[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])


def png_16bit(picture: np.ndarray) -> bytes:
    """A 16-bit RGB PNG; decoders that clip at 255 make it white."""
    return _opencv(".png", picture[..., ::-1].astype(np.uint16) * 257, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def png_grey(picture: np.ndarray, bits: int) -> bytes:
    """A PNG with one channel of 8 or 16 bits."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    values = grey if bits == 8 else grey.astype(np.uint16) * 257
    return _opencv(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def png_rgba(picture: np.ndarray, inked: np.ndarray) -> bytes:
    """A PNG that is transparent where `inked`, bool (height, width), is False, and hides black there."""
    rgba = np.dstack([np.where(inked[..., None], picture, 0), np.where(inked, 255, 0)]).astype(np.uint8)
    return _pillow(Image.fromarray(rgba), "PNG", compress_level=1)


def png_palette(picture: np.ndarray, inked: np.ndarray) -> bytes:
    """As `png_rgba` with a palette of 64 colours and one transparent entry."""
    image = Image.fromarray(picture).quantize(64, dither=Image.Dither.NONE)
    entries = (image.getpalette() or [])[: 64 * 3]
    indices = np.where(inked, np.asarray(image), 64).astype(np.uint8)
    flat = Image.fromarray(indices, mode=None)
    flat.putpalette(entries + [0] * (64 * 3 - len(entries)) + [0, 0, 0])
    return _pillow(flat, "PNG", compress_level=1, transparency=64)


def cmyk_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """A JPEG for print: four inks."""
    return _pillow(Image.fromarray(picture).convert("CMYK"), "JPEG", quality=quality)


def rotated_jpeg(picture: np.ndarray, orientation: int, quality: int) -> bytes:
    """A JPEG that is stored turned or mirrored, with the EXIF orientation, 1 to 8, that undoes it."""
    image = Image.fromarray(picture)
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    if orientation != 1:
        image = image.transpose(_STORED_AS[orientation])
    return _pillow(image, "JPEG", quality=quality, exif=exif)


def animated_gif(picture: np.ndarray) -> bytes:
    """A GIF whose second frame is the picture turned by half."""
    frames = [Image.fromarray(p).quantize(64) for p in (picture, np.ascontiguousarray(picture[::-1, ::-1]))]
    return _pillow(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=300, loop=0)


def jpeg2000(picture: np.ndarray) -> bytes:
    """A JPEG 2000: a picture, of a format that is not decoded."""
    return _pillow(Image.fromarray(picture), "JPEG2000")


def svg(width: int, height: int) -> bytes:
    """A drawing in vectors, with a star in it."""
    return (
        f'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        '<path d="M50 5 61 39H97L68 60 79 95 50 73 21 95 32 60 3 39H39Z" fill="gold"/></svg>\n'
    ).encode()


@lru_cache(maxsize=1)
def decompression_bomb(side_px: int = 30_000) -> bytes:
    """A valid grey PNG of side_px x side_px, 900 million pixels in about a megabyte."""
    row = b"\0" * (1 + side_px)
    num_rows = next(n for n in range(100, 0, -1) if side_px % n == 0)
    compress = zlib.compressobj(9)
    start = compress.compress(b"") + compress.flush(zlib.Z_FULL_FLUSH)
    # After a full flush equal input gives equal output, so one block is compressed and then repeated.
    block = compress.compress(row * num_rows) + compress.flush(zlib.Z_FULL_FLUSH)
    # Adler-32 of n zero bytes: a = 1, b = n mod 65521.
    adler = ((1 + side_px) * side_px % 65521 << 16) | 1
    end = b"\x01\x00\x00\xff\xff" + struct.pack(">I", adler)
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 0, 0, 0, 0)
    body = start + block * (side_px // num_rows) + end
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def watermarked(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture with `text` across it, half transparent, in grey with a white edge."""
    height, width = picture.shape[:2]
    (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 1.0, 2)
    scale = 0.92 * width / text_width
    thickness = max(1, round(1.6 * scale))
    overlay = picture.copy()
    rows = np.arange(0.2, 1.0, 0.3) if text_height * scale * 6 < height else (0.55,)
    for down in rows:
        origin = round(0.04 * width), round(down * height + text_height * scale / 2)
        for color, extra in (((255, 255, 255), 3), ((80, 80, 80), 0)):
            cv2.putText(
                overlay, text, origin, cv2.FONT_HERSHEY_DUPLEX, scale, color, thickness + extra, cv2.LINE_AA
            )
    return cv2.addWeighted(overlay, 0.5, picture, 0.5, 0)


def blown_up(picture: np.ndarray, side_px: int = 8) -> np.ndarray:
    """The picture as a thumbnail with a shorter side of `side_px`, in its own size again."""
    height, width = picture.shape[:2]
    short = min(height, width)
    small = (round(width * side_px / short), round(height * side_px / short))
    thumbnail = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(thumbnail, (width, height), interpolation=cv2.INTER_CUBIC)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _opencv(ending: str, values: np.ndarray, options: list[int]) -> bytes:
    done, encoded = cv2.imencode(ending, values, options)
    assert done, ending
    return encoded.tobytes()


def _pillow(image: Image.Image, format_name: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format_name, **options)  # type: ignore[arg-type]
    return out.getvalue()
