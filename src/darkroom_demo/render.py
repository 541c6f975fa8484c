"""Scenes drawn as pictures."""

import colorsys

import cv2
import numpy as np

from darkroom_demo.scenes import Scene, Thing

_SUPERSAMPLING = 3
_HUES = {"red": 0, "yellow": 52, "green": 125, "blue": 220, "purple": 285}
_GROUND_RGB = {
    "white": (252, 252, 252),
    "grey": (206, 206, 208),
    "cream": (250, 240, 208),
    "pale blue": (208, 228, 248),
}


def render(scene: Scene) -> np.ndarray:
    """The picture of a scene: uint8, (height, width, 3), RGB."""
    rng = np.random.default_rng(scene.seed)
    picture = _ground(scene, rng)
    for thing in scene.things:
        _draw_thing(picture, thing, scene, rng)
    return picture


def outline(shape: str) -> np.ndarray:
    """The closed outline of a shape in the unit square [-1, 1]^2: float, (points, 2)."""
    if shape == "circle":
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if shape == "square":
        return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.9
    if shape == "triangle":
        return np.array([(0, -1), (1, 0.85), (-1, 0.85)])
    if shape == "cross":
        a = 0.34
        corners = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a)]
        return np.array([*corners, (-1, a), (-1, -a), (-a, -a)])
    raise ValueError(f"unknown shape {shape!r}")


def _draw_thing(picture: np.ndarray, thing: Thing, scene: Scene, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    left, top, right, bottom = thing.box(width, height)
    angle = np.deg2rad(thing.angle)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = outline(thing.shape) @ turn * (right - left) / 2 + ((left + right) / 2, (top + bottom) / 2)
    # Only the shape's surroundings are supersampled: large pictures stay cheap.
    x0, y0 = max(int(left) - 4, 0), max(int(top) - 4, 0)
    x1, y1 = min(int(right) + 5, width), min(int(bottom) + 5, height)
    mask = np.zeros(((y1 - y0) * _SUPERSAMPLING, (x1 - x0) * _SUPERSAMPLING), np.uint8)
    fixed = np.rint((points - (x0, y0)) * _SUPERSAMPLING * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, lineType=cv2.LINE_8, shift=4)
    cover = cv2.resize(mask, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)[..., None] / 255.0
    patch = picture[y0:y1, x0:x1]
    color = np.array(_jittered(thing.color, rng))
    picture[y0:y1, x0:x1] = np.rint(patch * (1 - cover) + color * cover).astype(np.uint8)


def _jittered(color: str, rng: np.random.Generator) -> tuple[float, float, float]:
    hue, saturation, value = rng.uniform(-5, 5), rng.uniform(0.85, 1.0), rng.uniform(0.82, 0.98)
    if color == "black":
        return (value * 30, value * 30, value * 32)
    if color == "green":
        value -= 0.22
    red, green, blue = colorsys.hsv_to_rgb(((_HUES[color] + hue) % 360) / 360, saturation, value)
    return red * 255, green * 255, blue * 255


def _ground(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    height, width = scene.height, scene.width
    base = np.array(_GROUND_RGB[scene.ground], np.float32)
    period = max(4.0, min(height, width) / rng.uniform(6, 10))
    if scene.pattern == "plain":
        return np.tile(base.astype(np.uint8), (height, width, 1))
    y, x = np.ogrid[0:height, 0:width]
    if scene.pattern == "striped":
        angle = rng.uniform(0, np.pi)
        shade = (np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period)) > 0) * -22.0
    elif scene.pattern == "checked":
        shade = ((x // period + y // period) % 2) * -22.0
    else:
        shade = cv2.GaussianBlur(rng.normal(0, 30, (height, width)).astype(np.float32), (0, 0), 0.8)
    return np.clip(base + shade[..., None], 0, 255).astype(np.uint8)
