"""GenEval as a metric: the share of pictures that show what their prompt asks for, by task."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

import polars as pl
from pydantic import Field, model_validator

from darkroom.benchmarks.base import Record
from darkroom.benchmarks.geneval import asks_for_objects
from darkroom.components.base import Component, ComponentOf
from darkroom.imports import quick_imports
from darkroom.metrics.base import VARIANT, Inputs, Measured, Metric
from darkroom.metrics.detectors import (
    DETECTORS,
    Detector,
    check_component_detector,
    detector_of_component,
    load_detector,
)
from darkroom.metrics.rules import Detection, Rules, judge
from darkroom.settings.base import ADDED, Section


class GenEval(Section):
    """GenEval: whether pictures show the objects, numbers, colours and positions that are asked for."""

    detector: Annotated[str, ComponentOf("object_detector", DETECTORS)] = Field(
        description=f"object detector: {' or '.join(DETECTORS)}, or the name of one in config/components.yaml"
    )
    clip: Annotated[Annotated[str, ComponentOf("clip")] | None, ADDED] = Field(
        None,
        description="name of a CLIP, which tells colours of what a component finds; openai-clip-l is GenEval's",
    )
    threshold: Annotated[float, ADDED] = Field(
        Rules.threshold, ge=0, lt=1, description="objects count whose score is above it"
    )
    counting_threshold: Annotated[float, ADDED] = Field(
        Rules.counting_threshold, ge=0, lt=1, description="the same where their number is asked for"
    )

    @model_validator(mode="after")
    def _clip_goes_with_a_component(self) -> Self:
        if self.clip is not None and self.detector in DETECTORS:
            raise ValueError(f"clip: {self.detector} tells colours itself; leave it out")
        return self


def measure(section: GenEval, inputs: Inputs) -> Measured:
    """Judge every picture whose record asks for something.

    Raises:
        ValueError: the detector's files are not what they should be, or it does not know a class.
        RuntimeError: the detector does not pass its self-test.
    """
    rules = Rules(threshold=section.threshold, counting_threshold=section.counting_threshold)
    detector, told = _detector(section, inputs, rules)
    if detector.self_test is not None:
        width, height = next(iter(inputs.drawn.values())).size_px
        told["self_test"] = detector.self_test(width * height)["overall"]
    rows = []
    for drawn in inputs.drawn.values():
        places = drawn.table().select("model", "prompt_index", "picture").iter_rows(named=True)
        for place, picture in zip(places, drawn.pictures(), strict=True):
            rows.append(place | _judged(detector, rules, picture, inputs.records[place["prompt_index"]]))
    schema = {"correct": pl.Boolean, "reason": pl.String, "detections": pl.String}
    table = pl.DataFrame(rows, schema_overrides=schema)
    protocol = {
        "definition": f"GenEval's rules, detector {detector.name}",
        "detector": detector.name,
        **told,
        "threshold": rules.threshold,
        "counting_threshold": rules.counting_threshold,
    }
    correct = table["correct"]
    return Measured(table, protocol, {"correct": int(correct.sum()), "not_judged": correct.null_count()})


def _detector(section: GenEval, inputs: Inputs, rules: Rules) -> tuple[Detector, dict[str, Any]]:
    """The section's detector, and what its protocol tells besides the name."""
    if section.detector in DETECTORS:
        return load_detector(section.detector), {}
    colors: Any = _colors_nobody_asked_for
    judged: dict[str, Any] = {}
    if section.clip is not None:
        with quick_imports():
            from darkroom.metrics.colors import ClipColors
            from darkroom.metrics.embeddings import WithClip, load

        clip, identity = load(WithClip(clip=section.clip), inputs)
        colors = ClipColors(clip)
        judged = {"colors": {**identity, **colors.takes}}
    component = inputs.components[section.detector]
    least = min(rules.threshold, rules.counting_threshold)
    check(section, inputs.records, inputs.components)
    detector = detector_of_component(section.detector, component, inputs.records, least, colors)
    # Numbers of different detectors are different scores, so its name is part of theirs.
    return detector, {VARIANT: detector.name, **detector.told, **judged}


def _colors_nobody_asked_for(picture: Any, detection: Detection) -> str | None:
    raise AssertionError("`check` refuses prompts with colours where no CLIP tells them")


def check(section: GenEval, records: Sequence[Record], components: Mapping[str, Component]) -> None:
    """Whether these prompts can be judged by the section's detector, as far as its files tell.

    Raises:
        ValueError: it does not know a class, or nothing tells the colours that prompts ask for; names the key.
    """
    if section.detector in DETECTORS or silent_on(records):
        return
    check_component_detector(section.detector, components[section.detector], records)
    if section.clip is None and any("color" in item for r in records for item in r.get("include") or ()):
        raise ValueError(
            f"measure.geneval.clip: prompts ask for colours, which {section.detector} does not tell; name a CLIP"
            " of config/components.yaml"
        )


def silent_on(records: Sequence[Record]) -> str:
    """Why GenEval says nothing of prompts: no record says what its picture must hold."""
    if any(asks_for_objects(record) for record in records):
        return ""
    return "GenEval does not apply: no prompt says which objects its picture must hold (include, exclude)"


def _judged(detector: Detector, rules: Rules, picture: Any, record: Record) -> dict[str, Any]:
    if not asks_for_objects(record):
        return {"correct": None, "reason": None, "detections": None}
    found = detector.detect(picture)
    verdict = judge(picture, found, record, detector.classify_color, rules)
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
    check=check,
)
