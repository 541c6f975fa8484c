"""Orders that are computed place by place are orders, and of few things each is as likely as any other."""

from itertools import pairwise
from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import chi2

from darkroom.train.permute import permuted
from darkroom.train.random import fold

KEYS = fold(np.uint64(5), np.arange(40_000, dtype=np.uint64))


def is_even(numbers):
    """Whether numbers that should all be equally likely come about equally often."""
    counts = np.asarray(numbers)
    expected = counts.sum() / len(counts)
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1) > 1e-4


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_every_thing_has_one_place(num, key):
    order = permuted(np.full(num, key, np.uint64), num, np.arange(num))
    assert sorted(order.tolist()) == list(range(num))


@pytest.mark.parametrize("num", [1, 200, 257, 1000, 10**9, 10**12])
def test_places_asked_for_alone_together_and_under_other_keys_agree(num):
    places = np.random.default_rng(0).integers(0, num, 50)
    keys = KEYS[[0, 1] * 25]
    together = permuted(keys, num, places)
    assert together.min() >= 0 and together.max() < num
    for key, place, thing in zip(keys, places, together, strict=True):
        assert permuted(np.array([key]), num, np.array([place])).tolist() == [thing]


@pytest.mark.parametrize("num", [2, 3, 5, 6])
def test_each_order_of_few_is_as_likely(num):
    columns = [permuted(KEYS, num, np.full(len(KEYS), place)) for place in range(num)]
    _, counts = np.unique(np.stack(columns), axis=1, return_counts=True)
    assert len(counts) == factorial(num) and is_even(counts)


@pytest.mark.parametrize("num", [257, 300, 1000])
def test_of_many_each_is_as_likely_at_a_place_and_after_another(num):
    found = [permuted(KEYS, num, np.full(len(KEYS), place)) for place in (0, 1, num // 2, num - 1)]
    for things in found:
        assert is_even(np.bincount(things, minlength=num))
    for before, after in pairwise(found):
        assert is_even(np.bincount((after - before) % num, minlength=num)[1:])
