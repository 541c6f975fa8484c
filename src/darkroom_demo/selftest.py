"""A look at known pictures before any score: a detector that sees nothing scores 0 without a word."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from darkroom.metrics.rules import ColorClassifier, Detection, judge, summarise
from darkroom_demo.prompts import scene_record
from darkroom_demo.render import render
from darkroom_demo.scenes import TASKS, sample_scene

Detector = Callable[[np.ndarray], Sequence[Detection]]

_LEAST_SHARE_RIGHT = 0.97


def self_test(
    detect: Detector, classify_color: ColorClassifier, area_px: int = 64 * 64, num_pictures: int = 60
) -> dict[str, float]:
    """Score rendered scenes, whose content is known, and empty pictures of noise.

    Args:
        detect: the detector under test.
        classify_color: its colour classifier.
        area_px: width x height of the pictures that it will see.
        num_pictures: scenes, the tasks in turn.

    Returns:
        `geneval.summarise` of the known scenes.

    Raises:
        RuntimeError: fewer than 97 % of the scenes are judged right, a scene fits the record of another
            one, or something is seen in noise.
    """
    rng = np.random.default_rng(7)
    scenes = [sample_scene(rng, task=TASKS[i % len(TASKS)], held_out=None) for i in range(num_pictures)]
    results, confused = [], []
    for index, scene in enumerate(scenes):
        picture = render(scene)
        scale = (area_px / (picture.shape[0] * picture.shape[1])) ** 0.5
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        detections = detect(picture)
        record, other = scene_record(scene), scene_record(scenes[index - 1])
        results.append((scene.task, judge(picture, detections, record, classify_color).correct))
        if set(_classes(other)) - set(_classes(record)):
            confused.append(judge(picture, detections, other, classify_color).correct)
    scores = summarise(results)
    noise = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(8)]
    seen = sum(d.score > 0.3 for picture in noise for d in detect(picture))
    if scores["overall"] < _LEAST_SHARE_RIGHT or any(confused) or seen:
        raise RuntimeError(
            f"the detector fails its self-test: {scores['overall']:.2f} of the known pictures are right"
            f" (at least {_LEAST_SHARE_RIGHT} are needed), {sum(confused)} of {len(confused)} fit another"
            f" picture's record, {seen} objects are seen in noise; no score of it would mean anything"
        )
    return scores


def _classes(record: dict) -> list[str]:
    return [item["class"] for item in record["include"]]
