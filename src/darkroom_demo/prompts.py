"""What the demo's evaluation asks for: GenEval records of combinations that no training scene shows.

A record has GenEval's keys (arXiv 2310.11513): `tag`, `include`, `exclude` (counting alone) and
`prompt`. In a record about position the reference comes first and the subject points at it.
"""

from collections.abc import Iterator
from typing import Any

from darkroom_demo.captions import NUMBERS, PLURALS
from darkroom_demo.scenes import (
    GROUNDS,
    HELD_OUT_COLORED,
    HELD_OUT_COUNTED,
    HELD_OUT_RELATIONS,
    HELD_OUT_UNRELATED,
    PATTERNS,
    SHAPES,
    Scene,
    converse,
    held_out_colored_pairs,
    relation,
)

Record = dict[str, Any]
# What a prompt asks for, and the records of what has to be there.
_Asked = tuple[str, list[Record]]

NUM_PROMPTS_A_TASK = 44
"""So many that a task's interval says something: the plain ones first, then the same ones on grounds."""


def prompt_records() -> list[Record]:
    """The demo's records, task by task in GenEval's order; always the same ones."""
    tasks = {
        "single_object": _single_objects(),
        "two_object": _two_objects(),
        "counting": _countings(),
        "colors": _colors(),
        "position": _positions(),
        "color_attr": _color_attributes(),
    }
    return [
        _counted(record) if task == "counting" else record
        for task, asked in tasks.items()
        for record in (_record(task, *each) for each in _on_grounds(list(asked)))
    ]


def _on_grounds(plain: list[_Asked]) -> Iterator[_Asked]:
    """These, and the same ones on other grounds each time: no caption of this form tells a ground."""
    yield from plain
    grounds = [f"on a {pattern} {ground} ground" for ground in GROUNDS for pattern in PATTERNS]
    for place in range(NUM_PROMPTS_A_TASK - len(plain)):
        times, which = divmod(place, len(plain))
        what, include = plain[which]
        # Three is coprime to the sixteen grounds: each prompt meets all of them before one comes again.
        yield f"{what} {grounds[(which + 3 * times) % len(grounds)]}", include


def _single_objects() -> Iterator[_Asked]:
    # Training captions tell a single shape's colour or say "one circle": these are new as sentences only.
    for shape in SHAPES:
        yield f"a {shape}", [{"class": shape, "count": 1}]


def _two_objects() -> Iterator[_Asked]:
    for pair in HELD_OUT_UNRELATED:
        for first, second in (pair, pair[::-1]):
            yield f"a {first} and a {second}", [{"class": first, "count": 1}, {"class": second, "count": 1}]


def _countings() -> Iterator[_Asked]:
    for count, shape in HELD_OUT_COUNTED:
        yield f"{NUMBERS[count]} {PLURALS[shape]}", [{"class": shape, "count": count}]


def _colors() -> Iterator[_Asked]:
    for color, shape in HELD_OUT_COLORED:
        yield f"a {color} {shape}", [{"class": shape, "count": 1, "color": color}]


def _positions() -> Iterator[_Asked]:
    for told in HELD_OUT_RELATIONS:
        for subject, name, reference in (told, converse(*told)):
            include = [
                {"class": reference, "count": 1},
                {"class": subject, "count": 1, "position": [name, 0]},
            ]
            yield f"a {subject} {name} a {reference}", include


def _color_attributes() -> Iterator[_Asked]:
    for pair in held_out_colored_pairs():
        include = [{"class": shape, "count": 1, "color": color} for color, shape in pair]
        (color, first), (other, second) = pair
        yield f"a {color} {first} and a {other} {second}", include


def _counted(record: Record) -> Record:
    """The record with GenEval's bound from above: one more than asked for is wrong."""
    (asked,) = record["include"]
    return {**record, "exclude": [{"class": asked["class"], "count": asked["count"] + 1}]}


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
        return _counted(_record(scene.task, f"{NUMBERS[len(kinds)]} {PLURALS[first]}", include))
    if scene.task == "position":
        name = relation(scene)
        position = {"position": [name, 0]} if name else {}
        include = [{"class": kinds[1][0], "count": 1}, {"class": first, "count": 1, **position}]
        return _record(scene.task, f"a {first} {name or 'and'} a {kinds[1][0]}", include)
    colored = scene.task in ("colors", "color_attr")
    include = [{"class": s, "count": 1, **({"color": c} if colored else {})} for s, c in kinds]
    names = [f"a {c} {s}" if colored else f"a {s}" for s, c in kinds]
    return _record(scene.task, " and ".join(names), include)
