"""Decoding one picture here, and looking at what came out, for the tests of the decoder."""

import io

import numpy as np
import pytest
from PIL import Image
from test_download_server import settings

from darkroom.download.decode import Decoded
from darkroom.download.decode import decode as decode_wanted
from darkroom.download.decoders import wanted
from darkroom.download.status import Refused

KINDS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"]


def decode(content: bytes, **changes: object) -> Decoded:
    return decode_wanted(content, wanted(settings(**changes)))


def decoded(content: bytes, **changes: object) -> tuple[Decoded, np.ndarray]:
    """The picture and its pixels (height, width, 3), as another program would read them."""
    found = decode(content, **changes)
    with Image.open(io.BytesIO(found.jpeg)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (found.width, found.height))
        return found, np.asarray(image).astype(int)


def status(content: bytes, **changes: object) -> str:
    with pytest.raises(Refused) as caught:
        decode(content, **changes)
    return caught.value.status


def assert_colour(pixels: np.ndarray, colour: object, tolerance: int = 3) -> None:
    assert np.abs(pixels - np.asarray(colour)).max() <= tolerance


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)
