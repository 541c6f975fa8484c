"""What passes each kind of gate, and what is refused of their options."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from darkroom.components.base import Component
from darkroom.config import ConfigError
from darkroom.config.load import load_dataset
from darkroom.gates.alt_text import AltText, overlap
from darkroom.gates.base import Candidate, Gate
from darkroom.gates.quoted_text import quoted_words, share_read
from darkroom.gates.table import GATES
from darkroom_demo.captions import long_caption
from darkroom_demo.render import render
from darkroom_demo.scenes import sample_scene

CLIP = {"demo-clip": Component(kind="clip", path="src/darkroom_demo/components/clip")}


def candidate(text: str, image: Any = None, **values: Any) -> Candidate:
    return Candidate(**{"uid": "a", "flags": (), "original": "", **values}, text=text, image=lambda: image)


def check(kind: str, captions: list[Candidate], **options: Any) -> list[bool]:
    section = GATES[kind].section.model_validate({"kind": kind, **options})
    return list(GATES[kind].load(section, CLIP)(captions))


def test_flags_pass_what_has_none_of_those_that_are_named() -> None:
    captions = [candidate("a", flags=flags) for flags in ([], ["truncated"], ["empty", "repetitive"])]
    assert check("flags", captions, none_of=["truncated", "repetitive"]) == [True, False, False]
    assert check("flags", captions, none_of=["empty"]) == [True, True, False]


def test_similarity_passes_the_pictures_own_caption_rather_than_anothers() -> None:
    rng = np.random.default_rng(3)
    scenes = [sample_scene(rng) for _ in range(12)]
    images = [Image.fromarray(render(scene)) for scene in scenes]
    own = [
        candidate(long_caption(s), i, uid=str(k)) for k, (s, i) in enumerate(zip(scenes, images, strict=True))
    ]
    others = [candidate(long_caption(s), i, uid=str(k)) for k, (s, i) in
              enumerate(zip([*scenes[1:], scenes[0]], images, strict=True))]  # fmt: skip
    options = {"clip": "demo-clip", "min": 0.5, "batch_size": 5}
    passed = check("similarity", own, **options)
    assert sum(passed) >= 10 and sum(check("similarity", others, **options)) <= 3
    # In whatever company, and two captions of one picture beside each other.
    assert check("similarity", [own[4], others[4]], **options)[0] == passed[4]
    assert check("similarity", [candidate("", images[0])], clip="demo-clip", min=-0.9) == [False]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ('A sign says "Fresh bread".', ["fresh", "bread"]),
        ("The label \u201cNo. 5\u201d and \u00abEau\u00bb", ["n0"[:1] + "o", "s", "eau"]),
        ("It's the dogs' sign: 'STOP'", ["stop"]),
        ("It's a dog's bone", []),
        ('An unfinished "quote', []),
    ],
)
def test_quoted_words_are_those_between_marks_and_no_apostrophes(caption: str, words: list[str]) -> None:
    assert quoted_words(caption) == words


def test_the_share_that_is_read_forgives_a_letter_of_a_long_word_and_lost_spaces() -> None:
    words = quoted_words('"every morning bakery 5O"')
    assert share_read(words, ["everymorning", "bakerv"]) == 0.5
    assert share_read(words, ["every m0rnlng", "BAKERY", "50"]) == 1.0
    assert share_read(words, []) == 0.0


def test_quoted_text_passes_what_is_read_in_the_picture() -> None:
    picture = Image.new("RGB", (320, 160), "white")
    ImageDraw.Draw(picture).text((20, 50), "FRESH BREAD", "black", ImageFont.load_default(40))
    texts = (
        'A sign that says "Fresh Bread"',
        'A sign that says "closed"',
        "A sign",
        'A "fresh" "loaf" of "rye"',
    )
    captions = [candidate(text, picture) for text in texts]
    assert check("quoted_text", captions) == [True, False, True, False]
    assert check("quoted_text", captions, min=0.3) == [True, False, True, True]


def test_alt_text_compares_the_share_of_its_words_that_a_caption_has() -> None:
    original = "Red circle, blue square"
    texts = ("a red circle and a blue square", "a circle", "a dog")
    captions = [candidate(text, original=original) for text in texts]
    assert check("alt_text", captions, min=0.25) == [True, True, False]
    assert check("alt_text", captions, max=0.5) == [False, True, True]
    assert check("alt_text", [candidate("a dog", original="!?")], min=1.0) == [True]


@given(st.text(), st.text())
def test_the_overlap_is_a_share_and_is_whole_for_the_alt_text_itself(caption: str, original: str) -> None:
    share = overlap(caption, original)
    assert share is None or 0 <= share <= 1
    assert overlap(f"{caption} {original}", original) in (None, 1.0)


def test_a_section_whose_kind_is_not_its_specs_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"AltText.kind should be Literal\['other'\], as its spec is named"):
        Gate("other", AltText, lambda section, components: lambda captions: [True] * len(captions))


FLAGS = {"kind": "flags", "none_of": ["truncated"]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gates": [{"kind": "flags", "none_of": ["trunkated"]}]}, "caption_gates.gates.0.none_of.0: input"),
        ({"gates": [{"kind": "flgas"}]}, "caption_gates.gates.0.kind: no kind 'flgas'; did you mean 'flags'"),
        ({"gates": [{**FLAGS, "captions": ["lnog"]}]}, "caption_gates.gates: flags looks at 'lnog', and"),
        ({"gates": []}, "caption_gates: gates: none is there; name one, or write caption_gates: null"),
        ({"gates": [FLAGS, FLAGS]}, "gates: two are called 'flags'; give each a name"),
        ({"gates": [{"kind": "alt_text"}]}, "caption_gates.gates.0: it compares with nothing; give min, max"),
        ({"gates": [FLAGS], "otherwise": "fallback"}, "fallbacks: they go together with otherwise: fallback"),
        ({"gates": [FLAGS], "fallbacks": [{"captioner": "c"}]}, "fallbacks: they go together with otherwise"),
        ({"gates": [FLAGS], "otherwise": "fallback", "fallbacks": [
            {"captioner": "c", "captions": {"a": {"prompt": "b"}}}]}, "caption_gates.fallbacks: their captions"),
    ],
)  # fmt: skip
def test_gates_that_cannot_be_are_refused_by_their_key(tmp_path: Any, values: dict, message: str) -> None:
    path = tmp_path / "config/datasets/mine.yaml"
    path.parent.mkdir(parents=True)
    captions = {"long": {"prompt": "l"}}
    body = {"description": "d", "source": {"kind": "pictures", "folder": "x"}, "caption_gates": values}
    path.write_text(json.dumps({**body, "recaption": {"captioner": "c", "captions": captions}}))
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        load_dataset("mine", tmp_path)
    path.write_text(json.dumps({**body, "recaption": None, "caption_gates": {"gates": [FLAGS]}}))
    with pytest.raises(ConfigError, match="caption_gates: no captioner writes captions"):
        load_dataset("mine", tmp_path)
    path.write_text(json.dumps({**body, "recaption": {"captioner": "c"}, "caption_gates": None}))
    with pytest.raises(ConfigError, match=r"recaption.captions: is missing; name a caption"):
        load_dataset("mine", tmp_path)
