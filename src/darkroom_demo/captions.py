"""What is said of a scene: captions, and the reading of a caption back into what it claims."""

import re
from collections import Counter

from darkroom_demo.scenes import COLORS, SHAPES, Scene, Thing, relation

NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}

_COUNTS = {"a": 1, "an": 1, **{word: number for number, word in NUMBERS.items()}}
_CLAIM = re.compile(
    rf"\b({'|'.join(_COUNTS)})(?: (?:small|large))?(?: ({'|'.join(COLORS)}))?"
    rf" ({'|'.join([*SHAPES, *PLURALS.values()])})\b"
)


def long_caption(scene: Scene) -> str:
    """Everything: shapes, colours, count, places and ground."""
    ground = f"on a {scene.pattern} {scene.ground} ground"
    if len(scene.things) == 1:
        thing = scene.things[0]
        size = "large" if thing.size > 0.55 else "small"
        return f"a {size} {thing.color} {thing.shape} {_place(thing)} {ground}"
    return f"{_objects(scene, colored=True)} {ground}"


def short_caption(scene: Scene) -> str:
    """Shapes, count and relation in GenEval's manner; the colours unless all is black, as in ink.

    A single shape without its colour is "one circle", so that GenEval's "a photo of a circle" stays a new
    sentence.
    """
    if len(scene.things) == 1 and not names_colors(scene):
        return f"a photo of one {scene.things[0].shape}"
    return f"a photo of {_objects(scene, colored=names_colors(scene))}"


def names_colors(scene: Scene) -> bool:
    """Whether a short caption tells the colours: so prompts with and without them are both like captions."""
    return any(thing.color != "black" for thing in scene.things)


def claims(caption: str) -> Counter[tuple[str, str | None]]:
    """(shape, colour or None) -> how many of them a caption claims."""
    found: Counter[tuple[str, str | None]] = Counter()
    for number, color, shape in _CLAIM.findall(caption.lower()):
        singular = next(s for s in SHAPES if shape in (s, PLURALS[s]))
        found[singular, color or None] += _COUNTS[number]
    return found


def is_right(caption: str, scene: Scene) -> bool:
    """Whether a caption names exactly the scene's shapes, with their colours and number."""
    return claims(caption) == Counter((thing.shape, thing.color) for thing in scene.things)


def _objects(scene: Scene, colored: bool) -> str:
    names = [f"{t.color} {t.shape}" if colored else t.shape for t in scene.things]
    if len(set(names)) == 1 and len(names) > 1:
        first = scene.things[0]
        plural = PLURALS[first.shape]
        return f"{NUMBERS[len(names)]} {first.color + ' ' if colored else ''}{plural}"
    if len(names) == 1:
        return f"a {names[0]}"
    return f"a {names[0]} {relation(scene) or 'and'} a {names[1]}"


def _place(thing: Thing) -> str:
    across = "left" if thing.x < 0.42 else "right" if thing.x > 0.58 else ""
    down = "top" if thing.y < 0.42 else "bottom" if thing.y > 0.58 else ""
    if across and down:
        return f"at the {down} {across}"
    if down:
        return f"at the {down}"
    return f"on the {across}" if across else "in the middle"
