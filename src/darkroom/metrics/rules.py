"""GenEval: whether a picture shows what its prompt asks for (arXiv 2310.11513, sections 3 and 4).

The rules of djghosh13/geneval, apart from any detector: detections go in, a verdict with its reasons
comes out. A record is one line of GenEval's metadata (`tag`, `include`, `exclude`, `prompt`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from darkroom.benchmarks.base import Record
from darkroom.benchmarks.table import ordered_tasks
from darkroom.metrics.geometry import relations

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """One object found in a picture.

    Attributes:
        name: its class.
        box: (left, top, right, bottom) in pixels, y downwards.
        score: the detector's confidence, 0 to 1.
        mask: which pixels belong to it: bool, (height, width); None where the detector has none.
        color: its colour where the detector tells one.
    """

    name: str
    box: Box
    score: float
    mask: np.ndarray | None = None
    color: str | None = None


ColorClassifier = Callable[[np.ndarray, Detection], str | None]


@dataclass(frozen=True)
class Rules:
    """GenEval's numbers. `max_overlap` 1 leaves overlapping boxes alone, which is its default."""

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    position_threshold: float = 0.1


@dataclass(frozen=True)
class Verdict:
    """Whether a picture is right, and every requirement that it fails."""

    correct: bool
    reasons: tuple[str, ...]


def judge(
    picture: np.ndarray,
    detections: Sequence[Detection],
    record: Record,
    classify_color: ColorClassifier,
    rules: Rules = Rules(),
) -> Verdict:
    """Compare the objects found in a picture with what its record asks for.

    Extra objects are allowed unless `exclude` speaks of them.

    Args:
        picture: uint8, (height, width, 3), RGB; seen by `classify_color` alone.
        detections: what a detector found, in any order.
        record: one record of GenEval's metadata.
        classify_color: names the colour of one object; called only where a colour is asked for.
        rules: thresholds.
    """
    threshold = rules.counting_threshold if record["tag"] == "counting" else rules.threshold
    found = {name: _select(detections, name, threshold, rules) for name in {d.name for d in detections}}
    reasons: list[str] = []
    groups: list[list[Detection] | None] = []
    for item in record.get("include", []):
        objects = found.get(item["class"], [])[: item["count"]]
        failure = _check(picture, objects, item, groups, classify_color, rules)
        groups.append(None if failure else objects)
        if failure:
            reasons.append(failure)
    for item in record.get("exclude", []):
        number = len(found.get(item["class"], []))
        if number >= item["count"]:
            reasons.append(f"expected {item['class']}<{item['count']}, found {number}")
    return Verdict(not reasons, tuple(reasons))


def box_iou(box: Box, other: Box) -> float:
    """Intersection over union of two boxes whose right and bottom pixels belong to them."""
    width = min(box[2], other[2]) - max(box[0], other[0]) + 1
    height = min(box[3], other[3]) - max(box[1], other[1]) + 1
    shared = max(width, 0) * max(height, 0)
    return shared / (_area(box) + _area(other) - shared)


def summarise(results: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """Shares of right pictures from (task, correct) of every picture.

    Returns each task's share, `overall` (GenEval's: the mean of the tasks' shares) and `micro` (over all
    pictures).

    Raises:
        ValueError: there is no picture.
    """
    by_task: dict[str, list[bool]] = {}
    for task, correct in results:
        by_task.setdefault(task, []).append(bool(correct))
    if not by_task:
        raise ValueError("GenEval of no pictures: draw at least one")
    shares = {task: float(np.mean(by_task[task])) for task in ordered_tasks(by_task)}
    everything = [correct for values in by_task.values() for correct in values]
    return {"overall": float(np.mean(list(shares.values()))), "micro": float(np.mean(everything)), **shares}


def _select(detections: Sequence[Detection], name: str, threshold: float, rules: Rules) -> list[Detection]:
    """The detections of one class that count: the most confident ones, best first."""
    confident = [d for d in detections if d.name == name and d.score > threshold]
    queue = sorted(confident, key=lambda d: -d.score)[: rules.max_objects]
    if rules.max_overlap >= 1:
        return queue
    kept: list[Detection] = []
    for detection in queue:
        if all(box_iou(detection.box, better.box) < rules.max_overlap for better in kept):
            kept.append(detection)
    return kept


def _check(
    picture: np.ndarray,
    objects: list[Detection],
    item: Record,
    groups: list[list[Detection] | None],
    classify_color: ColorClassifier,
    rules: Rules,
) -> str | None:
    """Why the objects found do not meet a requirement; None when they do."""
    name, count = item["class"], item["count"]
    if len(objects) < count:
        return f"expected {name}>={count}, found {len(objects)}"
    if "color" in item:
        colors = [classify_color(picture, found) for found in objects]
        right = colors.count(item["color"])
        if right < count:
            seen = ", ".join(color or "none" for color in colors)
            return f"expected {item['color']} {name}>={count}, found {right} ({seen})"
    if "position" not in item:
        return None
    wanted, index = item["position"]
    targets = groups[index]
    if targets is None:
        return f"no target for {name} to be {wanted}"
    for found in objects:
        for target in targets:
            actual = relations(found.box, target.box, rules.position_threshold)
            if wanted not in actual:
                seen = " and ".join(sorted(actual)) or "no relation"
                return f"expected {name} {wanted} {target.name}, found {seen}"
    return None


def _area(box: Box) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
