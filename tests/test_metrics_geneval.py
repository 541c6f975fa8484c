"""GenEval's rules, held to numbers computed with the original."""

import json

import numpy as np
import pytest

from darkroom.benchmarks.geneval import read_records
from darkroom.metrics.geometry import relations
from darkroom.metrics.rules import Detection, Rules, box_iou, judge, summarise

PICTURE = np.zeros((8, 8, 3), np.uint8)
A, B = (0, 0, 100, 100), (200, 0, 300, 100)


def told(_picture, detection):
    return detection.color


def right(detections, record, **rules):
    return judge(PICTURE, detections, record, told, Rules(**rules)).correct


def include(tag, *items, **more):
    return {"tag": tag, "prompt": "", "include": list(items), **more}


@pytest.mark.parametrize(
    ("box", "reference", "expected"),
    [
        (A, B, {"left of"}),
        ((0, 0, 100, 100), (0, 200, 100, 300), {"above"}),
        (A, A, set()),
        ((40, 0, 140, 100), A, set()),
        ((41, 0, 141, 100), A, {"right of"}),
        ((150, 150, 250, 250), A, {"below", "right of"}),
        ((900, 900, 1000, 1000), A, {"below", "right of"}),
        ((100, 200, 200, 300), A, {"below"}),
        ((0, 0, 500, 500), (340, 240, 380, 260), {"left of"}),
    ],
)
def test_relations_agree_with_the_original(box, reference, expected):
    assert relations(box, reference) == expected


def test_iou_counts_the_last_pixel():
    assert box_iou((0, 0, 9, 9), (5, 5, 14, 14)) == pytest.approx(1 / 7)
    assert box_iou((0, 0, 9, 9), (10, 0, 19, 9)) == 0


def test_a_score_must_lie_above_the_threshold_and_counting_asks_for_more():
    record = include("single_object", {"class": "triangle", "count": 1})
    assert not right([Detection("triangle", A, 0.3)], record)
    assert right([Detection("triangle", A, 0.31)], record)
    counting = include("counting", {"class": "triangle", "count": 1})
    assert not right([Detection("triangle", A, 0.9)], counting)
    assert right([Detection("triangle", A, 0.91)], counting)


def test_extra_objects_are_allowed_unless_excluded():
    three = [Detection("triangle", A, 0.99)] * 3
    assert right(three, include("two_object", {"class": "triangle", "count": 2}))
    exclude = [{"class": "triangle", "count": 3}]
    verdict = judge(
        PICTURE, three, include("counting", {"class": "triangle", "count": 2}, exclude=exclude), told
    )
    assert verdict.reasons == ("expected triangle<3, found 3",)


def test_only_the_most_confident_objects_have_their_colour_looked_at():
    record = include("colors", {"class": "triangle", "count": 1, "color": "red"})
    red, blue = Detection("triangle", A, 0.8, color="red"), Detection("triangle", B, 0.9, color="blue")
    assert not right([red, blue], record)
    assert right([red, Detection("triangle", B, 0.7, color="blue")], record)


def test_an_unmatched_reference_fails_the_position_too():
    record = include(
        "position",
        {"class": "triangle", "count": 1},
        {"class": "cross", "count": 1, "position": ["left of", 0]},
    )
    cross, triangle = Detection("cross", A, 0.9), Detection("triangle", B, 0.9)
    assert right([cross, triangle], record)
    assert judge(PICTURE, [cross], record, told).reasons == (
        "expected triangle>=1, found 0",
        "no target for cross to be left of",
    )


def test_every_object_must_stand_in_the_relation_to_every_reference():
    record = include(
        "position",
        {"class": "triangle", "count": 1},
        {"class": "cross", "count": 2, "position": ["left of", 0]},
    )
    triangle = Detection("triangle", B, 0.9)
    beyond = Detection("cross", (400, 0, 500, 100), 0.8)
    assert right([triangle, Detection("cross", A, 0.9), Detection("cross", A, 0.8)], record)
    assert not right([triangle, Detection("cross", A, 0.9), beyond], record)


def test_a_wrong_colour_unmatches_the_reference():
    record = include(
        "position",
        {"class": "triangle", "count": 1, "color": "red"},
        {"class": "cross", "count": 1, "position": ["left of", 0]},
    )
    found = [Detection("cross", A, 0.9), Detection("triangle", B, 0.9, color="blue")]
    assert len(judge(PICTURE, found, record, told).reasons) == 2


def test_at_most_sixteen_objects_count_and_overlap_is_allowed_by_default():
    many = [Detection("triangle", A, 0.95)] * 20
    record = include(
        "counting", {"class": "triangle", "count": 1}, exclude=[{"class": "triangle", "count": 17}]
    )
    assert right(many, record)
    two = include("counting", {"class": "triangle", "count": 2})
    assert right(many, two)
    assert not right(many, two, max_overlap=0.5)


@pytest.mark.parametrize(
    ("cells", "overall"),
    [
        ((0.98, 0.74, 0.39, 0.85, 0.15, 0.23), 0.55),  # SDXL, as published in GenEval's README
        ((0.97, 0.38, 0.35, 0.76, 0.04, 0.06), 0.43),  # SD 1.5
        ((0.97, 0.74, 0.66, 0.81, 0.13, 0.35), 0.61),  # IF-XL
    ],
)
def test_published_rows_recompute_as_the_mean_of_the_tasks(cells, overall):
    tasks = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
    results = [
        (task, i < round(100 * cell)) for task, cell in zip(tasks, cells, strict=True) for i in range(100)
    ]
    # Cells are published with two decimals, so their mean is known to half a hundredth, and so is `overall`.
    assert summarise(results)["overall"] == pytest.approx(overall, abs=0.01)
    assert summarise(results)["overall"] == pytest.approx(np.mean(cells))


def test_micro_weighs_pictures_and_overall_weighs_tasks():
    sizes = {"single_object": 320, "two_object": 396, "counting": 320}
    sizes |= {"colors": 376, "position": 400, "color_attr": 400}
    cells = dict(zip(sizes, (0.98, 0.74, 0.39, 0.85, 0.15, 0.23), strict=True))
    results = [(t, i < round(n * cells[t])) for t, n in sizes.items() for i in range(n)]
    scores = summarise(results)
    assert scores["overall"] == pytest.approx(0.5567, abs=1e-3)
    assert scores["micro"] == pytest.approx(0.5439, abs=1e-3)


def test_a_record_that_makes_no_sense_is_named(tmp_path):
    good = {
        "tag": "position",
        "include": [{"class": "triangle", "count": 1}],
        "prompt": "a photo of a triangle",
    }
    bad = {**good, "include": [{"class": "triangle", "count": 1, "position": ["above", 0]}]}
    path = tmp_path / "metadata.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in (good, bad)))
    with pytest.raises(ValueError, match=r"line 2: include\[0\] has a position"):
        read_records(path)
    path.write_text(json.dumps(good) + "\n")
    assert read_records(path) == [good]
