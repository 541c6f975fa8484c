"""Scenes of coloured shapes: what is in a picture, drawn at random from a seed.

A scene is about one of GenEval's six tasks. Some combinations are held out: no training scene shows
them, and the evaluation prompts (`prompts.py`) ask for exactly those.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLORS = ("red", "yellow", "green", "blue", "purple", "black")
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PATTERNS = ("plain", "striped", "checked", "speckled")
GROUNDS = ("white", "grey", "cream", "pale blue")
RELATIONS = ("left of", "right of", "above", "below")

HELD_OUT_PAIRS = (("circle", "star"), ("cross", "square"))
HELD_OUT_COLORED = (
    ("red", "star"),
    ("yellow", "circle"),
    ("green", "triangle"),
    ("blue", "cross"),
    ("purple", "square"),
    ("black", "star"),
)
HELD_OUT_COUNTED = ((2, "star"), (3, "circle"), (4, "triangle"), (3, "square"))

_ASPECT_RATIOS = (0.5, 0.6, 0.67, 0.75, 0.8, 1.0, 1.0, 1.0, 1.25, 1.33, 1.5, 1.67, 2.0)
_TASK_SHARES = (0.10, 0.10, 0.24, 0.12, 0.22, 0.22)


@dataclass(frozen=True)
class Thing:
    """One shape: its centre in units of the picture's sides, its size in units of the shorter side."""

    shape: str
    color: str
    x: float
    y: float
    size: float
    angle: float

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in pixels of the circle or square that the shape is drawn in."""
        half = self.size * min(width, height) / 2
        x, y = self.x * width, self.y * height
        return x - half, y - half, x + half, y + half


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn. `seed` fixes the ground's texture and the colours' jitter."""

    task: str
    things: tuple[Thing, ...]
    pattern: str
    ground: str
    width: int
    height: int
    seed: int

    def to_record(self) -> dict[str, Any]:
        """The scene as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Scene":
        """The inverse of `to_record`."""
        return cls(**{**record, "things": tuple(Thing(**thing) for thing in record["things"])})


def is_held_out(scene: Scene) -> bool:
    """Whether a scene shows a combination that is kept for the evaluation."""
    shapes = tuple(sorted({thing.shape for thing in scene.things}))
    if len(scene.things) == 1:
        return (scene.things[0].color, scene.things[0].shape) in HELD_OUT_COLORED
    if len(shapes) == 1:
        return (len(scene.things), shapes[0]) in HELD_OUT_COUNTED
    return shapes in HELD_OUT_PAIRS


def sample_scene(
    rng: np.random.Generator,
    task: str | None = None,
    sides_px: tuple[int, int] = (64, 512),
    held_out: bool | None = False,
) -> Scene:
    """A random scene.

    Args:
        rng: the only source of chance.
        task: one of TASKS; None draws it.
        sides_px: the shorter side is drawn from here, log-uniformly; the longer one follows from the
            aspect ratio and stays within the upper bound.
        held_out: False gives only scenes for training, True only held-out ones, None either.
    """
    task = task or str(rng.choice(TASKS, p=_TASK_SHARES))
    while True:
        scene = _draw(rng, task, sides_px)
        if scene is not None and (held_out is None or is_held_out(scene) == held_out):
            return scene


def _draw(rng: np.random.Generator, task: str, sides_px: tuple[int, int]) -> Scene | None:
    width, height = _draw_size(rng, sides_px)
    kinds = _draw_kinds(rng, task)
    low, high = {1: (0.42, 0.68), 2: (0.34, 0.44), 3: (0.30, 0.38), 4: (0.28, 0.34)}[len(kinds)]
    sizes = rng.uniform(low, high, size=len(kinds))
    places = _place(rng, sizes, width, height)
    if places is None:
        return None
    things = tuple(
        Thing(shape, color, round(x, 4), round(y, 4), round(float(size), 4), _draw_angle(rng, shape))
        for (shape, color), (x, y), size in zip(kinds, places, sizes, strict=True)
    )
    pattern = str(rng.choice(PATTERNS, p=(0.55, 0.15, 0.15, 0.15)))
    ground = str(rng.choice(GROUNDS, p=(0.4, 0.2, 0.2, 0.2)))
    return Scene(task, things, pattern, ground, width, height, int(rng.integers(2**31)))


def _draw_size(rng: np.random.Generator, sides_px: tuple[int, int]) -> tuple[int, int]:
    ratio = float(rng.choice(_ASPECT_RATIOS))
    low, high = np.log(sides_px[0]), np.log(sides_px[1] / max(ratio, 1 / ratio))
    short = float(np.exp(rng.uniform(low, max(low, high))))
    width, height = (short * ratio, short) if ratio >= 1 else (short, short / ratio)
    return round(width), round(height)


def _draw_kinds(rng: np.random.Generator, task: str) -> list[tuple[str, str]]:
    colors = [str(c) for c in rng.permutation(COLORS)]
    if task in ("single_object", "colors"):
        return [(str(rng.choice(SHAPES)), colors[0])]
    if task == "counting":
        return [(str(rng.choice(SHAPES)), colors[0])] * int(rng.integers(2, 5))
    first, second = (str(s) for s in rng.permutation(SHAPES)[:2])
    return [(first, colors[0]), (second, colors[1])]


def _draw_angle(rng: np.random.Generator, shape: str) -> float:
    return round(float(rng.uniform(-10, 10)), 1) if shape != "circle" else 0.0


def _place(
    rng: np.random.Generator, sizes: np.ndarray, width: int, height: int
) -> list[tuple[float, float]] | None:
    """Centres such that no two shapes come nearer than 4% of the shorter side, or None."""
    short = min(width, height)
    for _ in range(60):
        places: list[tuple[float, float]] = []
        for i, size in enumerate(sizes):
            half_x, half_y = (size / 2 + 0.02) * short / width, (size / 2 + 0.02) * short / height
            x, y = float(rng.uniform(half_x, 1 - half_x)), float(rng.uniform(half_y, 1 - half_y))
            apart = all(
                max(abs(x - u) * width, abs(y - v) * height) > ((size + sizes[j]) / 2 + 0.04) * short
                for j, (u, v) in enumerate(places)
            )
            if not apart:
                break
            places.append((x, y))
            if i == len(sizes) - 1:
                return places
    return None
