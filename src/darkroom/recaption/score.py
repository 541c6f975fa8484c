"""How often captions are right, where the truth is known: the demo's pictures."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.demo.captions import claims, is_right
from darkroom.demo.photos import NAMES, photo_captions
from darkroom.demo.scenes import COLORS, RELATIONS, SHAPES, Scene
from darkroom.evaluate.geometry import relations
from darkroom.store import read_table

_NOUN = rf"(?:(?P<color{{0}}>{'|'.join(COLORS)}) )?(?P<shape{{0}}>{'|'.join(SHAPES)})"
_RELATION = re.compile(
    rf"\ba {_NOUN.format(1)} (?P<relation>{'|'.join(RELATIONS)}) a {_NOUN.format(2)}\b", re.IGNORECASE
)
_NUMBER = re.compile(r"number \"(\d+)\"")


def score_captions(tables: Sequence[str | Path], truth: str | Path) -> dict[str, Any]:
    """The shares of right captions, before and after.

    Args:
        tables: the recaption stage's part tables.
        truth: the demo's truth.parquet (row, kind, scene, good_caption).

    Returns:
        num_scenes, num_digits, num_photos; and for "original", "long" and "short" a dict of
        right (of scenes: exactly the shapes with their colours and number; the short caption's colours
        count only where it names them), by_task (task -> [right, scenes]), relation_right (of the
        captions that claim a relation, or None), num_relations, digits_right and photos_right (or None).

    Raises:
        ValueError: a captioned row is not in the truth.
    """
    captions = pl.concat(
        [read_table(t, ["row", "caption_original", "caption_long", "caption_short"]) for t in tables]
    )
    known = read_table(truth, ["row", "kind", "scene", "good_caption"])
    joined = captions.join(known, on="row", how="left").sort("row")
    for row in joined.filter(pl.col("kind").is_null()).head(1)["row"]:
        raise ValueError(f"{truth}: no row {row}, which is captioned")
    rows = joined.to_dicts()
    for row in rows:
        row["scene"] = _scene(row["scene"])
    pictures = [row for row in rows if row["scene"]]
    digits = [row for row in rows if row["kind"] == "digit"]
    photos = [row for row in rows if row["kind"] == "photo"]
    scores: dict[str, Any] = {
        "num_scenes": len(pictures),
        "num_digits": len(digits),
        "num_photos": len(photos),
    }
    for kind in ("original", "long", "short"):
        scores[kind] = {
            **_scene_scores(pictures, kind),
            "digits_right": _share([_number(row, kind) == _good_number(row) for row in digits]),
            "photos_right": _share([_same_photo(row, kind) for row in photos]),
        }
    return scores


def relation_is_true(caption: str, scene: Scene) -> bool | None:
    """Whether the relation that a caption claims holds by GenEval's rule; None when it claims none.

    A caption that names things that are not there, or there more than once, is wrong.
    """
    found = _RELATION.search(caption)
    if found is None:
        return None
    boxes = []
    for number in ("1", "2"):
        color, shape = found[f"color{number}"], found[f"shape{number}"].lower()
        things = [t for t in scene.things if t.shape == shape and (not color or t.color == color.lower())]
        if len(things) != 1:
            return False
        boxes.append(things[0].box(scene.width, scene.height))
    return found["relation"].lower() in relations(boxes[0], boxes[1])


def shapes_are_right(caption: str, scene: Scene) -> bool:
    """Whether a caption names the scene's shapes and their number, and no colour that is not there."""
    left = [(thing.shape, thing.color) for thing in scene.things]
    for (shape, color), number in sorted(claims(caption).items(), key=lambda item: item[0][1] is None):
        for _ in range(number):
            match = next((t for t in left if t[0] == shape and color in (None, t[1])), None)
            if match is None:
                return False
            left.remove(match)
    return not left


def caption_is_right(kind: str, caption: str | None, scene: Scene) -> bool:
    """Whether a caption of a kind names exactly a scene's shapes with their colours and number.

    The short caption may leave colours out; it is wrong if it names one that is not there.
    """
    return (shapes_are_right if kind == "short" else is_right)(caption or "", scene)


def _scene_scores(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    by_task: dict[str, list[int]] = {}
    related = []
    for row in rows:
        caption, scene = row[f"caption_{kind}"] or "", row["scene"]
        right = caption_is_right(kind, caption, scene)
        task = by_task.setdefault(scene.task, [0, 0])
        task[0] += right
        task[1] += 1
        related.append(relation_is_true(caption, scene))
    claimed = [value for value in related if value is not None]
    return {
        "right": sum(right for right, _ in by_task.values()) / len(rows) if rows else None,
        "by_task": dict(sorted(by_task.items())),
        "relation_right": _share(claimed),
        "num_relations": len(claimed),
    }


def _scene(value: Any) -> Scene | None:
    if value is None:
        return None
    return Scene.from_record(json.loads(value) if isinstance(value, str) else value)


def _number(row: dict[str, Any], kind: str) -> str | None:
    found = _NUMBER.search(row[f"caption_{kind}"] or "")
    return found[1] if found else None


def _good_number(row: dict[str, Any]) -> str:
    found = _NUMBER.search(row["good_caption"])
    if found is None:
        raise ValueError(f"truth of row {row['row']}: no number in {row['good_caption']!r}")
    return found[1]


def _same_photo(row: dict[str, Any], kind: str) -> bool:
    pairs = [photo_captions(name) for name in NAMES]
    return any(row["good_caption"] == pair[0] and row[f"caption_{kind}"] in pair for pair in pairs)


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
