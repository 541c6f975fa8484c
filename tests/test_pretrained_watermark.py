"""The demo's committed judge of watermarks sees those that it has not read before, and no others."""

from pathlib import Path

import numpy as np
import pytest
import torch

from darkroom.components.base import Component
from darkroom.components.image_classifier import load_image_classifier
from darkroom_demo import encode
from darkroom_demo.files import _WATERMARKS
from darkroom_demo.pretrain.watermark import LABELS, THRESHOLD, draw_picture, draw_text, train_watermark

FOLDER = Path(__file__).parents[1] / "src/darkroom_demo/components/watermark"


@pytest.fixture(scope="module")
def judge():
    return load_image_classifier(Component(kind="image_classifier", path=str(FOLDER)))


def pictures(number, seed):
    """Pictures that a mark fits on."""
    drawn = (draw_picture(np.random.default_rng((seed, index))) for index in range(4 * number))
    return [picture for picture in drawn if min(picture.shape[:2]) >= 128][:number]


def likely(judge, images):
    place = judge.labels.index("watermarked")
    return np.concatenate(
        [
            judge.probabilities(images[start : start + 32])[:, place].numpy()
            for start in range(0, len(images), 32)
        ]
    )


def test_component_is_small_and_float16(judge):
    from safetensors.torch import load_file

    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 2**19
    floats = {t.dtype for t in load_file(FOLDER / "model.safetensors").values() if t.is_floating_point()}
    assert floats == {torch.float16}
    assert tuple(judge.labels) == LABELS


@pytest.mark.parametrize("seed", [31, 32])
def test_marks_are_told_from_none_on_the_same_pictures(judge, seed):
    clean = pictures(100, seed)
    marked = [encode.watermarked(picture, _WATERMARKS[i % 3]) for i, picture in enumerate(clean)]
    assert (likely(judge, marked) > THRESHOLD).mean() >= 0.95
    assert (likely(judge, clean) > THRESHOLD).mean() <= 0.02


def test_it_was_trained_on_other_words_than_the_worlds():
    words = {draw_text(np.random.default_rng(seed)) for seed in range(2000)}
    assert not words & set(_WATERMARKS)
    assert all(8 <= len(word) <= 20 for word in words)


def test_the_same_training_gives_the_same_files(tmp_path):
    for name in ("one", "two"):
        train_watermark(tmp_path / name, num_steps=3, num_pictures=24)
    for file in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
