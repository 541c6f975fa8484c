"""The demo's committed CLIP tells captions apart, and its data say what is true."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from darkroom.components.base import Component
from darkroom.components.clip import load_clip
from darkroom.components.text_encoders import load_text_encoder
from darkroom_demo.captions import long_caption, short_caption
from darkroom_demo.pretrain import clip as pretrain
from darkroom_demo.pretrain import tokenizer as tokenizer_training
from darkroom_demo.pretrain.data import (
    MUTATIONS,
    alternatives,
    claimed_facts,
    draw_claim,
    fact_index,
    long_claim,
    make_pool,
    mutate,
    reading_index,
    say,
    short_claim,
)
from darkroom_demo.prompts import prompt_records
from darkroom_demo.scenes import TASKS, sample_scene

FOLDER = Path(__file__).parents[1] / "src/darkroom_demo/components/clip"
MIN_ACCURACY = {
    "shape": 0.95,
    "color": 0.95,
    "count": 0.85,
    "relation": 0.8,
    "attribution": 0.85,
    "caption": 0.95,
}


@pytest.fixture(scope="module")
def scorer():
    return load_clip(Component(kind="clip", path=str(FOLDER)))


@pytest.fixture(scope="module")
def some_scenes():
    rng = np.random.default_rng(5)
    return [sample_scene(rng, task, held_out=None) for task in TASKS for _ in range(20)]


def test_claims_are_said_as_the_captions_say_them(some_scenes):
    for scene in some_scenes:
        assert say(long_claim(scene), photo=False) == long_caption(scene)
        assert say(short_claim(scene), photo=True) == short_caption(scene)


def test_true_claims_claim_what_is_shown_and_changed_ones_do_not(some_scenes):
    rng = np.random.default_rng(0)
    for scene in some_scenes:
        shown = set(claimed_facts(long_claim(scene)))
        claim = draw_claim(scene, rng)
        assert shown.issuperset(claimed_facts(claim))
        assert not shown.issuperset(claimed_facts(mutate(claim, rng)))


def test_each_alternative_differs_and_is_told_once(some_scenes):
    seen = Counter()
    for scene in some_scenes:
        claim = draw_claim(scene, np.random.default_rng(1))
        for kind in MUTATIONS:
            texts = [say(changed, photo=True) for changed in alternatives(claim, kind)]
            assert say(claim, photo=True) not in texts
            assert len(set(texts)) == len(texts)
            seen[kind] += len(texts)
    assert set(seen) == set(MUTATIONS)
    assert min(seen.values()) > 0


def test_pool_does_not_depend_on_the_number_of_workers():
    one, two = (make_pool(300, [(64, 64), (48, 80)], seed=3, crop=True, num_workers=n) for n in (1, 2))
    assert one.items == two.items
    assert all((one.pictures[size] == two.pictures[size]).all() for size in ((64, 64), (48, 80)))


def test_byte_pairs_merge_the_most_frequent_first():
    merges = tokenizer_training.byte_pairs(Counter({"low": 5, "lower": 2, "new": 3}), 3)
    assert merges == [("l", "o"), ("lo", "w</w>"), ("e", "w</w>")]


def test_a_pictures_own_caption_is_its_only_positive():
    towers = pretrain.Towers(pretrain.build_clip(998)).eval()
    size = len(fact_index())
    shown, claimed = torch.zeros(2, size, dtype=torch.bool), torch.zeros(3, size, dtype=torch.bool)
    shown[:, 0] = claimed[:, 0] = True  # every caption is true of both pictures
    tokens = torch.tensor([[996, 1, 997], [996, 2, 997], [996, 3, 997]])
    read = torch.zeros(3, len(reading_index()), dtype=torch.bool)
    contrastive = pretrain.losses(towers, torch.zeros(2, 3, 64, 64), tokens, shown, claimed, read)[0]
    assert float(contrastive.detach()) == pytest.approx(0, abs=1e-3)


def test_component_is_small_and_float16():
    from safetensors.torch import load_file

    weights = load_file(FOLDER / "model.safetensors")
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 4 * 2**20
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_words_are_single_tokens_and_the_end_has_the_highest_id(scorer):
    tokenizer = scorer.tokenizer
    for caption in ("a photo of three red circles", "a triangle left of a cross", "a photograph of a cat"):
        assert len(tokenizer(caption)["input_ids"]) == len(caption.split()) + 2
    assert tokenizer.eos_token_id == len(tokenizer) - 1 == scorer.towers.model.vocab_size - 1


def test_captions_and_prompts_fit_the_context(scorer, some_scenes):
    texts = [long_caption(scene) for scene in some_scenes] + [record["prompt"] for record in prompt_records()]
    longest = max(len(row) for row in scorer.tokenizer(texts)["input_ids"])
    assert longest <= scorer.towers.model.context_length == 32


def test_true_captions_score_above_those_changed_in_one_thing(scorer):
    pool = make_pool(1000, [(64, 64)], seed=778, crop=False, num_workers=1)
    accuracy = pretrain.measure_clip(scorer.towers.model, scorer.tokenizer, pool, num_each=80, seed=1)
    assert {kind: accuracy[kind] for kind, bar in MIN_ACCURACY.items() if accuracy[kind] < bar} == {}


def test_text_encoder_is_the_clips_text_tower(scorer):
    encoder = load_text_encoder(Component(kind="text_encoder", path=str(FOLDER)))
    prompts = ["a photo of a red circle", "a photo of a circle left of a triangle", ""]
    pooled = torch.stack([encoded.pooled for encoded in encoder.encode(prompts, max_tokens=32)])
    expected = scorer.encode_texts(prompts)
    assert torch.cosine_similarity(pooled, expected).min() > 0.999


def test_text_tower_tells_who_is_where_and_who_is_what(scorer):
    prompts = [
        *(
            f"a photo of a circle {relation} a triangle"
            for relation in ("left of", "right of", "above", "below")
        ),
        *("a photo of a red circle and a blue triangle", "a photo of a blue circle and a red triangle"),
    ]
    embedded = scorer.encode_texts(prompts)
    similar = embedded @ embedded.T - torch.eye(len(prompts))
    assert similar.max() < 0.9


def test_tokenizer_is_written_the_same_twice(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        tokenizer_training.write_tokenizer(tmp_path / name, num_pictures=100)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
