"""The demo's evaluation prompts: GenEval's format, and nothing that training has shown."""

import json
from collections import Counter

import numpy as np
import pytest

from darkroom_demo.captions import claims, long_caption, short_caption
from darkroom_demo.prompts import NUM_PROMPTS_A_TASK, prompt_records
from darkroom_demo.scenes import (
    GROUNDS,
    HELD_OUT_COLORED,
    HELD_OUT_COUNTED,
    HELD_OUT_RELATIONS,
    HELD_OUT_UNRELATED,
    PATTERNS,
    RELATIONS,
    TASKS,
    converse,
    held_out_colored_pairs,
    sample_scene,
)


@pytest.fixture(scope="module")
def training_captions() -> set[str]:
    rng = np.random.default_rng(11)
    scenes = [sample_scene(rng) for _ in range(5000)]
    return {caption(scene) for scene in scenes for caption in (long_caption, short_caption)}


def test_no_prompt_is_a_training_caption(training_captions):
    assert not {record["prompt"] for record in prompt_records()} & training_captions


def test_training_captions_do_look_like_prompts(training_captions):
    # Guards the test above: it would pass by chance if captions were worded in another way.
    assert {
        "a photo of a circle left of a square",
        "a photo of two circles",
        "a photo of one circle",
    } <= training_captions


def test_two_hundred_different_prompts_in_the_order_of_the_tasks():
    records = prompt_records()
    assert len(records) >= 200
    assert len({record["prompt"] for record in records}) == len(records)
    assert list(dict.fromkeys(record["tag"] for record in records)) == list(TASKS)
    assert set(Counter(record["tag"] for record in records).values()) == {NUM_PROMPTS_A_TASK}


def test_every_held_out_combination_is_asked_for_plainly_and_then_on_grounds():
    prompts = [record["prompt"].partition(" on a ") for record in prompt_records()]
    plain = [what for what, _, ground in prompts if not ground]
    assert len(plain) == len(set(plain)) == 60
    assert {what for what, _, ground in prompts if ground} <= set(plain)
    assert len({ground for _, _, ground in prompts}) == 1 + len(GROUNDS) * len(PATTERNS)


def test_every_record_but_a_single_object_asks_for_a_held_out_combination():
    for record in prompt_records():
        include = record["include"]
        first = include[0]
        if record["tag"] == "two_object":
            assert tuple(sorted(item["class"] for item in include)) in HELD_OUT_UNRELATED
        if record["tag"] == "position":
            told = (include[1]["class"], include[1]["position"][0], first["class"])
            assert {told, converse(*told)} & set(HELD_OUT_RELATIONS)
        if record["tag"] == "color_attr":
            assert tuple((i["color"], i["class"]) for i in include) in held_out_colored_pairs()
        if record["tag"] == "counting":
            assert (first["count"], first["class"]) in HELD_OUT_COUNTED
        if record["tag"] == "colors":
            assert (first["color"], first["class"]) in HELD_OUT_COLORED


def test_no_training_scene_shows_a_held_out_coloured_shape_or_pair():
    rng = np.random.default_rng(5)
    asked = {tuple(sorted(claims(r["prompt"]).items(), key=str)): r for r in prompt_records()}
    for _ in range(3000):
        scene = sample_scene(rng)
        shown = Counter((thing.shape, thing.color) for thing in scene.things)
        record = asked.get(tuple(sorted(shown.items(), key=str)))
        assert record is None, f"{scene} answers {record}"


def test_the_include_list_says_what_the_prompt_says():
    for record in prompt_records():
        wanted = Counter()
        for item in record["include"]:
            wanted[item["class"], item.get("color")] += item["count"]
        assert claims(record["prompt"]) == wanted, record["prompt"]


def test_position_lists_the_reference_first_and_points_at_it():
    records = [record for record in prompt_records() if record["tag"] == "position"]
    for record in records:
        reference, subject = record["include"]
        relation, index = subject["position"]
        assert (index, "position" in reference) == (0, False)
        what = f"a photo of a {subject['class']} {relation} a {reference['class']}"
        assert record["prompt"].partition(" on a ")[0] == what
    assert {record["include"][1]["position"][0] for record in records} == set(RELATIONS)


def test_only_counting_excludes_and_it_excludes_one_more():
    for record in prompt_records():
        assert ("exclude" in record) == (record["tag"] == "counting")
        if "exclude" in record:
            (include,), (exclude,) = record["include"], record["exclude"]
            assert exclude == {"class": include["class"], "count": include["count"] + 1}


def test_records_are_the_same_every_time():
    assert json.dumps(prompt_records()) == json.dumps(prompt_records())
