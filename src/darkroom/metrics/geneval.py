"""GenEval as a metric: the share of pictures that show what their prompt asks for, by task."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl
from pydantic import Field, field_validator

from darkroom.benchmarks.base import Record
from darkroom.benchmarks.geneval import asks_for_objects
from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.detectors import DETECTORS, Detector, load_detector
from darkroom.metrics.rules import Detection, Rules, judge
from darkroom.settings.base import Section


class GenEval(Section):
    """GenEval: whether pictures show the objects, numbers, colours and positions that are asked for."""

    detector: str = Field(description=f"object detector: {' or '.join(DETECTORS)}")

    @field_validator("detector")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in DETECTORS:
            raise ValueError(f"no such detector; known: {', '.join(DETECTORS)}")
        return name


def measure(section: GenEval, inputs: Inputs) -> Measured:
    """Judge every picture whose record asks for something.

    Raises:
        RuntimeError: the detector does not pass its self-test.
    """
    detector = load_detector(section.detector)
    width, height = next(iter(inputs.drawn.values())).size_px
    tested = detector.self_test(width * height)
    rows = []
    for drawn in inputs.drawn.values():
        places = drawn.table().select("model", "prompt_index", "picture").iter_rows(named=True)
        for place, picture in zip(places, drawn.pictures(), strict=True):
            rows.append(place | _judged(detector, picture, inputs.records[place["prompt_index"]]))
    schema = {"correct": pl.Boolean, "reason": pl.String, "detections": pl.String}
    table = pl.DataFrame(rows, schema_overrides=schema)
    rules = Rules()
    protocol = {
        "definition": f"GenEval's rules, detector {detector.name}",
        "detector": detector.name,
        "self_test": tested["overall"],
        "threshold": rules.threshold,
        "counting_threshold": rules.counting_threshold,
    }
    correct = table["correct"]
    return Measured(table, protocol, {"correct": int(correct.sum()), "not_judged": correct.null_count()})


def silent_on(records: Sequence[Record]) -> str:
    """Why GenEval says nothing of prompts: no record says what its picture must hold."""
    if any(asks_for_objects(record) for record in records):
        return ""
    return "GenEval does not apply: no prompt says which objects its picture must hold (include, exclude)"


def _judged(detector: Detector, picture: Any, record: Record) -> dict[str, Any]:
    if not asks_for_objects(record):
        return {"correct": None, "reason": None, "detections": None}
    found = detector.detect(picture)
    verdict = judge(picture, found, record, detector.classify_color)
    return {
        "correct": verdict.correct,
        "reason": "\n".join(verdict.reasons),
        "detections": json.dumps([_plain(d) for d in found]),
    }


def _plain(detection: Detection) -> dict[str, Any]:
    return {
        "class": detection.name,
        "color": detection.color,
        "score": round(detection.score, 4),
        "box": [round(side, 2) for side in detection.box],
    }


SPEC = Metric(
    name="geneval",
    section=GenEval,
    measure=measure,
    label="GenEval",
    direction="higher",
    digits=2,
    summary="by_task",
    column="correct",
    silent_on=silent_on,
)
