"""What the text conditioner promises about tokens, padding and batches."""

import pytest
import torch
from bounds import assert_same_sums
from test_components import CONTEXT, write_clip

from darkroom.components.base import Component
from darkroom.components.text import TextEncoder, pad_text
from darkroom.components.text_encoders import load_text_encoder

# The longest sum of this CLIP's text tower of width 64: its MLP's second layer.
NUM_SUMMANDS = 4 * 64


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> TextEncoder:
    folder = write_clip(tmp_path_factory.mktemp("components") / "clip")
    return load_text_encoder(Component(kind="text_encoder", path=str(folder)))


CAPTIONS = ["a red circle", "", "red", "a circle and a circle"]


def test_hidden_states_are_those_before_the_last_layer(encoder):
    states = []
    hook = encoder.model.text_model.encoder.layers[-2].register_forward_hook(
        lambda *seen: states.append(seen[2])
    )
    encoded = encoder.encode(["red"], CONTEXT)[0]
    hook.remove()
    state = states[0][0] if isinstance(states[0], tuple) else states[0]
    assert torch.equal(encoded.hidden, state[0, :3])


def test_hidden_states_hold_real_tokens_only(encoder):
    lengths = [len(encoder.tokenizer(caption)["input_ids"]) for caption in CAPTIONS]
    encoded = encoder.encode(CAPTIONS, CONTEXT)
    assert [e.hidden.shape for e in encoded] == [(n, encoder.text_dim) for n in lengths]
    assert [e.pooled.shape for e in encoded] == [(encoder.pooled_dim,)] * 4
    assert lengths[1:3] == [2, 3]


def test_an_embedding_does_not_depend_on_what_it_is_batched_with(encoder):
    together = encoder.encode(CAPTIONS, CONTEXT, batch_size=3)
    backwards = encoder.encode(CAPTIONS[::-1], CONTEXT, batch_size=3)[::-1]
    alone = [encoder.encode([caption], CONTEXT, batch_size=3)[0] for caption in CAPTIONS]
    for a, b, c in zip(together, backwards, alone, strict=True):
        for other in (b, c):
            # Its row of the batch is another, where a kernel may add in another order.
            assert_same_sums(other.hidden, a.hidden, NUM_SUMMANDS)
            assert_same_sums(other.pooled, a.pooled, NUM_SUMMANDS)


def test_padding_is_never_seen_by_a_real_token(encoder):
    short, full = encoder.encode(["red"], 3)[0], encoder.encode(["red"], CONTEXT)[0]
    torch.testing.assert_close(short.hidden, full.hidden, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(short.pooled, full.pooled, atol=1e-5, rtol=1e-4)


def test_a_caption_that_is_too_long_is_cut_counted_and_still_ends(encoder):
    caption = "red " * 10
    encoded = encoder.encode([caption], max_tokens=6)[0]
    assert encoded.num_tokens_cut == 12 - 6
    assert len(encoded.hidden) == 6
    same = encoder.encode(["red " * 4], max_tokens=6)[0]
    assert same.num_tokens_cut == 0
    assert torch.equal(encoded.pooled, same.pooled)


def test_the_empty_caption_is_the_null(encoder):
    null = encoder.null(CONTEXT)
    assert len(null.hidden) == 2 and null.num_tokens_cut == 0
    torch.testing.assert_close(null.pooled, encoder.encode(["", "red"], CONTEXT)[0].pooled)


def test_more_tokens_than_positions_are_refused(encoder):
    with pytest.raises(ValueError, match=f"max_text_tokens 77.*2 to {CONTEXT}"):
        encoder.encode(["red"], 77)
    assert encoder.encode([], CONTEXT) == []


def test_ragged_states_are_padded_with_zeros_and_masked():
    hidden = [torch.ones(2, 3), torch.ones(4, 3)]
    text, mask = pad_text(hidden)
    assert text.shape == (2, 4, 3) and text.sum() == 18 and text[0, 2:].abs().sum() == 0
    assert mask.tolist() == [[True, True, False, False], [True] * 4]
    assert pad_text(hidden, 6)[0].shape == (2, 6, 3)
    with pytest.raises(ValueError, match="4 tokens"):
        pad_text(hidden, 3)
