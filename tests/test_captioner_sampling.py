"""Captions that are sampled: by picture, caption and try, whatever else is in the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_captioners import PLUGIN
from test_recaption import captioned, component, one_thread, with_captions  # noqa: F401

from darkroom.captioners.base import Request
from darkroom.captioners.sampling import sampled, uniforms
from darkroom.store import read_table, sha256_file

SAMPLED = {"prompt": "Describe this picture in full.", "temperature": 1.5, "max_new_tokens": 5}


def test_draws_follow_the_probabilities_and_top_p_leaves_the_nucleus() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0, 1.5]]).expand(20_000, -1)
    uniform = torch.from_numpy(np.random.default_rng(0).random(20_000))
    probability = (logits[0] / 0.7).softmax(0)
    shares = torch.bincount(sampled(logits, 0.7, 1.0, uniform), minlength=5) / 20_000
    torch.testing.assert_close(shares, probability, atol=0.01, rtol=0)
    # The three most probable have 0.96 together, the two most probable 0.83.
    nucleus = torch.where(torch.tensor([False, True, True, False, True]), probability, 0)
    shares = torch.bincount(sampled(logits, 0.7, 0.9, uniform), minlength=5) / 20_000
    torch.testing.assert_close(shares, nucleus / nucleus.sum(), atol=0.01, rtol=0)


@given(
    st.lists(st.floats(-30, 30), min_size=1, max_size=9), st.floats(0.01, 2), st.floats(0.001, 1), st.data()
)
def test_a_draw_is_the_same_in_any_batch_and_is_of_the_nucleus(
    row: list[float], temperature: float, top_p: float, data: st.DataObject
) -> None:
    uniform = data.draw(st.floats(0, 1, exclude_max=True))
    logits = torch.tensor([row], dtype=torch.float32)
    others = torch.cat([logits.flip(1), logits, logits * 0.5])
    (alone,) = sampled(logits, temperature, top_p, torch.tensor([uniform])).tolist()
    assert sampled(others, temperature, top_p, torch.tensor([0.3, uniform, 0.9]))[1] == alone
    probability = (logits[0].double() / temperature).softmax(0)
    assert probability[probability > probability[alone]].sum() < top_p + 1e-9


def test_seeds_differ_by_picture_caption_and_try_and_begin_the_same_draws() -> None:
    requests = [Request(name, "p", 9, (), 1.0, 1.0) for name in ("long", "tags")]
    seeds = [r.seed(f"{uid:032x}", attempt) for r in requests for uid in range(50) for attempt in range(3)]
    assert len(set(seeds)) == 300 and all(0 <= seed < 2**31 for seed in seeds)
    assert np.array_equal(uniforms(seeds, 4), uniforms(seeds, 9)[:, :4])


def test_a_sampled_caption_is_the_pictures_own_whatever_it_is_batched_with(tmp_path, component) -> None:  # noqa: F811
    settings = with_captions(long=SAMPLED, tags={**SAMPLED, "top_p": 0.5})
    first, counts = captioned(tmp_path / "a", component, settings=settings)
    second, _ = captioned(tmp_path / "b", component, order=[4, 0, 6, 2, 5, 1, 3], settings=settings)
    assert sha256_file(first) == sha256_file(second)
    alone = settings.model_copy(update={"batch_size": 1})
    third, _ = captioned(tmp_path / "c", component, settings=alone)
    greedy, _ = captioned(tmp_path / "d", component)
    columns = ["caption_long", "caption_short", "caption_tags"]
    table = read_table(first)
    assert table.select(columns).equals(read_table(third, columns))
    # The same prompt, and another seed and nucleus; the caption that is not sampled is as it was.
    assert table["caption_tags"].to_list() != table["caption_long"].to_list()
    assert table["caption_short"].equals(read_table(greedy)["caption_short"])
    assert max(table["long_num_tokens"]) == 5 and max(table["short_num_tokens"]) == 6
    assert counts["tags_tokens"] == table["tags_num_tokens"].sum()


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"captions": {"long": {"prompt": "l", "top_p": 0.9}}}, r"captions\.long\.top_p"),
    ],
)
def test_a_kind_that_cannot_sample_refuses_the_option_by_its_name(values: dict, key: str) -> None:
    names: dict = {}
    exec(compile(PLUGIN, "plugin.py", "exec"), names)
    asked = {"captions": {"long": {"prompt": "l"}}, "kind": "sides", "eyes": "e"}
    assert list(names["Sides"](**asked).asked()) == ["long"]
    with pytest.raises(ValueError, match=f"{key}: a captioner of the kind sides cannot sample; leave it out"):
        names["Sides"](**{**asked, **values})
