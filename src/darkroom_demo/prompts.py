"""What the demo's evaluation asks for: GenEval records of combinations that no training scene shows.

A record has GenEval's keys (arXiv 2310.11513): `tag`, `include`, `exclude` (counting alone) and
`prompt`. In a record about position the reference comes first and the subject points at it.
"""

from collections.abc import Iterator
from typing import Any

from darkroom_demo.captions import NUMBERS, PLURALS
from darkroom_demo.scenes import (
    HELD_OUT_COLORED,
    HELD_OUT_COUNTED,
    HELD_OUT_RELATIONS,
    HELD_OUT_UNRELATED,
    SHAPES,
    Scene,
    converse,
    held_out_colored_pairs,
    relation,
)

Record = dict[str, Any]


def prompt_records() -> list[Record]:
    """The demo's records, task by task in GenEval's order; always the same ones."""
    return [
        *_single_objects(),
        *_two_objects(),
        *_countings(),
        *_colors(),
        *_positions(),
        *_color_attributes(),
    ]


def _single_objects() -> Iterator[Record]:
    # Training captions tell a single shape's colour or say "one circle": these are new as sentences only.
    for shape in SHAPES:
        yield _record("single_object", f"a {shape}", [{"class": shape, "count": 1}])


def _two_objects() -> Iterator[Record]:
    for pair in HELD_OUT_UNRELATED:
        for first, second in (pair, pair[::-1]):
            include = [{"class": first, "count": 1}, {"class": second, "count": 1}]
            yield _record("two_object", f"a {first} and a {second}", include)


def _countings() -> Iterator[Record]:
    for count, shape in HELD_OUT_COUNTED:
        record = _record("counting", f"{NUMBERS[count]} {PLURALS[shape]}", [{"class": shape, "count": count}])
        yield {**record, "exclude": [{"class": shape, "count": count + 1}]}


def _colors() -> Iterator[Record]:
    for color, shape in HELD_OUT_COLORED:
        include = [{"class": shape, "count": 1, "color": color}]
        yield _record("colors", f"a {color} {shape}", include)


def _positions() -> Iterator[Record]:
    for told in HELD_OUT_RELATIONS:
        for subject, name, reference in (told, converse(*told)):
            include = [
                {"class": reference, "count": 1},
                {"class": subject, "count": 1, "position": [name, 0]},
            ]
            yield _record("position", f"a {subject} {name} a {reference}", include)


def _color_attributes() -> Iterator[Record]:
    for pair in held_out_colored_pairs():
        include = [{"class": shape, "count": 1, "color": color} for color, shape in pair]
        (color, first), (other, second) = pair
        yield _record("color_attr", f"a {color} {first} and a {other} {second}", include)


def _record(tag: str, what: str, include: list[Record]) -> Record:
    return {"tag": tag, "include": include, "prompt": f"a photo of {what}"}


def scene_record(scene: Scene) -> Record:
    """What a scene shows as a record of its own task, so that its picture must be judged right.

    A pair that stands in no single relation is asked for without one.
    """
    kinds = [(thing.shape, thing.color) for thing in scene.things]
    first = kinds[0][0]
    if scene.task == "counting":
        include = [{"class": first, "count": len(kinds)}]
        record = _record(scene.task, f"{NUMBERS[len(kinds)]} {PLURALS[first]}", include)
        return {**record, "exclude": [{"class": first, "count": len(kinds) + 1}]}
    if scene.task == "position":
        name = relation(scene)
        position = {"position": [name, 0]} if name else {}
        include = [{"class": kinds[1][0], "count": 1}, {"class": first, "count": 1, **position}]
        return _record(scene.task, f"a {first} {name or 'and'} a {kinds[1][0]}", include)
    colored = scene.task in ("colors", "color_attr")
    include = [{"class": s, "count": 1, **({"color": c} if colored else {})} for s, c in kinds]
    names = [f"a {c} {s}" if colored else f"a {s}" for s, c in kinds]
    return _record(scene.task, " and ".join(names), include)
