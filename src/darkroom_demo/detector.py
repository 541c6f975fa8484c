"""The demo world's object detector: coloured shapes on a light ground, found by their contours.

It stands where GenEval has Mask2Former. It trusts nothing but the picture: the ground is estimated,
what is darker in at least one channel is foreground, foreground is cut into regions of one colour, and
each region is compared with the outlines of the five shapes.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from darkroom.metrics.detectors import Detector
from darkroom.metrics.rules import Detection
from darkroom_demo.shapes import classify

NAME = "contour 3"

_WORK_AREA_PX = 256 * 256
_MIN_AREA_SHARE = 0.01
_GROUND_MIN = 130
# Hues on OpenCV's half circle (0..179) and how far a hue may lie from its name.
_HUES = {"red": 0, "yellow": 26, "green": 62, "blue": 110, "purple": 142}
_HUE_REACH = {"red": 10, "yellow": 11, "green": 22, "blue": 16, "purple": 14}
_COLORS = (*_HUES, "black", "other")
_OTHER = len(_COLORS) - 1


@dataclass(frozen=True)
class _Region:
    mask: np.ndarray
    color: str
    purity: float


def detect(picture: np.ndarray) -> list[Detection]:
    """The shapes in a picture, best first: class, box, score, mask and colour of each.

    Scores are calibrated on rendered scenes: a clean shape has more than 0.9, whatever no shape
    resembles less than 0.3. Boxes and masks are in the picture's own pixels.

    Args:
        picture: uint8, (height, width, 3), RGB.

    Raises:
        ValueError: the picture is no such array.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture is uint8 (height, width, 3), not {picture.dtype} {picture.shape}")
    height, width = picture.shape[:2]
    scale = float(np.sqrt(_WORK_AREA_PX / (height * width)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    work = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method)
    found = []
    for region in _regions(work):
        name, confidence = classify(region.mask)
        score = confidence * region.purity
        mask = cv2.resize(region.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA)
        found.append(Detection(name, _box(region.mask, scale), score, mask > 0, region.color))
    return sorted(found, key=lambda d: (-d.score, d.box))


def classify_color(picture: np.ndarray, detection: Detection) -> str | None:
    """The colour of a detection of `detect`, for `geneval.judge`; None where it has no name."""
    del picture
    return None if detection.color == "other" else detection.color


def _regions(picture: np.ndarray) -> list[_Region]:
    """Connected foreground of one colour each."""
    darkest = cv2.GaussianBlur(picture.min(axis=2), (0, 0), 1.0)
    light = darkest[darkest > _GROUND_MIN]
    if light.size < 0.15 * darkest.size:
        return []  # No light ground: nothing the demo world would draw.
    ground = float(np.median(light))
    foreground = darkest < (ground + 30) / 2
    colors = _color_of_pixels(picture)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    foreground = cv2.morphologyEx(foreground.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    num, components, stats, _ = cv2.connectedComponentsWithStats(foreground, connectivity=4)
    least = _MIN_AREA_SHARE * foreground.size
    large = [index for index in range(1, num) if stats[index, cv2.CC_STAT_AREA] >= least]
    return [region for index in large for region in _split(components == index, colors, least)]


def _split(component: np.ndarray, colors: np.ndarray, least: float) -> list[_Region]:
    """Cut a connected piece of foreground where its colour changes; regions have `least` pixels or more."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    seeds = np.zeros(component.shape, np.int32)
    seed_colors: list[int] = []
    for color in range(len(_COLORS)):
        same = (component & (colors == color)).astype(np.uint8)
        if same.sum() < least:
            continue
        num, labels, stats, _ = cv2.connectedComponentsWithStats(
            cv2.morphologyEx(same, cv2.MORPH_OPEN, kernel)
        )
        for index in range(1, num):
            if stats[index, cv2.CC_STAT_AREA] >= 0.5 * least:
                seed_colors.append(color)
                seeds[labels == index] = len(seed_colors)
    if not seed_colors:
        return []
    seeds = _nearest_seed(seeds) if len(seed_colors) > 1 else np.ones_like(seeds)
    regions = []
    for index, color in enumerate(seed_colors, start=1):
        mask = component & (seeds == index)
        if mask.sum() >= least:
            purity = float((colors[mask] == color).mean())
            regions.append(_Region(mask, _COLORS[color], min(1.0, purity / 0.6)))
    return regions


def _nearest_seed(seeds: np.ndarray) -> np.ndarray:
    """Every pixel's nearest seed: edges mix two colours and belong to neither by hue."""
    _, labels = cv2.distanceTransformWithLabels(
        (seeds == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    names = np.zeros(int(labels.max()) + 1, np.int32)
    names[labels[seeds > 0]] = seeds[seeds > 0]
    return names[labels]


def _color_of_pixels(picture: np.ndarray) -> np.ndarray:
    """Index into _COLORS for every pixel of the foreground."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV).astype(np.int16)
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    result = np.full(hue.shape, _OTHER, np.uint8)
    for index, (name, centre) in enumerate(_HUES.items()):
        away = np.abs((hue - centre + 90) % 180 - 90)
        result[away <= _HUE_REACH[name]] = index
    result[saturation < 90] = _OTHER
    dark = (value < 70) | ((value < 130) & (saturation < 90))
    result[dark] = _COLORS.index("black")
    return result


def _box(mask: np.ndarray, scale: float) -> tuple[float, float, float, float]:
    """The tight box of a mask in the pixels of a picture `1 / scale` times as large."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    box = (left, top, left + width, top + height)
    return (box[0] / scale, box[1] / scale, box[2] / scale, box[3] / scale)


def self_test_of(area_px: int) -> dict[str, float]:
    """`darkroom_demo.selftest` on pictures of that many pixels."""
    from darkroom_demo.selftest import self_test

    return self_test(detect, classify_color, area_px)


SPEC = Detector(NAME, detect, classify_color, self_test_of)
