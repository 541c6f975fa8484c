"""Captions that are tags: what is shown follows from seed, uid and visit; the rest is refused before any job."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from family_world import settings_of, world  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from test_train_online import index, online

from darkroom.config import ConfigError, load_project
from darkroom.config.run import Tags
from darkroom.train.loader import BatchMaker
from darkroom.train.plan import BatchPlan
from darkroom.train.random import TAGS, sample_keys
from darkroom.train.tags import ShownTags, show_tags

WORDS = st.lists(st.text("abc de", min_size=1, max_size=6), max_size=12)
KEYS = st.integers(0, 2**64 - 1).map(lambda key: np.array([key], np.uint64))


def told(caption: str) -> list[str]:
    return [tag.strip() for tag in caption.split(",") if tag.strip()]


@given(WORDS, KEYS, st.integers(0, 4), st.floats(0, 0.9), st.booleans())
def test_the_first_tags_stay_the_others_are_some_of_the_others_and_a_key_shows_one_text(
    words: list[str], key: np.ndarray, keep_first: int, dropout: float, shuffle: bool
) -> None:
    caption, tags = ",".join(words), Tags(keep_first=keep_first, dropout=max(dropout, 0.01), shuffle=shuffle)
    shown, given_tags = told(show_tags(caption, tags, key)), told(caption)
    assert shown == told(show_tags(caption, tags, key.copy()))
    assert shown[:keep_first] == given_tags[:keep_first]
    assert Counter(shown[keep_first:]) <= Counter(given_tags[keep_first:])
    if not shuffle:
        rest = iter(given_tags)
        assert all(tag in rest for tag in shown)
    fewer_lost = tags.model_copy(update={"dropout": tags.dropout / 2})
    assert Counter(shown) <= Counter(told(show_tags(caption, fewer_lost, key)))
    whole = Tags(keep_first=keep_first)
    assert Counter(told(show_tags(caption, whole, key))) == Counter(given_tags)


def test_tags_are_left_out_as_often_as_is_said_and_every_order_comes() -> None:
    tags = Tags(captions=("tags",), dropout=0.25, keep_first=1)
    keys = sample_keys(3, TAGS, np.arange(8000, dtype=np.uint64).reshape(-1, 2), np.arange(4000))
    shown = ShownTags(tags, keys)
    texts = [shown.show(place, "tags", "a, b, c, d") for place in range(4000)]
    assert all(text.startswith("a") for text in texts)
    for tag in "bcd":
        # Within four standard deviations of 3/4 of 4,000.
        assert abs(sum(tag in text for text in texts) - 3000) < 4 * (4000 * 0.25 * 0.75) ** 0.5
    orders = Counter(text for text in texts if len(text) == len("a, b, c, d"))
    assert len(orders) == 6 and max(orders.values()) < 1.5 * min(orders.values())
    assert shown.show(0, "long", "b, a") == "b, a"


def test_a_batch_shows_tags_by_seed_uid_and_visit_and_all_encoders_the_same(
    world,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    indexed, parts, _ = index(world, "sd3", tmp_path)
    encoder = online(indexed, parts, world.folder / "part.tar")
    plan = BatchPlan(0, 4, encoder.uids)
    tags = Tags(captions=("original",), separator=" ", shuffle=True)
    settings = settings_of(
        "sd3", caption_choice={"original": 1.0}, caption_dropout=0.0, encoder_dropout=(), tags=tags
    )
    texts: list[str] = []
    plain = ShownTags.show
    monkeypatch.setattr(
        ShownTags, "show", lambda self, *asked: texts.append(plain(self, *asked)) or texts[-1]
    )
    batches = [BatchMaker(encoder, plan, settings, 0).make(step) for step in (1, 1, 2)]
    per_batch = len(texts) // 3
    assert texts[:per_batch] == texts[per_batch : 2 * per_batch] != texts[2 * per_batch :]
    assert torch.equal(batches[0].conditioning.text[0], batches[1].conditioning.text[0])
    # All text encoders read one text.
    assert texts[: per_batch // encoder.num_encoders] * encoder.num_encoders == texts[:per_batch]


@pytest.mark.parametrize(
    ("train", "cache", "message"),
    [
        ({"tags": {}}, {}, r"train.tags: shows a picture with another text .* write cache: \{online: true\}"),
        (
            {"tags": {"captions": ["orignal"]}},
            {"online": True},
            "no caption 'orignal'; did you mean 'original'",
        ),
        ({"tags": {"shuffle": False}}, {"online": True}, "shuffle: false and dropout: 0"),
        ({"tags": {}}, {"online": True}, "'original' is never shown; give it a share"),
    ],
)
def test_what_could_not_be_shown_is_refused(
    tmp_path: Path, train: dict[str, object], cache: dict[str, object], message: str
) -> None:
    values = {"extends": "demo", "train": train, "cache": cache}
    for folder in ("runs", "datasets"):
        (tmp_path / folder).mkdir()
        for path in (ROOT / "config" / folder).glob("*.yaml"):
            (tmp_path / folder / path.name).write_text(path.read_text())
    (tmp_path / "components.yaml").write_text((ROOT / "config/components.yaml").read_text())
    (tmp_path / "runs/tagged.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=message):
        load_project("tagged", ROOT, tmp_path)
