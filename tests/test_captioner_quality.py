"""Prefixes removed from captions, and the flags that captions get."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.captioners.quality import caption_flags, copies, is_repetitive, repeated_share, strip_prefix

PREFIXES = ("The image shows", "The image", "This picture displays: ")


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("The image shows a sign that says 'STOP Here'", "a sign that says 'STOP Here'"),
        ("the IMAGE shows A Paris café", "A Paris café"),
        ("This picture displays: two cats", "two cats"),
        ("The image of Ada Lovelace", "of Ada Lovelace"),
        ("A sign. The image shows a sign", "A sign. The image shows a sign"),
        ("The imageshows a sign", "The imageshows a sign"),
        ('"The image shows a triangle" in red', '"The image shows a triangle" in red'),
        ("The image shows", ""),
    ],
)
def test_a_prefix_is_removed_at_the_start_alone_and_the_rest_keeps_its_case(text, stripped):
    assert strip_prefix(text, PREFIXES) == stripped


def test_a_prefix_is_removed_once():
    assert strip_prefix("The image shows The image shows a dog", PREFIXES) == "The image shows a dog"


@given(st.text(), st.lists(st.text(min_size=1)))
def test_what_is_left_is_the_end_of_the_text(text, prefixes):
    left = strip_prefix(text, prefixes)
    assert text.strip().endswith(left)


@given(st.text())
def test_without_prefixes_only_outer_space_goes(text):
    assert strip_prefix(text, ()) == text.strip()


def test_a_good_caption_has_no_flags():
    text = "a purple circle below a yellow triangle on a plain white ground"
    assert caption_flags(text, "stop") == []


@pytest.mark.parametrize("text", ["", "   ", "...", "-- !"])
def test_a_caption_without_words_is_empty(text):
    assert caption_flags(text, "stop") == ["empty"]


def test_a_caption_that_was_a_prefix_and_nothing_else_is_told_apart():
    assert caption_flags("", "stop", stripped=True) == ["empty", "prefix_only"]
    assert caption_flags("a dog", "stop", stripped=True) == []


def test_a_caption_that_met_the_token_limit_is_truncated():
    assert caption_flags("a dog on a", "length") == ["truncated"]


@pytest.mark.parametrize(
    "text",
    [
        "red red red red",
        "a dog on a mat, a dog on a mat, a dog on a mat, a dog on a mat",
        "The sky is blue. The sky is blue. The sky is blue. The sky is blue.",
    ],
)
def test_loops_are_repetitive(text):
    assert is_repetitive(text)
    assert "repetitive" in caption_flags(text, "stop")


@pytest.mark.parametrize(
    "text",
    [
        "a very very very large dog",
        "a red triangle and a red cross",
        "a red cup to the left of a blue cup, with a small spoon between the red cup and the blue plate, "
        "on a wooden table in front of a window",
    ],
)
def test_ordinary_repeats_are_not_repetitive(text):
    assert not is_repetitive(text)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8), st.integers(6, 20))
def test_any_text_said_over_and_over_is_repetitive(words, times):
    assert is_repetitive(" ".join(words * times)) or len(words) * times < 12


@given(st.lists(st.text("abc", min_size=1), max_size=20), st.integers(1, 4))
def test_the_repeated_share_is_a_share(words, n):
    assert 0 <= repeated_share(words, n) < 1


def test_words_in_common_with_an_alt_text_the_model_never_saw_are_agreement():
    text = "a red circle left of a blue triangle on a plain white ground"
    assert caption_flags(text, "stop") == []
    assert caption_flags(text, "stop", hint=text.upper()) == ["copies_alt_text"]


def test_a_long_piece_of_the_hint_is_a_copy_and_a_few_words_are_not():
    hint = "Vintage brass lamp from Denmark, in very good condition"
    assert copies("This is a vintage brass lamp from Denmark in a room", hint)
    assert not copies("A brass lamp in very good light", hint)
