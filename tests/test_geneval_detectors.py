"""GenEval by a detector of config/components.yaml, and colours by a CLIP, as the original asks for them."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, TinyProject
from PIL import Image
from tiny_detectors import gives, write_mask2former
from tiny_features import pictures

from darkroom.components.base import Component
from darkroom.components.clip import load_clip
from darkroom.evaluate.compare import compare
from darkroom.metrics.base import VARIANT, Inputs, Measured
from darkroom.metrics.colors import COLORS, ClipColors, cut_out
from darkroom.metrics.rules import Detection
from darkroom.metrics.table import METRICS
from darkroom.store import sha256_folder

CLIP = Component(kind="clip", path=str(ROOT / "src/darkroom_demo/components/clip"))
OPTIONS = {"file": "d.onnx", "size_px": 100, "gives": "rows"}
# In a picture of 100 x 100 pixels: a mouse to the left, a dog to the right, and a dog that is less sure.
ROWS = np.array([[5, 40, 25, 60, 0.95, 0], [60, 30, 90, 80, 0.92, 1], [40, 5, 50, 15, 0.4, 1]])


@dataclass
class Drawn:
    """Pictures that stand for drawn ones, one for each prompt."""

    found: Sequence[np.ndarray]

    def table(self) -> pl.DataFrame:
        number = len(self.found)
        return pl.DataFrame(
            {"model": ["trained"] * number, "prompt_index": range(number), "picture": [0] * number}
        )

    @property
    def size_px(self) -> tuple[int, int]:
        raise AssertionError("only a detector with a self-test is asked for it")

    def pictures(self) -> Iterator[np.ndarray]:
        return iter(self.found)


def write_onnx(folder: Path, rows: np.ndarray = ROWS, classes: Sequence[str] = ("mouse", "dog")) -> Component:
    folder.mkdir(exist_ok=True)
    (folder / "d.onnx").write_bytes(gives({"rows": rows[None]}, (1, 3, 100, 100)))
    return Component(
        kind="object_detector", path=str(folder), onnx_detector={**OPTIONS, "classes": tuple(classes)}
    )


def include(tag: str, *items: Any, **more: Any) -> dict[str, Any]:
    return {"tag": tag, "prompt": tag, "include": [dict(item) for item in items], **more}


MOUSE, DOG = {"class": "computer mouse", "count": 1}, {"class": "dog", "count": 1}
RECORDS = [
    include("single_object", MOUSE),
    include("position", MOUSE, {**DOG, "position": ["right of", 0]}),
    include("position", DOG, {**MOUSE, "position": ["right of", 0]}),
    include("single_object", {**DOG, "count": 2}),
    include("counting", {**DOG, "count": 2}, exclude=[{**DOG, "count": 3}]),
    {"tag": "prompts", "prompt": "a cloud", "include": []},
]
RIGHT = [True, True, False, True, False, None]


def measured(component: Component, records: list[dict[str, Any]], **options: Any) -> Measured:
    grey = np.full((100, 100, 3), 128, np.uint8)
    inputs = Inputs(
        {"trained": Drawn([grey] * len(records))},
        records,
        {"mine": component, "clip": CLIP, "other": component},
    )
    metric = METRICS["geneval"]
    return metric.measure(metric.section(**{"detector": "mine", **options}), inputs)


def test_a_component_judges_by_genevals_names_and_thresholds(tmp_path: Path) -> None:
    component = write_onnx(tmp_path / "detector")
    found = measured(component, RECORDS)
    assert found.table["correct"].to_list() == RIGHT
    assert found.counts == {"correct": 3, "not_judged": 1}
    assert found.protocol == {
        "definition": "GenEval's rules, detector mine",
        "detector": "mine",
        VARIANT: "mine",
        "sha256": sha256_folder(tmp_path / "detector"),
        "classes": ["mouse", "dog"],
        "takes": component.onnx_detector.model_dump(mode="json", exclude={"file", "classes"}),  # type: ignore[union-attr]
        "threshold": 0.3,
        "counting_threshold": 0.9,
    }
    assert METRICS["geneval"].named(found.protocol).label == "GenEval (mine)"
    first = json.loads(found.table["detections"][0])
    assert [(d["class"], d["score"]) for d in first] == [
        ("computer mouse", 0.95),
        ("dog", 0.92),
        ("dog", 0.4),
    ]
    assert first[0]["box"] == [5, 40, 25, 60]
    lower = measured(component, RECORDS, counting_threshold=0.3)
    assert lower.table["correct"].to_list() == [*RIGHT[:4], True, None]
    higher = measured(component, RECORDS, threshold=0.93)
    assert higher.table["correct"].to_list() == [True, False, False, False, False, None]


def test_numbers_of_other_detectors_thresholds_and_clips_do_not_compare(tmp_path: Path) -> None:
    one, two = write_onnx(tmp_path / "one"), write_onnx(tmp_path / "two", ROWS + [[0, 0, 0, 0, 0.01, 0]])
    record = [include("colors", {**DOG, "color": "red"})]
    first = measured(one, record, clip="clip").protocol
    write_run(tmp_path / "a", first)
    for other, key in (
        (measured(one, record, detector="other", clip="clip").protocol, "definition"),
        (measured(two, record, clip="clip").protocol, "sha256"),
        (measured(one, record, clip="clip", threshold=0.2).protocol, "threshold"),
        ({**first, "colors": {**first["colors"], "sha256": "0" * 64}}, "colors.sha256"),
    ):
        write_run(tmp_path / "b", other)
        with pytest.raises(ValueError, match=rf"protocol\.geneval\.{key} is .*do not compare"):
            compare({"a": tmp_path / "a", "b": tmp_path / "b"})


def write_run(folder: Path, protocol: Any) -> None:
    folder.mkdir(exist_ok=True)
    body = {"trained": {"geneval": {"overall": 1.0}}, "protocol": {"geneval": dict(protocol)}}
    (folder / "metrics.json").write_text(json.dumps(body))


def test_a_detector_that_lacks_a_class_is_refused_with_the_names_missing(tmp_path: Path) -> None:
    records = [*RECORDS, include("single_object", {"class": "cow", "count": 1})]
    for component in (
        write_onnx(tmp_path / "onnx"),
        write_mask2former(tmp_path / "m2f", ("person", "dog", "computer mouse")),
    ):
        with pytest.raises(
            ValueError, match=r"geneval\.detector: mine does not know cow, of which the prompts speak"
        ):
            measured(component, records)


def test_colours_need_a_clip_where_a_prompt_asks_for_one_and_only_a_component_takes_it(
    tmp_path: Path,
) -> None:
    component, record = write_onnx(tmp_path / "d"), [include("colors", {**DOG, "color": "red"})]
    with pytest.raises(
        ValueError, match=r"measure\.geneval\.clip: prompts ask for colours, which mine does not"
    ):
        measured(component, record)
    with pytest.raises(ValueError, match="clip: contour tells colours itself; leave it out"):
        METRICS["geneval"].section(detector="contour", clip="clip")
    found = measured(component, record, clip="clip").protocol["colors"]
    assert found["name"] == "clip" and found["texts"][1] == "a photo of a {color}-colored {name}"


def test_a_colour_is_the_one_whose_texts_are_nearest_to_the_crop() -> None:
    """As clip_benchmark's zero-shot classifier and GenEval's crops do it, on the demo's CLIP."""
    clip = load_clip(CLIP)
    ours = ClipColors(clip)
    for seed, picture in enumerate(pictures(6, 1, ((60, 90), (80, 50)))):
        rng = np.random.default_rng(seed)
        box = (3.4 + seed, 5.6, 30.5, 40.2)
        mask = rng.random(picture.shape[:2]) < 0.7 if seed % 2 else None
        image = Image.fromarray(picture)
        if mask is not None:
            image = Image.composite(image, Image.new("RGB", image.size, "#999"), Image.fromarray(mask))
        crop = image.crop(box)
        detection = Detection("red circle", box, 0.9, mask)
        assert np.array_equal(cut_out(picture, detection), np.asarray(crop))
        classifier = []
        for color in COLORS:
            texts = [f"a photo of a {color} red circle", f"a photo of a {color}-colored red circle"]
            embedded = clip.encode_texts([*texts, f"a photo of a {color} object"])
            classifier.append(F.normalize(F.normalize(embedded, dim=-1).mean(dim=0), dim=-1))
        logits = 100 * clip.encode_images([crop]) @ torch.stack(classifier).T
        assert ours(picture, detection) == COLORS[int(logits.argmax())]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-5, -5, 10, 5), (5, 10)),
        ((4.2, 3.1, 4.4, 3.2), (1, 1)),
        ((50, 70, 80, 90), (1, 1)),
        ((0, 0, 40, 2), (2, 16)),
    ],
)
def test_a_crop_has_a_pixel_and_no_more_than_a_clip_looks_at(box: Any, expected: tuple[int, int]) -> None:
    picture = np.zeros((60, 40, 3), np.uint8)
    assert cut_out(picture, Detection("dog", box, 0.5)).shape[:2] == expected


@pytest.mark.slow
def test_a_run_is_judged_by_a_component_and_its_report_names_it(changeable: TinyProject) -> None:
    shapes = ("circle", "square", "triangle", "cross")
    component = write_onnx(changeable.folder / "mine", classes=shapes)
    listed = {**component.model_dump(mode="json", exclude_none=True), "path": "mine"}
    changeable.edit("config/components.yaml", {"mine": listed})
    changeable.edit(
        "config/runs/demo.yaml", {"measure": {"geneval": {"detector": "mine", "clip": "demo-clip"}}}
    )
    assert changeable.planned() >= {"measure_metric", "evaluate_run", "report_run"}
    changeable.run("snakemake")
    metrics = json.loads((changeable.results("evaluate") / "metrics.json").read_text())
    protocol = metrics["protocol"]["geneval"]
    assert protocol["detector"] == "mine" and protocol["colors"]["name"] == "demo-clip"
    assert 0 <= metrics["trained"]["geneval"]["overall"] <= 1
    (page,) = changeable.results("report").glob("*.html")
    assert "GenEval (mine)" in page.read_text()
    assert "measure_metric" not in changeable.planned()
    (changeable.folder / "mine/d.onnx").write_bytes(gives({"rows": ROWS[None] + 0.1}, (1, 3, 100, 100)))
    assert "measure_metric" in changeable.planned()


def test_a_plan_refuses_a_detector_that_does_not_fit_the_prompts(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("detectors")
    shapes = ("circle", "square", "triangle", "cross", "star")
    components = {}
    for name, classes in (("few", ("circle", "star")), ("all", shapes)):
        component = write_onnx(project.folder / name, classes=classes)
        components[name] = {**component.model_dump(mode="json", exclude_none=True), "path": name}
    project.edit("config/components.yaml", components)

    def plan(**geneval: Any) -> str:
        project.edit("config/runs/demo.yaml", {"measure": {"geneval": geneval}})
        return project.run("snakemake", "-n", "measure", check=False)

    assert "no object_detector 'contuor' in config/components.yaml; did you mean 'contour'?" in plan(
        detector="contuor"
    )
    told = plan(detector="few")
    assert "config/runs/demo.yaml: measure.geneval.detector: few does not know " in told
    assert "square" in told and "rule measure_metric" not in told
    assert "measure.geneval.clip: prompts ask for colours, which all does not tell" in plan(detector="all")
    assert "rule measure_metric" in plan(detector="all", clip="demo-clip")
