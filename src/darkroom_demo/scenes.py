"""Scenes of coloured shapes: what is in a picture, drawn at random from a seed.

A scene is about one of GenEval's six tasks. Some combinations are held out: no training scene shows
them, and the evaluation prompts (`prompts.py`) ask for exactly those.
"""

from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

from darkroom.metrics.geometry import relations

SHAPES = ("circle", "square", "triangle", "cross")
COLORS = ("red", "yellow", "green", "blue", "purple", "black")
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PATTERNS = ("plain", "striped", "checked", "speckled")
GROUNDS = ("white", "grey", "cream", "pale blue")
RELATIONS = ("left of", "right of", "above", "below")

# (colour, shape) of a single thing.
HELD_OUT_COLORED = (
    ("red", "triangle"),
    ("yellow", "circle"),
    ("green", "cross"),
    ("blue", "square"),
    ("purple", "circle"),
)
# (number, shape) of equal things.
HELD_OUT_COUNTED = ((2, "cross"), (3, "circle"), (4, "triangle"))
# (subject, relation, reference); told from the other side, it is the same combination.
HELD_OUT_RELATIONS = (
    ("circle", "left of", "cross"),
    ("cross", "above", "circle"),
    ("square", "left of", "triangle"),
    ("triangle", "above", "square"),
    ("cross", "left of", "square"),
    ("circle", "above", "square"),
    ("triangle", "left of", "circle"),
    ("triangle", "above", "cross"),
)
# Two shapes in no single relation: nothing but "and" stands between them.
HELD_OUT_UNRELATED = (("circle", "cross"), ("square", "triangle"))
# So many coloured pairs, such as a red circle and a blue cross, wherever they stand.
_NUM_COLORED_PAIRS = 28
_COLORED_PAIRS_SEED = 20231017
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

_ASPECT_RATIOS = (0.5, 0.6, 0.67, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 1.67, 2.0)
_SIZES = {1: (0.50, 0.72), 2: (0.38, 0.45), 3: (0.36, 0.43), 4: (0.36, 0.42)}
# Centres in units of the picture's sides.
_CELLS = np.array([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)])
_PAIRS = {
    "row": np.array([(0.25, 0.5), (0.75, 0.5)]),
    "column": np.array([(0.5, 0.25), (0.5, 0.75)]),
    "diagonal": np.array([(0.25, 0.25), (0.75, 0.75)]),
}
_ARRANGEMENT_SHARES = (0.36, 0.36, 0.28)
# Scenes whose things are all black, as drawn in ink; not where colours are the task.
_INK_SHARE = 0.5
_MARGIN = 0.02
_PAIR_JITTER = 0.04
_TASK_SHARES = (0.14, 0.10, 0.22, 0.14, 0.20, 0.20)
# A square is cut out only where more than this share of the longer side goes, and nothing that is shown.
_CUT_OFF, _MARGIN_PX = 1 / 6, 2


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


def relation(scene: Scene) -> str | None:
    """The one GenEval relation of the first thing to the second, or None (none, or a diagonal)."""
    if len(scene.things) != 2 or scene.things[0].shape == scene.things[1].shape:
        return None
    first, second = (thing.box(scene.width, scene.height) for thing in scene.things)
    found = relations(first, second)
    return next(iter(found)) if len(found) == 1 else None


def converse(subject: str, name: str, reference: str) -> tuple[str, str, str]:
    """The same relation told from the other side: a left of b -> b right of a."""
    return reference, _OPPOSITE[name], subject


@cache
def held_out_colored_pairs() -> tuple[tuple[tuple[str, str], tuple[str, str]], ...]:
    """Pairs of (colour, shape) that no training scene shows together, in the order in which prompts name them."""
    kinds = [(color, shape) for shape in SHAPES for color in COLORS]
    pairs = [(a, b) for a, b in combinations(kinds, 2) if a[0] != b[0] and a[1] != b[1]]
    rng = np.random.default_rng(_COLORED_PAIRS_SEED)
    chosen = [pairs[i] for i in sorted(rng.choice(len(pairs), size=_NUM_COLORED_PAIRS, replace=False))]
    return tuple((b, a) if rng.random() < 0.5 else (a, b) for a, b in chosen)


def is_held_out(scene: Scene) -> bool:
    """Whether a scene shows a combination that is kept for the evaluation."""
    kinds = [(thing.color, thing.shape) for thing in scene.things]
    shapes = [thing.shape for thing in scene.things]
    if len(kinds) == 1:
        return kinds[0] in HELD_OUT_COLORED
    if len(set(shapes)) == 1:
        return (len(kinds), shapes[0]) in HELD_OUT_COUNTED
    if any(set(kinds) == set(pair) for pair in held_out_colored_pairs()):
        return True
    name = relation(scene)
    if name is None:
        return tuple(sorted(shapes)) in HELD_OUT_UNRELATED
    told = (shapes[0], name, shapes[1])
    return told in HELD_OUT_RELATIONS or converse(*told) in HELD_OUT_RELATIONS


def square_of(scene: Scene) -> Scene | None:
    """What the square in the middle shows, where that is all that the scene shows but for ground."""
    side = min(scene.width, scene.height)
    if side > (1 - _CUT_OFF) * max(scene.width, scene.height):
        return None
    left, top = (scene.width - side) // 2, (scene.height - side) // 2
    things = tuple(
        replace(thing, x=(thing.x * scene.width - left) / side, y=(thing.y * scene.height - top) / side)
        for thing in scene.things
    )
    square = replace(scene, width=side, height=side, things=things)
    boxes = [thing.box(side, side) for thing in things]
    is_whole = all(min(box[:2]) >= _MARGIN_PX and max(box[2:]) <= side - _MARGIN_PX for box in boxes)
    return square if is_whole and not is_held_out(square) else None


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
        if held_out is None or is_held_out(scene) == held_out:
            return scene


def _draw(rng: np.random.Generator, task: str, sides_px: tuple[int, int]) -> Scene:
    width, height = _draw_size(rng, sides_px)
    kinds = _draw_kinds(rng, task)
    sizes = rng.uniform(*_SIZES[len(kinds)], size=len(kinds))
    places = _place(rng, sizes, width, height)
    things = tuple(
        Thing(shape, color, round(x, 4), round(y, 4), round(float(size), 4), _draw_angle(rng, shape))
        for (shape, color), (x, y), size in zip(kinds, places, sizes, strict=True)
    )
    pattern = str(rng.choice(PATTERNS, p=(0.7, 0.1, 0.1, 0.1)))
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
    if task not in ("colors", "color_attr") and rng.random() < _INK_SHARE:
        colors = ["black"] * len(colors)
    if task in ("single_object", "colors"):
        return [(str(rng.choice(SHAPES)), colors[0])]
    if task == "counting":
        return [(str(rng.choice(SHAPES)), colors[0])] * int(rng.integers(2, 5))
    first, second = (str(s) for s in rng.permutation(SHAPES)[:2])
    return [(first, colors[0]), (second, colors[1])]


def _draw_angle(rng: np.random.Generator, shape: str) -> float:
    return round(float(rng.uniform(-10, 10)), 1) if shape != "circle" else 0.0


def _place(rng: np.random.Generator, sizes: np.ndarray, width: int, height: int) -> list[tuple[float, float]]:
    """Centres. One shape stands anywhere; more stand each in a cell of its own of a 2 x 2 grid.

    Two of them share a row or a column, which is shifted as a whole, or stand on a diagonal, the first at the
    top left.
    """
    short = min(width, height)
    reach = [(size * short / width / 2 + _MARGIN, size * short / height / 2 + _MARGIN) for size in sizes]
    if len(sizes) == 1:
        return [
            (0.5 + (0.5 - reach[0][0]) * rng.uniform(-1, 1), 0.5 + (0.5 - reach[0][1]) * rng.uniform(-1, 1))
        ]
    cells = _CELLS[rng.permutation(len(_CELLS))[: len(sizes)]]
    shift = np.zeros(2)
    if len(sizes) == 2:
        arrangement = rng.choice(list(_PAIRS), p=_ARRANGEMENT_SHARES)
        cells = _PAIRS[arrangement]
        if arrangement != "diagonal":
            cells = cells[:: int(rng.choice((1, -1)))]
            across = int(arrangement == "row")
            shift[across] = rng.uniform(-1, 1) * (0.5 - max(r[across] for r in reach) - _PAIR_JITTER)
    places = []
    for cell, room in zip(cells, reach, strict=True):
        jitter = np.array([0.25 - r for r in room])
        if shift.any():
            jitter[int(shift[1] != 0)] = _PAIR_JITTER
        places.append(tuple(cell + shift + jitter * rng.uniform(-1, 1, size=2)))
    return places
