"""Which of the demo's shapes a mask is, by its overlap with their outlines.

A whole shape is moved and scaled to its template by centroid and area. A shape that the picture's border
cuts has lost both; it is fitted by the sides that are left.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from darkroom_demo.render import outline
from darkroom_demo.scenes import SHAPES

_TEMPLATE_PX = 48
_ANGLES = tuple(range(-20, 21, 4))
_CUT_ANGLES = (-12, -6, 0, 6, 12)
# Clean shapes of 64-px pictures resemble their templates by 0.97, 0.97, 0.96 and 0.95.
_HALF_SURE = {"circle": 0.86, "square": 0.86, "triangle": 0.84, "cross": 0.83}
_LEAST_VISIBLE = 0.7
_FIT_PX = 64
# Small shapes come out of a decoder with blunt tips. Their templates are blurred by so much of a
# half side, and being rounder they must fit better.
_BLUNT = (0.1, 0.15, 0.2)
_HALF_SURE_BLUNT = {"triangle": 0.85, "cross": 0.85}
# A fit to a part has more freedom than a fit to the whole: it must be the better one by so much.
_CUT_PENALTY = 0.05
_CORNER_SCALES = np.linspace(1.0, 1.45, 10)

Sides = tuple[bool, bool, bool, bool]


def classify(mask: np.ndarray) -> tuple[str, float]:
    """The shape that a mask resembles most, and how sure that is, 0 to 1.

    Args:
        mask: bool, (height, width), the whole picture: a mask at its border may be cut off there.
    """
    fits = _fit_whole(mask)
    cut = (bool(mask[:, 0].any()), bool(mask[0].any()), bool(mask[:, -1].any()), bool(mask[-1].any()))
    if any(cut) and not (cut[0] and cut[2]) and not (cut[1] and cut[3]):
        fits += _fit_cut(mask, cut)
    return max(fits, key=lambda fit: fit[1])


def _sureness(similarity: np.ndarray | float, half_sure: np.ndarray | float) -> np.ndarray:
    """A logistic curve of the similarity: 0.5 at `half_sure`, 0.9 at 0.04 above."""
    return 1 / (1 + np.exp((half_sure - np.asarray(similarity)) * np.log(9) / 0.04))


def _fit_whole(mask: np.ndarray) -> list[tuple[str, float]]:
    """How sure it is that a mask is the shape that it resembles most."""
    templates = _templates()
    normal = _normalise(mask).ravel()
    shared = templates.masks @ normal
    similarity = shared / (templates.masks.sum(axis=1) + normal.sum() - shared)
    sure = _sureness(similarity, templates.half_sure)
    best = int(np.argmax(sure))
    return [(templates.names[best], float(sure[best]))]


def _fit_cut(mask: np.ndarray, cut: Sides) -> list[tuple[str, float]]:
    """How sure it is that a mask is each shape, cut as the mask is."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    scale = _FIT_PX / max(width, height)
    part = mask[top : top + height, left : left + width].astype(np.uint8)
    part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    best = dict.fromkeys(SHAPES, 0.0)
    for name, points in _placements(part.shape[1], part.shape[0], cut):
        canvas = np.zeros_like(part)
        cv2.fillPoly(canvas, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
        visible = int(canvas.sum())
        if visible < _LEAST_VISIBLE * cv2.contourArea(points.astype(np.float32)):
            continue
        shared = int((canvas & part).sum())
        best[name] = max(best[name], shared / (visible + int(part.sum()) - shared))
    return [(name, float(_sureness(most - _CUT_PENALTY, _HALF_SURE[name]))) for name, most in best.items()]


def _placements(width: int, height: int, cut: Sides) -> Iterator[tuple[str, np.ndarray]]:
    """(shape, outline in pixels) such that the sides which are not cut touch the part's frame."""
    cut_left, cut_top, cut_right, cut_bottom = cut
    cut_x, cut_y = cut_left or cut_right, cut_top or cut_bottom
    for shape in SHAPES:
        for angle in (0,) if shape == "circle" else _CUT_ANGLES:
            points, low, high = _extent(shape, angle)
            fit_x, fit_y = width / (high[0] - low[0]), height / (high[1] - low[1])
            if cut_x and cut_y:
                scales = max(fit_x, fit_y) * _CORNER_SCALES
            else:
                scales = np.array([fit_y if cut_x else fit_x])
            for scale in scales:
                x = width - scale * high[0] if cut_left else -scale * low[0]
                y = height - scale * high[1] if cut_top else -scale * low[1]
                yield shape, points * scale + (x, y)


@dataclass(frozen=True)
class _Templates:
    """Normalised masks, (templates, pixels), with the shape of each and what makes it half sure."""

    names: list[str]
    masks: np.ndarray
    half_sure: np.ndarray


@cache
def _templates() -> _Templates:
    """All shapes at small angles, sharp and blunt."""
    names, masks, half_sure = [], [], []
    for shape in SHAPES:
        levels = (0.0, *_BLUNT) if shape in _HALF_SURE_BLUNT else (0.0,)
        for angle in (0,) if shape == "circle" else _ANGLES:
            canvas = np.zeros((256, 256), np.uint8)
            cv2.fillPoly(canvas, [np.rint(_turned(shape, angle) * 70 + 128).astype(np.int32)], 255)
            for level in levels:
                soft = cv2.GaussianBlur(canvas, (0, 0), 70 * level) if level else canvas
                names.append(shape)
                masks.append(_normalise(soft > 127).ravel())
                half_sure.append(_HALF_SURE_BLUNT[shape] if level else _HALF_SURE[shape])
    return _Templates(names, np.stack(masks), np.array(half_sure))


@cache
def _extent(shape: str, angle: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A turned outline, and its least and greatest x and y."""
    points = _turned(shape, angle)
    return points, points.min(axis=0), points.max(axis=0)


@cache
def _turned(shape: str, angle: int) -> np.ndarray:
    radians = np.deg2rad(angle)
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    return outline(shape) @ turn


def _normalise(mask: np.ndarray) -> np.ndarray:
    """The mask moved to its centroid and scaled to one area: float32, (48, 48)."""
    moments = cv2.moments(mask.astype(np.uint8), binaryImage=True)
    centre = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    # The area of every shape is a quarter of the frame: the tips still lie inside.
    scale = float(np.sqrt(0.25 * _TEMPLATE_PX**2 / moments["m00"]))
    half = _TEMPLATE_PX / 2 - 0.5
    move = np.array([[scale, 0, half - scale * centre[0]], [0, scale, half - scale * centre[1]]])
    return cv2.warpAffine(mask.astype(np.float32), move, (_TEMPLATE_PX, _TEMPLATE_PX), flags=cv2.INTER_LINEAR)
