"""The set of buckets, the nearest bucket of a picture, and its resize and crop.

The rule for the set. For every width that is a multiple of `step_px` between the least and the
greatest side, the height that would keep the area of resolution_px^2 is width -> area / width. Of its
two neighbouring multiples of `step_px` (those inside the allowed sides) the one with the nearer log
area is taken, and the upper one only while the area grows by no more than one eighth: a batch of the
widest bucket then needs at most 1.125 times the memory of the square one. Every bucket also exists
turned on its side. Of several buckets with one aspect ratio, the one nearest to the area stays.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from darkroom.bucket.novelai import make_novelai_buckets
from darkroom.config.bucket import Bucket

MAX_AREA_EXCESS = 1.125
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Assignment:
    """Buckets and crops of N pictures; every array is (N,) int64, in pixels.

    The picture is resized to (resized_width, resized_height), which covers the bucket, and the
    bucket is cut out of its middle at (crop_left, crop_top). `scale_up` tells whether the resize
    enlarges the picture.
    """

    bucket_width: Ints
    bucket_height: Ints
    resized_width: Ints
    resized_height: Ints
    crop_left: Ints
    crop_top: Ints
    scale_up: npt.NDArray[np.bool_]


def make_buckets(settings: Bucket) -> list[tuple[int, int]]:
    """The (width, height) of every bucket by the rule of the settings, from the tallest to the widest."""
    return _RULES[settings.rule].make(settings)


def _of_about_one_area(settings: Bucket) -> list[tuple[int, int]]:
    step, area = settings.step_px, settings.resolution_px**2
    found = {(settings.resolution_px, settings.resolution_px)}
    for width in range(-(-settings.min_side_px // step) * step, settings.max_side_px + 1, step):
        low = area // (width * step) * step
        heights = [h for h in (low, low + step) if settings.min_side_px <= h <= settings.max_side_px]
        heights = [h for h in heights if width * h <= MAX_AREA_EXCESS * area]
        if heights:
            height = min(heights, key=lambda h: (abs(math.log(width * h / area)), h))
            found |= {(width, height), (height, width)}
    best: dict[tuple[int, int], tuple[int, int]] = {}
    for width, height in sorted(found):
        divisor = math.gcd(width, height)
        ratio = (width // divisor, height // divisor)
        old = best.get(ratio, (width, height))
        best[ratio] = min(old, (width, height), key=lambda b: (abs(math.log(b[0] * b[1] / area)), b))
    return sorted(best.values(), key=lambda b: (b[0] / b[1], b))


def assign(
    width: npt.ArrayLike,
    height: npt.ArrayLike,
    buckets: list[tuple[int, int]],
    rule: str = "nearest_area",
) -> Assignment:
    """The bucket with the nearest log aspect ratio for each picture, and its resize and crop.

    `width` and `height` are (N,) positive integers in pixels; `buckets` comes from `make_buckets`. A
    picture exactly between two buckets gets the taller one. By NovelAI's rule the aspect ratio itself is compared.
    """
    w, h = np.asarray(width, np.int64), np.asarray(height, np.int64)
    sides = np.array(buckets, np.int64)
    scale = _RULES[rule].scale
    ratios = scale(sides[:, 0] / sides[:, 1])
    chosen = sides[np.searchsorted((ratios[1:] + ratios[:-1]) / 2, scale(w / h), side="left")]
    bw, bh = chosen[:, 0], chosen[:, 1]
    # The picture is relatively taller than the bucket: its width decides the scale. In integers,
    # rounding half up, so that a crop never depends on how a machine rounds.
    tall = bw * h >= bh * w
    rw = np.where(tall, bw, (2 * w * bh + h) // (2 * h))
    rh = np.where(tall, (2 * h * bw + w) // (2 * w), bh)
    scale_up = np.where(tall, bw > w, bh > h)
    return Assignment(bw, bh, rw, rh, (rw - bw) // 2, (rh - bh) // 2, scale_up)


@dataclass(frozen=True)
class _Rule:
    """How buckets are made, and what of an aspect ratio tells how near it is to another."""

    make: Callable[[Bucket], list[tuple[int, int]]]
    scale: Callable[[Floats], Floats]


# `bucket.rule` -> what it means.
_RULES = {
    "nearest_area": _Rule(_of_about_one_area, np.log),
    "novelai": _Rule(make_novelai_buckets, np.positive),
}
