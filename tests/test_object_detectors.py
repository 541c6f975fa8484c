"""Object detectors find what transformers' own post-processing finds; a Mask2Former follows mmdetection."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from tiny_detectors import LABELS, gives, write_detr, write_mask2former, write_rt_detr
from tiny_features import pictures
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    ViTConfig,
    ViTModel,
)

from darkroom.components.base import Component
from darkroom.components.check import check_component
from darkroom.components.detector import detector_labels
from darkroom.components.mask2former import boxes_of, instances, prepared
from darkroom.components.object_detector import load_object_detector
from darkroom.components.onnx_detector import OnnxDetector

SIZES = ((60, 90), (120, 70), (200, 200))


@pytest.mark.parametrize("write", [write_detr, write_rt_detr])
def test_a_detector_finds_what_its_library_finds_in_the_pictures_own_pixels(
    tmp_path: Path, write: Any
) -> None:
    component = write(tmp_path / "detector")
    check_component(component)
    assert detector_labels(component) == LABELS
    model = AutoModelForObjectDetection.from_pretrained(tmp_path / "detector").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "detector")
    ours = load_object_detector(component)
    for picture in pictures(3, 0, SIZES):
        with torch.no_grad():
            outputs = model(**processor(images=[picture], return_tensors="pt"))
        sizes = [picture.shape[:2]]
        (expected,) = processor.post_process_object_detection(outputs, threshold=0.1, target_sizes=sizes)
        found = ours.detect(picture, 0.1)
        order = expected["scores"].argsort(descending=True, stable=True)
        assert len(found) == len(order) >= 15 and [one.mask for one in found] == [None] * len(order)
        assert [one.label for one in found] == [LABELS[i] for i in expected["labels"][order]]
        assert [one.score for one in found] == pytest.approx(expected["scores"][order].tolist(), abs=1e-5)
        boxes = torch.tensor([one.box for one in found])
        torch.testing.assert_close(boxes, expected["boxes"][order], rtol=1e-4, atol=1e-3)
    assert ours.takes["image_processor_type"] == type(processor).__name__


def test_instances_are_those_of_transformers_where_it_looks_at_the_same_pixels() -> None:
    """It looks at 384 x 384 pixels, which are here the picture's."""
    torch.manual_seed(3)
    logits, masks = 3 * torch.randn(1, 100, 81), F.interpolate(torch.randn(1, 100, 6, 6), (96, 96))
    outputs = SimpleNamespace(class_queries_logits=logits, masks_queries_logits=masks)
    (expected,) = Mask2FormerImageProcessor().post_process_instance_segmentation(
        outputs, threshold=0.05, target_sizes=[(384, 384)], return_binary_maps=True
    )
    size = (384, 384)
    found = instances(logits[0], masks[0], size, size, size, 0.05)
    told = expected["segments_info"]
    ours = {
        (int(p), round(float(s), 4)): m
        for s, p, m in zip(found.scores, found.places, found.masks, strict=True)
    }
    theirs = {
        (segment["label_id"], round(segment["score"], 4)): mask > 0
        for segment, mask in zip(told, expected["segmentation"], strict=True)
    }
    assert len(theirs) > 50 and ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def mmdetection(logits: torch.Tensor, masks: torch.Tensor, padded: Any, inside: Any, size: Any) -> list[Any]:
    """Its rules word for word: all masks at once, the best hundred, the mean of a mask, a tight box."""
    masks = F.interpolate(masks[None], padded, mode="bilinear", align_corners=False)[0]
    masks = masks[:, : inside[0], : inside[1]]
    masks = F.interpolate(masks[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    scores = logits.softmax(-1)[:, :-1]
    best, order = scores.flatten().topk(100)
    rows = []
    for score, place in zip(best.tolist(), order.tolist(), strict=True):
        query, label = divmod(place, scores.shape[1])
        mask = masks[query] > 0
        ys, xs = np.nonzero(mask.numpy())
        mean = float(masks[query].sigmoid()[mask].sum() / (mask.sum() + 1e-6))
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        rows.append((score * mean, label, box, mask))
    return sorted(rows, key=lambda row: -row[0])


def test_instances_follow_mmdetection_in_a_picture_of_another_shape() -> None:
    torch.manual_seed(4)
    logits, masks = 3 * torch.randn(40, 81), F.interpolate(torch.randn(1, 40, 5, 9), (40, 72))[0]
    where: Any = ((160, 288), (150, 270), (75, 135))
    expected, found = mmdetection(logits, masks, *where), instances(logits, masks, *where)
    order = found.scores.argsort(descending=True)
    assert len(order) == len(expected) == 100
    for place, (score, label, box, mask) in zip(order.tolist(), expected, strict=True):
        assert float(found.scores[place]) == pytest.approx(score, abs=1e-5)
        assert int(found.places[place]) == label and tuple(found.boxes[place].tolist()) == box
        assert torch.equal(found.masks[place], mask)
    some = instances(logits, masks, *where, min_score=0.3)
    assert len(some.scores) == sum(row[0] > 0.3 for row in expected) > 5
    assert len(instances(logits, masks, *where, min_score=0.999).scores) == 0


@pytest.mark.real
def test_instances_are_those_of_mmdetection_itself(unpacked: Callable[[str], Path]) -> None:
    packages = ("mmdet==3.3.0", "mmengine==0.10.7", "mmcv-lite==2.1.0", "addict==2.4.0")
    places = [str(ROOT / "src"), *(str(unpacked(package)) for package in packages)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/beside_mmdetection.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.fullmatch(r"\d{3,} objects are equal", done.stdout.strip().splitlines()[-1])


def test_a_mask2former_sees_pictures_as_mmdetection_shows_them(tmp_path: Path) -> None:
    pixels, inside = prepared(np.zeros((300, 400, 3), np.uint8))
    assert inside == (800, 1067) and pixels.shape == (1, 3, 800, 1088)
    assert prepared(np.zeros((100, 400, 3), np.uint8))[1] == (333, 1333)
    assert pixels[0, :, 799, 1066].tolist() == pytest.approx(
        [-123.675 / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    )
    assert pixels[..., 1067:].abs().max() == 0
    component = write_mask2former(tmp_path / "m2f")
    check_component(component)
    ours = load_object_detector(component)
    model = Mask2FormerForUniversalSegmentation.from_pretrained(tmp_path / "m2f").eval()
    (picture,) = pictures(1, 5, ((60, 90),))
    pixels, inside = prepared(picture)
    with torch.no_grad():
        outputs = model(pixel_values=pixels)
    logits, masks = outputs.class_queries_logits[0], outputs.masks_queries_logits[0]
    expected = instances(logits, masks, pixels.shape[-2:], inside, (60, 90), 0.02)
    found = ours.detect(picture, 0.02)
    assert sorted(one.score for one in found) == pytest.approx(sorted(expected.scores.tolist()), abs=1e-4)
    assert len(found) > 5 and all(one.mask is not None and one.mask.shape == (60, 90) for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_a_tight_box_ends_behind_the_last_pixel() -> None:
    masks = torch.zeros(2, 8, 10, dtype=torch.bool)
    masks[0, 2:5, 3:4] = True
    assert boxes_of(masks).tolist() == [[3, 2, 4, 5], [0, 0, 0, 0]]


ROWS = np.array(
    [[64, 32, 128, 96, 0.9, 1], [64, 32, 128, 90, 0.8, 1], [66, 32, 128, 96, 0.7, 0], [0, 0, 9, 9, 0.2, 0]]
)
BOXES, SCORES = ROWS[:, :4], np.array([[0, 0.9], [0, 0.8], [0.7, 0.1], [0.2, 0]])
YOLO = np.concatenate([(BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2], SCORES], axis=1).T


@pytest.mark.parametrize(
    ("outputs", "how"),
    [
        ({"rows": ROWS[None]}, {"gives": "rows"}),
        ({"yolo": YOLO[None]}, {"gives": "yolo"}),
        (
            {"boxes": BOXES[None] / 128, "scores": SCORES[None]},
            {"gives": "boxes_and_scores", "unit": "shares"},
        ),
    ],
)
@pytest.mark.parametrize("stretch", [False, True])
def test_an_onnx_file_gives_boxes_in_the_pictures_pixels(
    tmp_path: Path, outputs: dict[str, np.ndarray], how: dict[str, Any], stretch: bool
) -> None:
    options = {
        "file": "d.onnx",
        "classes": ["cat", "dog"],
        "size_px": 128,
        "max_overlap": 0.5,
        "stretch": stretch,
    }
    component = Component(kind="object_detector", path=str(tmp_path), onnx_detector={**options, **how})
    (tmp_path / "d.onnx").write_bytes(gives(outputs, (1, 3, 128, 128)))
    check_component(component)
    assert detector_labels(component) == ("cat", "dog")
    found = load_object_detector(component).detect(np.zeros((100, 200, 3), np.uint8), 0.3)
    # 200 x 100 pixels are 128 x 64 in the square, or 128 x 128 where it is stretched.
    down = 100 / 128 if stretch else 200 / 128
    dog = (64 * 200 / 128, 32 * down, 200, min(100, 96 * down))
    cat = (66 * 200 / 128, *dog[1:])
    assert [(one.label, round(one.score, 3)) for one in found] == [("dog", 0.9), ("cat", 0.7)]
    assert found[0].box == pytest.approx(dog, abs=1e-3) and found[1].box == pytest.approx(cat, abs=1e-3)


def test_an_onnx_file_that_is_not_as_the_options_say_is_refused(tmp_path: Path) -> None:
    options = OnnxDetector(file="d.onnx", classes=("cat", "dog"), size_px=128, gives="rows")
    (tmp_path / "d.onnx").write_bytes(gives({"rows": YOLO[None]}, (1, 3, 128, 128)))

    def loaded(**more: Any) -> Any:
        told = {**options.model_dump(), **more}
        return load_object_detector(Component(kind="object_detector", path=str(tmp_path), onnx_detector=told))

    picture = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(
        ValueError, match=r"d\.onnx takes pixels .*; with layout nhwc and size_px 128 it should"
    ):
        loaded(layout="nhwc")
    with pytest.raises(
        ValueError, match=r"with gives: rows and 2 classes it should give \[\('objects', 6\)\]"
    ):
        loaded().detect(picture, 0.3)
    (tmp_path / "d.onnx").write_bytes(gives({"rows": ROWS[None] + 1}, (1, 3, 128, 128)))
    with pytest.raises(ValueError, match="gives classes up to 2; the configuration names 2"):
        loaded().detect(picture, 0.3)
    with pytest.raises(ValueError, match="a name stands there twice"):
        OnnxDetector(file="d.onnx", classes=("cat", "cat"), size_px=128, gives="rows")
    with pytest.raises(ValueError, match="onnx_detector is for an object_detector; this is a clip"):
        Component(kind="clip", path=".", onnx_detector=options)
    (tmp_path / "d.onnx").unlink()
    with pytest.raises(ValueError, match=r"has no d\.onnx, which a object_detector has"):
        check_component(Component(kind="object_detector", path=str(tmp_path), onnx_detector=options))


def test_a_model_that_is_no_detector_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    component = write_detr(tmp_path / "detr")
    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(
        tmp_path / "vit"
    )
    other = Component(kind="object_detector", path=str(tmp_path / "vit"))
    with pytest.raises(
        ValueError, match=r"architectures is ViTModel, where an object detector's name ends in ForObj"
    ):
        detector_labels(other)
    with pytest.raises(ValueError, match="architectures is ViTModel"):
        load_object_detector(other)
    config = json.loads((tmp_path / "detr/config.json").read_text())
    (tmp_path / "detr/config.json").write_text(json.dumps({**config, "id2label": {"1": "dog"}}))
    with pytest.raises(ValueError, match="id2label does not name the classes 0, 1, 2"):
        load_object_detector(component)
    (tmp_path / "detr/config.json").write_text(json.dumps({**config, "decoder_layers": 2}))
    with pytest.raises(ValueError, match="the weights lack"):
        load_object_detector(component)
    assert detector_labels(Component(kind="object_detector", path="facebook/detr-resnet-50")) is None
