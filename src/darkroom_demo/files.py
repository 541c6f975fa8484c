"""The file behind a row's URL."""

import numpy as np

from darkroom_demo import encode
from darkroom_demo.layout import Row
from darkroom_demo.subjects import Subject

_WATERMARKS = ("ShapeShop.example", "(c) StickerWorld", "PREVIEW ONLY")
_QUALITY_OF_COPIES = 60
# Of no other file, so that none has the same bytes.
_QUALITY_OF_SQUARES = 96
_NO_FILE = frozenset(
    {
        "not_found",
        "gone",
        "too_many_bytes",
        "empty_body",
        "html_page",
        "redirect_loop",
        "redirect_private",
        "redirect_file",
        "private_address",
        "file_url",
        "other_scheme",
    }
)
PICTURELESS = _NO_FILE | {"decompression_bomb", "svg"}
"""Faults whose rows show nothing that has a truth."""


def file_bytes(row: Row, subject: Subject) -> bytes:
    """The file of a row that shows `subject`; empty where there is none.

    The rows `exact_duplicate` and `same_url` have no file of their own: ask for their original's.
    """
    fault = row.fault
    if fault in _NO_FILE:
        return b""
    if fault == "decompression_bomb":
        return encode.decompression_bomb()
    if fault == "svg":
        return encode.svg(subject.width, subject.height)
    picture = subject.draw()
    if fault == "truncated_jpeg":
        whole = encode.jpeg(picture, row.quality)
        return whole[: len(whole) * (40 + row.index % 50) // 100]
    if fault == "exif_orientation":
        return encode.rotated_jpeg(picture, row.index % 8 + 1, row.quality)
    if fault in ("visible_watermark", "missed_watermark"):
        return encode.jpeg(
            encode.watermarked(picture, _WATERMARKS[row.index % len(_WATERMARKS)]), row.quality
        )
    if fault == "near_duplicate":
        return encode.jpeg(picture, _QUALITY_OF_COPIES)
    if fault == "square_copy":
        return encode.jpeg(picture, _QUALITY_OF_SQUARES)
    if fault == "blown_up":
        return encode.jpeg(encode.blown_up(picture), row.quality)
    if fault in ("png_rgba", "png_palette"):
        inked = np.any(picture != picture[0, 0], axis=2)
        return (encode.png_rgba if fault == "png_rgba" else encode.png_palette)(picture, inked)
    if fault == "png_grey":
        return encode.png_grey(picture, bits=8 if row.index % 2 == 0 else 16)
    if fault == "webp_named_jpg":
        return encode.webp(picture, row.quality)
    if fault == "cmyk_jpeg":
        return encode.cmyk_jpeg(picture, row.quality)
    plain = {"png_16bit": encode.png_16bit, "animated_gif": encode.animated_gif, "jpeg2000": encode.jpeg2000}
    if fault in plain:
        return plain[fault](picture)
    if row.ending == ".png":
        return encode.png(picture)
    return (encode.webp if row.ending == ".webp" else encode.jpeg)(picture, row.quality)
