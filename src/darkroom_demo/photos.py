"""Photographs: crops of the pictures that lie inside the scikit-image and scikit-learn packages."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

MIN_CROP = 0.6
_MAX_ASPECT_RATIO = 2.0


@dataclass(frozen=True)
class _Photo:
    """A file of a package. `focus` (left, top, right, bottom), in units of the sides, stays in every crop."""

    package: str
    path: str
    long: str
    short: str
    focus: tuple[float, float, float, float]


_SKIMAGE, _SKLEARN = "skimage", "sklearn"
_MIDDLE = (0.45, 0.45, 0.55, 0.55)
_PHOTOS = {
    "astronaut": _Photo(
        _SKIMAGE,
        "data/astronaut.png",
        "a photograph of a smiling astronaut in an orange space suit",
        "a photo of an astronaut",
        (0.2, 0.05, 0.65, 0.6),
    ),
    "bricks": _Photo(
        _SKIMAGE, "data/brick.png", "a grey photograph of rows of bricks", "a photo of bricks", _MIDDLE
    ),
    "cameraman": _Photo(
        _SKIMAGE,
        "data/camera.png",
        "a grey photograph of a man with a camera on a tripod",
        "a photo of a man with a camera",
        (0.2, 0.1, 0.7, 0.6),
    ),
    "cat": _Photo(
        _SKIMAGE,
        "data/chelsea.png",
        "a photograph of a cat with green eyes",
        "a photo of a cat",
        (0.28, 0.2, 0.82, 0.75),
    ),
    "coffee": _Photo(
        _SKIMAGE,
        "data/coffee.png",
        "a photograph of a cup of coffee on a red saucer",
        "a photo of a cup of coffee",
        (0.3, 0.1, 0.75, 0.65),
    ),
    "coins": _Photo(
        _SKIMAGE, "data/coins.png", "a grey photograph of rows of old coins", "a photo of coins", _MIDDLE
    ),
    "grass": _Photo(_SKIMAGE, "data/grass.png", "a grey photograph of grass", "a photo of grass", _MIDDLE),
    "gravel": _Photo(
        _SKIMAGE, "data/gravel.png", "a grey photograph of gravel", "a photo of gravel", _MIDDLE
    ),
    "galaxies": _Photo(
        _SKIMAGE,
        "data/hubble_deep_field.jpg",
        "a photograph of many galaxies in a black sky",
        "a photo of galaxies",
        _MIDDLE,
    ),
    "moon": _Photo(
        _SKIMAGE,
        "data/moon.png",
        "a grey photograph of craters on the moon",
        "a photo of the moon",
        (0.2, 0.12, 0.7, 0.5),
    ),
    "motorcycle": _Photo(
        _SKIMAGE,
        "data/motorcycle_left.png",
        "a photograph of a red motorcycle in a garage",
        "a photo of a motorcycle",
        (0.25, 0.35, 0.8, 0.85),
    ),
    "rocket": _Photo(
        _SKIMAGE,
        "data/rocket.jpg",
        "a photograph of a white rocket at dusk",
        "a photo of a rocket",
        (0.4, 0.28, 0.6, 0.85),
    ),
    "pagoda": _Photo(
        _SKLEARN,
        "datasets/images/china.jpg",
        "a photograph of a pagoda above a lake",
        "a photo of a pagoda",
        (0.15, 0.08, 0.7, 0.62),
    ),
    "flower": _Photo(
        _SKLEARN,
        "datasets/images/flower.jpg",
        "a photograph of an orange flower on a dark ground",
        "a photo of a flower",
        (0.38, 0.15, 0.75, 0.75),
    ),
}
NAMES = tuple(sorted(_PHOTOS))


def sample_photo(rng: np.random.Generator, sides_px: tuple[int, int] = (64, 512)) -> tuple[np.ndarray, str]:
    """A crop of a photograph, of at least MIN_CROP of each side and with its subject in it.

    Args:
        rng: the only source of chance.
        sides_px: smallest shorter side and greatest longer side, pixels.

    Returns:
        (picture, name): uint8 (height, width, 3) RGB, and one of NAMES.
    """
    name = str(rng.choice(NAMES))
    photo, focus = _pixels(name), _PHOTOS[name].focus
    top, bottom = _draw_span(rng, photo.shape[0], focus[1], focus[3])
    left, right = _draw_span(rng, photo.shape[1], focus[0], focus[2])
    crop = photo[top:bottom, left:right]
    ratio = min(max(crop.shape[1] / crop.shape[0], 1 / _MAX_ASPECT_RATIO), _MAX_ASPECT_RATIO)
    low, high = np.log(sides_px[0]), np.log(sides_px[1] / max(ratio, 1 / ratio))
    short = float(np.exp(rng.uniform(low, max(low, high))))
    size = (round(short * ratio), round(short)) if ratio >= 1 else (round(short), round(short / ratio))
    smaller = size[0] < crop.shape[1]
    return cv2.resize(crop, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC), name


def photo_captions(name: str) -> tuple[str, str]:
    """(long, short): what a good captioner says of any crop of the photograph `name`."""
    photo = _PHOTOS[name]
    return photo.long, photo.short


@lru_cache(maxsize=len(_PHOTOS))
def _pixels(name: str) -> np.ndarray:
    photo = _PHOTOS[name]
    # The package's folder is found without importing it, which would take a second.
    spec = find_spec(photo.package)
    assert spec is not None and spec.origin is not None
    with Image.open(Path(spec.origin).parent / photo.path) as picture:
        return np.asarray(picture.convert("RGB"))


def _draw_span(rng: np.random.Generator, length: int, first: float, last: float) -> tuple[int, int]:
    """(start, stop) in pixels of a part of a side that has [first, last] of it inside."""
    part = float(rng.uniform(max(MIN_CROP, last - first), 1.0))
    start = float(rng.uniform(max(0.0, last - part), min(first, 1.0 - part)))
    return int(start * length), min(int(np.ceil((start + part) * length)), length)
