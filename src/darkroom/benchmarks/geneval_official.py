"""GenEval's 553 prompts, drawn from the names of the classes as its authors drew them (arXiv 2310.11513).

A hundred of each task but the single objects, of which every class has one; those that come twice count once.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from darkroom.benchmarks.base import Record
from darkroom.benchmarks.coco import CLASSES

SEED, NUM_DRAWN = 43, 100
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
POSITIONS = ("left of", "right of", "above", "below")
NUMBERS = {2: "two", 3: "three", 4: "four"}
# Of the authors' evaluation_metadata.jsonl.
SHA256 = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"


def official_records() -> list[Record]:
    """The records, in the authors' order.

    Raises:
        ValueError: this NumPy draws other numbers than theirs.
    """
    records = _drawn()
    if hashlib.sha256(metadata_text(records).encode()).hexdigest() != SHA256:
        raise ValueError(
            f"draw.prompts: NumPy {np.__version__} does not draw the prompts of GenEval's authors; name their"
            " evaluation_metadata.jsonl with path: FILE"
        )
    return [dict(record) for record in records]


def metadata_text(records: list[Record]) -> str:
    """The records as GenEval's metadata file has them, one a line."""
    return "".join(f"{json.dumps(record)}\n" for record in records)


@cache
def _drawn() -> list[Record]:
    # The order in which numbers are drawn is part of the prompts.
    rng = np.random.default_rng(SEED)
    singles = rng.choice(len(CLASSES), size=len(CLASSES), replace=False)
    records = [_record("single_object", f"a photo of {_a(CLASSES[i])}", _item(CLASSES[i])) for i in singles]
    tasks: tuple[Callable[[np.random.Generator], Record], ...] = (
        _two_objects,
        _counting,
        _colors,
        _position,
        _color_binding,
    )
    records += [draw(rng) for draw in tasks for _ in range(NUM_DRAWN)]
    return list({json.dumps(record): record for record in records}.values())


def _two_objects(rng: np.random.Generator) -> Record:
    one, other = _pair(rng)
    return _record("two_object", f"a photo of {_a(one)} and {_a(other)}", _item(one), _item(other))


def _counting(rng: np.random.Generator) -> Record:
    name = CLASSES[rng.choice(len(CLASSES))]
    number = int(rng.integers(min(NUMBERS), max(NUMBERS), endpoint=True))
    # Their plurals: "benchs" is one of them.
    plural = f"{name}es" if name.endswith("s") else f"{name}s"
    prompt = f"a photo of {NUMBERS[number]} {plural}"
    return {
        "tag": "counting",
        "include": [_item(name, number)],
        "exclude": [_item(name, number + 1)],
        "prompt": prompt,
    }


def _colors(rng: np.random.Generator) -> Record:
    # People, the first class, have no colours.
    name = CLASSES[rng.choice(len(CLASSES) - 1) + 1]
    color = COLORS[rng.choice(len(COLORS))]
    return _record("colors", f"a photo of {_a(color)} {name}", _item(name) | {"color": color})


def _position(rng: np.random.Generator) -> Record:
    name, reference = _pair(rng)
    relation = POSITIONS[rng.choice(len(POSITIONS))]
    placed = _item(name) | {"position": [relation, 0]}
    return _record("position", f"a photo of {_a(name)} {relation} {_a(reference)}", _item(reference), placed)


def _color_binding(rng: np.random.Generator) -> Record:
    names = [CLASSES[i + 1] for i in rng.choice(len(CLASSES) - 1, size=2, replace=False)]
    colors = [COLORS[i] for i in rng.choice(len(COLORS), size=2, replace=False)]
    items = [_item(name) | {"color": color} for name, color in zip(names, colors, strict=True)]
    told = (f"{_a(color)} {name}" for name, color in zip(names, colors, strict=True))
    return _record("color_attr", f"a photo of {' and '.join(told)}", *items)


def _pair(rng: np.random.Generator) -> Iterator[str]:
    return (CLASSES[i] for i in rng.choice(len(CLASSES), size=2, replace=False))


def _item(name: str, count: int = 1) -> Record:
    return {"class": name, "count": count}


def _record(tag: str, prompt: str, *include: Record) -> Record:
    return {"tag": tag, "include": list(include), "prompt": prompt}


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
