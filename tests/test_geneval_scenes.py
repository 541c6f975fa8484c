"""GenEval on pictures that nobody here drew: the verdicts agree with what is known of the scenes."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from cutout_scenes import Hues, Scene, scenes, sheet, single_objects
from doc_pages import DOCS, rows_after
from PIL import Image
from tfjs_models import to_onnx

from darkroom.benchmarks.coco import CLASSES
from darkroom.benchmarks.table import ordered_tasks, task_label
from darkroom.components.base import Component
from darkroom.metrics.base import Inputs
from darkroom.metrics.colors import ClipColors
from darkroom.metrics.rules import Detection, Rules, box_iou, judge
from darkroom.metrics.table import METRICS

OUTPUT = "tower_0/detections"
OPTIONS = {
    "file": "centernet.onnx", "classes": CLASSES, "size_px": 512, "layout": "nhwc", "gives": "rows",
    "max_overlap": 0.5,
}  # fmt: skip
# This detector is sure of next to nothing, so 0.9 would count none.
RULES = Rules(counting_threshold=0.3)
HEADER = "| Task | Scenes | What they show is right | What they do not show is wrong |"
# What another processor's rounding may change of a figure.
MARGIN = 2
SHOWN_OF_A_TASK = 5
MISSED = re.compile(r"expected [a-z ]+(>=\d, found \d|<\d, found \d)|no target for [a-z ]+ to be [a-z ]+")


@dataclass(frozen=True)
class Drawn:
    """Scenes that stand for drawn pictures, one for each prompt."""

    found: Sequence[Scene]

    def table(self) -> pl.DataFrame:
        number = len(self.found)
        return pl.DataFrame(
            {"model": ["scenes"] * number, "prompt_index": range(number), "picture": [0] * number}
        )

    @property
    def size_px(self) -> tuple[int, int]:
        return self.found[0].picture.shape[1], self.found[0].picture.shape[0]

    def pictures(self) -> Iterator[np.ndarray]:
        return (scene.picture for scene in self.found)


@dataclass(frozen=True)
class Judged:
    """A scene, the verdict on what it shows with its reasons, and whether what it does not show is found in it."""

    scene: Scene
    correct: bool
    reasons: Sequence[str]
    fooled: bool
    detections: Sequence[Detection]


def judged(found: Sequence[Scene], detector: Component, clip: Any) -> list[Judged]:
    section = METRICS["geneval"].section(
        detector="centernet",
        clip="hues",
        threshold=RULES.threshold,
        counting_threshold=RULES.counting_threshold,
    )
    inputs = Inputs(
        {"scenes": Drawn(found)}, [scene.shown for scene in found], {"centernet": detector, "hues": clip}
    )
    table = METRICS["geneval"].measure(section, inputs).table
    colors, rows = ClipColors(Hues()), []
    for scene, row in zip(found, table.iter_rows(named=True), strict=True):
        told = json.loads(row["detections"])
        detections = [Detection(one["class"], tuple(one["box"]), one["score"]) for one in told]
        fooled = judge(scene.picture, detections, scene.not_shown, colors, RULES).correct
        rows.append(Judged(scene, row["correct"], row["reason"].splitlines(), fooled, detections))
    return rows


def covered(one: Detection, better: Sequence[Detection]) -> bool:
    return any(box_iou(one.box, other.box) > 0.6 for other in better)


@pytest.fixture(scope="module")
def verdicts(
    unpacked: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Sequence[Judged]]:
    """Task -> the scenes, judged."""
    folder = tmp_path_factory.mktemp("centernet")
    model = unpacked("@vladmandic/human@3.3.6") / "package/models/centernet.json"
    (folder / "centernet.onnx").write_bytes(to_onnx(model, OUTPUT))
    detector = Component(kind="object_detector", path=str(folder), onnx_detector=OPTIONS)
    stamps = unpacked("tuxpaint-stamps-default=2022.06.04-1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("darkroom.metrics.embeddings.load", lambda *_: (Hues(), {"name": "hues"}))
        alone = single_objects(stamps)
        rows = judged(list(alone.values()), detector, detector)
        # The other scenes are of what it knows alone: they ask for numbers, places and colours.
        known = [file for file, row in zip(alone, rows, strict=True) if row.correct]
        rows += judged(list(scenes(stamps, known)), detector, detector)
    tasks = ordered_tasks(row.scene.shown["tag"] for row in rows)
    return {task: [row for row in rows if row.scene.shown["tag"] == task] for task in tasks}


@pytest.mark.real
def test_verdicts_agree_with_what_is_known_of_the_scenes_as_the_docs_tell(
    verdicts: Mapping[str, Sequence[Judged]],
) -> None:
    told = {row[0]: row[1:] for row in rows_after((DOCS / "evaluate.md").read_text(), HEADER)}
    assert list(told) == [task_label(task) for task in verdicts]
    for task, rows in verdicts.items():
        number, right, not_fooled = map(int, told[task_label(task)])
        assert number == len(rows)
        assert abs(sum(row.correct for row in rows) - right) <= MARGIN, task
        assert abs(sum(not row.fooled for row in rows) - not_fooled) <= MARGIN, task


@pytest.mark.real
def test_where_the_detector_finds_the_objects_places_and_colours_are_judged_right(
    verdicts: Mapping[str, Sequence[Judged]],
) -> None:
    reasons = Counter(
        reason
        for rows in verdicts.values()
        for row in rows
        for reason in row.reasons
        if not MISSED.fullmatch(reason)
    )
    assert not reasons
    for task in ("position", "colors", "color_attr"):
        assert not any(row.fooled for row in verdicts[task])


@pytest.mark.real
def test_the_picture_of_the_docs_shows_scenes_of_each_task(
    verdicts: Mapping[str, Sequence[Judged]], tmp_path: Path
) -> None:
    spread = [found[:: len(found) // SHOWN_OF_A_TASK][:SHOWN_OF_A_TASK] for found in verdicts.values()]
    rows = [row for found in spread for row in found]
    # Of two names for one object the likelier is written.
    boxes = [
        [
            (one.box, one.name)
            for place, one in enumerate(row.detections)
            if not covered(one, row.detections[:place])
        ]
        for row in rows
    ]
    drawn = sheet([row.scene for row in rows], boxes, SHOWN_OF_A_TASK)
    drawn.save(tmp_path / "geneval-scenes.png", optimize=True)
    with Image.open(DOCS / "geneval-scenes.png") as shown:
        assert shown.size == drawn.size, f"copy {tmp_path / 'geneval-scenes.png'}"
        gap = np.abs(np.asarray(shown.convert("RGB"), np.int16) - np.asarray(drawn, np.int16)).mean()
    assert gap < 1, f"the picture of the docs is another: copy {tmp_path / 'geneval-scenes.png'}"
