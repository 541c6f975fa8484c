"""The contour detector on pictures whose content is known, and on pictures without any."""

import cv2
import numpy as np
import pytest

from darkroom.metrics.rules import Detection, judge, summarise
from darkroom_demo import detector
from darkroom_demo.prompts import scene_record
from darkroom_demo.render import render
from darkroom_demo.scenes import COLORS, SHAPES, TASKS, Scene, Thing, sample_scene
from darkroom_demo.selftest import self_test


def reduced(picture: np.ndarray, side: int) -> np.ndarray:
    scale = side / np.sqrt(picture.shape[0] * picture.shape[1])
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("side", [64, 256])
def test_rendered_scenes_are_judged_right_in_every_task(side):
    rng = np.random.default_rng(3)
    results = []
    for i in range(180):
        scene = sample_scene(rng, task=TASKS[i % len(TASKS)], held_out=None)
        picture = reduced(render(scene), side)
        verdict = judge(picture, detector.detect(picture), scene_record(scene), detector.classify_color)
        results.append((scene.task, verdict.correct))
    assert min(summarise(results).values()) >= 0.97


def test_blurred_and_noisy_pictures_are_still_read():
    rng = np.random.default_rng(4)
    results = []
    for i in range(120):
        scene = sample_scene(rng, task=TASKS[i % len(TASKS)], held_out=None)
        soft = cv2.GaussianBlur(reduced(render(scene), 64), (0, 0), 0.7)
        picture = np.clip(soft + rng.normal(0, 12, soft.shape), 0, 255).astype(np.uint8)
        verdict = judge(picture, detector.detect(picture), scene_record(scene), detector.classify_color)
        results.append((scene.task, verdict.correct))
    assert summarise(results)["overall"] >= 0.97


@pytest.mark.parametrize("pattern", ["plain", "checked", "speckled"])
def test_every_shape_in_every_colour_is_named_with_confidence(pattern):
    for ground in ("white", "grey", "cream", "pale blue"):
        for shape in SHAPES:
            for color in COLORS:
                thing = Thing(shape, color, 0.5, 0.45, 0.5, 6.0 if shape != "circle" else 0.0)
                (found,) = detector.detect(render(Scene("colors", (thing,), pattern, ground, 64, 64, 5)))
                assert (found.name, found.color) == (shape, color)
                assert found.score > 0.9


def test_boxes_and_masks_lie_where_the_shapes_are():
    things = (Thing("square", "red", 0.25, 0.3, 0.4, 0.0), Thing("circle", "blue", 0.75, 0.6, 0.4, 0.0))
    picture = render(Scene("two_object", things, "plain", "white", 128, 96, 1))
    found = {d.name: d for d in detector.detect(picture)}
    for thing in things:
        true = np.array(thing.box(128, 96))
        shrink = 0.05 * (true[2] - true[0]) if thing.shape == "square" else 0
        assert (
            np.abs(np.array(found[thing.shape].box) - (true + (shrink, shrink, -shrink, -shrink))).max() < 1.5
        )
        mask = found[thing.shape].mask
        assert mask.shape == (96, 128)
        assert mask[round(thing.y * 96), round(thing.x * 128)]


def test_touching_shapes_of_two_colours_are_two_objects():
    things = (Thing("square", "red", 0.3, 0.5, 0.42, 0.0), Thing("circle", "blue", 0.68, 0.5, 0.42, 0.0))
    picture = render(Scene("two_object", things, "plain", "white", 64, 64, 1))
    found = [d for d in detector.detect(picture) if d.score > 0.3]
    assert {(d.name, d.color) for d in found} == {("square", "red"), ("circle", "blue")}


def test_nothing_is_seen_in_noise_or_in_an_empty_picture():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(20)]
    pictures += [np.full((64, 64, 3), value, np.uint8) for value in (0, 128, 255)]
    assert [d for picture in pictures for d in detector.detect(picture) if d.score > 0.3] == []


def test_a_blob_of_no_shape_has_a_low_score():
    picture = np.full((64, 64, 3), 250, np.uint8)
    cv2.ellipse(picture, (30, 32), (26, 9), 30, 0, 360, (220, 20, 20), -1)
    assert all(d.score < 0.3 for d in detector.detect(picture))


def test_a_picture_of_another_type_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        detector.detect(np.zeros((64, 64, 3), np.float32))


def test_the_self_test_passes_and_a_blind_or_talkative_detector_fails_it():
    scores = self_test(detector.detect, detector.classify_color, num_pictures=30)
    assert scores["overall"] >= 0.97
    with pytest.raises(RuntimeError, match=r"0\.00 of the known pictures"):
        self_test(lambda _: [], detector.classify_color, num_pictures=12)

    def sees_everything(_):
        return [Detection(shape, (0, 0, 9, 9), 0.95, None, "red") for shape in SHAPES]

    with pytest.raises(RuntimeError, match="seen in noise"):
        self_test(sees_everything, detector.classify_color, num_pictures=12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spot", [(0.13, 0.5), (0.5, 0.88), (0.88, 0.5), (0.88, 0.16)])
def test_a_shape_that_the_border_cuts_by_a_little_is_still_named(shape, spot):
    scene = Scene("colors", (Thing(shape, "red", *spot, 0.38, 0.0),), "plain", "white", 64, 64, 2)
    (found,) = detector.detect(render(scene))
    assert found.name == shape
    assert found.score > 0.9


def test_the_visible_part_of_a_shape_is_not_taken_for_a_whole_one_of_another_kind():
    half = np.full((64, 64, 3), 250, np.uint8)
    cv2.circle(half, (0, 32), 14, (220, 20, 20), -1)  # half a disc: too little to be sure of anything
    assert all(d.score < 0.9 for d in detector.detect(half))
