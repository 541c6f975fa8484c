"""Text encoders as a list: how each is read, and how often each alone, or all, see no caption."""

import numpy as np
import pytest
import torch
from bounds import assert_same_sums
from family_cases import ENCODERS
from family_world import CLIP_TOKENS, cached, settings_of, world  # noqa: F401
from test_models_text import CAPTIONS
from tiny_encoders import component, write_clip_text, write_gemma, write_modernbert, write_t5

from darkroom.components.text import without_projection
from darkroom.components.text_encoders import load_text_encoder
from darkroom.config.run import TextEncoderUse
from darkroom.store.latents import LatentShard
from darkroom.train import random
from darkroom.train.data import NULL_CAPTION, LatentCache, drop_by_encoder, joint_null_rate
from darkroom.train.loader import BatchMaker
from darkroom.train.plan import BatchPlan

WRITERS = {
    "clip": lambda folder: write_clip_text(folder, 16, 8),
    "plain clip": lambda folder: write_clip_text(folder, 16, None),
    "t5": lambda folder: write_t5(folder, 16),
    "gemma": lambda folder: write_gemma(folder, 16),
    "modernbert": lambda folder: write_modernbert(folder, 16),
}
NUM_DRAWS = 1_000_000
# Of the sums that lead to a state, one after another: in two layers two projections, attention, and an MLP.
NUM_SUMMANDS = 2 * (16 + 14 + 16 + 16 + 32)


@pytest.fixture(scope="module", params=list(WRITERS))
def encoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "model"
    return load_text_encoder(component(WRITERS[request.param](folder)))


@pytest.mark.parametrize("layer", [-1, -2])
def test_a_caption_is_read_as_transformers_reads_it_alone_whatever_it_is_batched_with(encoder, layer):
    use = TextEncoderUse(name="x", hidden_layer=layer, max_tokens=14)
    together = encoder.read(CAPTIONS, use, batch_size=3)
    for caption, found in zip(CAPTIONS, together, strict=True):
        ids = torch.tensor([encoder.tokenizer(caption)["input_ids"]])
        with torch.no_grad():
            output = encoder.model(ids, output_hidden_states=True)
        states = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
        torch.testing.assert_close(found.hidden, states[0], atol=1e-5, rtol=1e-4)
        assert len(found.pooled) == 0 and found.num_tokens_cut == 0
        # In another row of the batch a kernel may add in another order.
        assert_same_sums(found.hidden, encoder.read([caption], use, batch_size=3)[0].hidden, NUM_SUMMANDS)


def test_padded_states_are_those_of_a_call_without_a_mask(encoder):
    use = TextEncoderUse(name="x", max_tokens=10, padded=True)
    tokenizer = encoder.tokenizer
    for caption, found in zip(CAPTIONS, encoder.read(CAPTIONS, use), strict=True):
        ids = tokenizer(caption, padding="max_length", max_length=10, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = encoder.model(ids).last_hidden_state[0]
        assert found.hidden.shape == (10, encoder.text_dim)
        torch.testing.assert_close(found.hidden, states, atol=1e-5, rtol=1e-4)


def test_a_long_caption_is_cut_and_ends_as_its_tokenizer_ends_texts(encoder):
    use = TextEncoderUse(name="x", max_tokens=6)
    long = "red " * 20
    found = encoder.read([long], use)[0]
    ids = encoder.tokenizer(long, truncation=True, max_length=6)["input_ids"]
    with torch.no_grad():
        states = encoder.model(torch.tensor([ids])).last_hidden_state[0]
    assert found.num_tokens_cut == len(encoder.tokenizer(long)["input_ids"]) - 6
    torch.testing.assert_close(found.hidden, states, atol=1e-5, rtol=1e-4)


def test_a_null_of_zeros_is_zero_for_the_empty_caption_alone(encoder):
    use = TextEncoderUse(name="x", max_tokens=10, no_caption="zeros")
    null, other = encoder.read(["", "red"], use)
    assert not null.hidden.any() and len(null.hidden) > 0 and other.hidden.any()


def test_a_clip_is_read_before_its_projection_as_the_plain_tower_is(tmp_path):
    clip = load_text_encoder(component(write_clip_text(tmp_path / "clip", 16, 8)))
    before, after = (
        TextEncoderUse(name="x", max_tokens=14, padded=True, pooled=True, projected=on)
        for on in (False, True)
    )
    ids = clip.tokenizer(["red circle"], padding="max_length", max_length=14, return_tensors="pt")[
        "input_ids"
    ]
    with torch.no_grad():
        plain = without_projection(clip.model)(ids)
        projected = clip.model(ids).text_embeds
    found = clip.read(["red circle"], before)[0]
    torch.testing.assert_close(found.pooled, plain.pooler_output[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.hidden, plain.last_hidden_state[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(clip.read(["red circle"], after)[0].pooled, projected[0], atol=1e-5, rtol=1e-4)
    assert [clip.pooled_dim_of(use) for use in (before, after)] == [16, 8]


def test_an_encoder_without_a_pooled_embedding_is_refused_where_one_is_wanted(tmp_path):
    t5 = load_text_encoder(component(write_t5(tmp_path / "t5", 16)))
    with pytest.raises(ValueError, match="a t5 has no pooled embedding: write pooled: false"):
        t5.read(["red"], TextEncoderUse(name="x", max_tokens=10, pooled=True))


@pytest.mark.parametrize(
    ("caption_dropout", "dropout", "rate"),
    [(0.1, (), 0.1), (0.0, (0.1,), 0.1), (0.0, (0.316,) * 2, 0.0999), (0.0, (0.464,) * 3, 0.0999),
     (0.05, (0.5, 0.2), 0.145)],
)  # fmt: skip
def test_the_joint_null_rate_over_a_million_draws_is_the_stated_one(caption_dropout, dropout, rate):
    keys = np.arange(NUM_DRAWS, dtype=np.uint64)
    uids = np.stack([random.fold(np.uint64(1), keys), random.fold(np.uint64(2), keys)], axis=1)
    visits = np.zeros(NUM_DRAWS, np.int64)
    captions = np.where(
        random.uniform(random.sample_keys(0, random.DROPOUT, uids, visits)) < caption_dropout, NULL_CAPTION, 1
    )
    by_encoder = captions[:, None]
    if dropout:
        draws = random.uniforms(random.sample_keys(0, random.ENCODER_DROPOUT, uids, visits), len(dropout))
        by_encoder = drop_by_encoder(captions, dropout, draws)
        alone = (by_encoder == NULL_CAPTION).mean(axis=0)
        expected = caption_dropout + (1 - caption_dropout) * np.array(dropout)
        np.testing.assert_allclose(alone, expected, atol=0.002)
    joint = (by_encoder == NULL_CAPTION).all(axis=1).mean()
    assert joint == pytest.approx(rate, abs=0.001)
    assert joint_null_rate(caption_dropout, dropout) == pytest.approx(rate, abs=1e-4)


def test_the_draws_of_one_key_are_distinct_and_begin_with_uniforms():
    keys = np.arange(1000, dtype=np.uint64) * np.uint64(977)
    drawn = random.uniforms(keys, 3)
    assert drawn.shape == (1000, 3) and np.array_equal(drawn[:, 0], random.uniform(keys))
    assert abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.15


def test_each_encoder_reads_its_own_caption_and_its_pooled_slice_goes_with_it(world):  # noqa: F811
    inputs, _ = cached(world, "sd3")
    (shard, table), null = inputs[0][0], inputs[1]
    cache, opened, empty = LatentCache(*inputs), LatentShard(shard, table), LatentShard(null, None)
    bucket, uids = max(cache.uids.items(), key=lambda item: len(item[1]))
    rows = {row["uid"]: (i, row) for i, row in enumerate(opened.table.iter_rows(named=True))}
    captions = np.array([[0, 1, 2], [NULL_CAPTION, 1, NULL_CAPTION], [1, NULL_CAPTION, 0]])[: len(uids)]
    given = cache.gather(bucket, np.arange(len(captions)), captions).conditioning
    start = 0
    for e in range(3):
        width = empty.pooled("null", e).shape[1]
        for at, (a, b) in enumerate(uids[: len(captions)]):
            number, row = rows[f"{int(a):016x}{int(b):016x}"]
            if captions[at, e] == NULL_CAPTION:
                text, pooled = empty.text("null", e), empty.pooled("null", e)[0] if width else None
            else:
                kind, ending = cache.captions[captions[at, e]], f".{e}" if e else ""
                first = row[f"{kind}_offset{ending}"]
                text = opened.text(kind, e)[first : first + row[f"{kind}_length{ending}"]]
                pooled = opened.pooled(kind, e)[number] if width else None
            assert torch.equal(given.text[e][at, : len(text)], text)
            if width:
                assert torch.equal(given.pooled[at, start : start + width], pooled)
        start += width
    assert given.pooled.shape[1] == start == 20 and given.text_mask == (None, None, None)


def test_ragged_encoders_keep_real_tokens_only(world):  # noqa: F811
    inputs, _ = cached(world, "mmdit")
    shard, padded = LatentShard(*inputs[0][0]), LatentShard(*cached(world, "sd3")[0][0][0])
    assert [use["name"] for use in ENCODERS["mmdit"]] == ["gemma", "modernbert", "clip-g"]
    lengths = [set(shard.table[name]) for name in ("long_length", "long_length.1", "long_length.2")]
    assert all(len(found) > 1 and max(found) < 20 for found in lengths)
    assert set(padded.table["long_length"]) == {CLIP_TOKENS} and set(padded.table["long_length.2"]) == {24}


def test_dropout_by_encoder_changes_the_captions_and_neither_noise_nor_order(world):  # noqa: F811
    inputs, _ = cached(world, "sd3")
    cache = LatentCache(*inputs)
    batches = [
        BatchMaker(cache, BatchPlan(0, 4, cache.uids), settings_of("sd3", encoder_dropout=d), 0).make(2)
        for d in ([], [0.9, 0.9, 0.9])
    ]
    assert torch.equal(batches[0].noise, batches[1].noise)
    assert torch.equal(batches[0].latents, batches[1].latents)
    assert not torch.equal(batches[0].conditioning.text[2], batches[1].conditioning.text[2])
