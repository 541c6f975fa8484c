"""Pictures and charts as data URIs, so that the page is one file and asks no network."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image


def png_uri(picture: np.ndarray) -> str:
    """A uint8 (height, width, 3) picture, lossless."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return _uri("image/png", buffer.getvalue())


def jpeg_uri(content: bytes, max_side_px: int) -> str:
    """An encoded picture, decoded and reduced to `max_side_px` at most."""
    with Image.open(io.BytesIO(content)) as picture:
        reduced = picture.convert("RGB")
        reduced.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        reduced.save(buffer, "JPEG", quality=88)
    return _uri("image/jpeg", buffer.getvalue())


def file_uri(path: str | Path) -> str:
    """A PNG file as it is."""
    return _uri("image/png", Path(path).read_bytes())


def svg_uri(content: bytes) -> str:
    """An SVG drawing; inside <img> it can neither run scripts nor load anything."""
    return _uri("image/svg+xml", content)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
