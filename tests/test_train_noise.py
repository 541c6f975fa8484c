"""The noise of a training: normal by what a million numbers can tell, and the same bits from any library."""

import hashlib

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from darkroom.train import random
from darkroom.train.normal_pairs import scaled_pairs

KEYS = random.fold(np.uint64(1), np.arange(512, dtype=np.uint64))


@pytest.fixture(scope="module")
def noise():
    return random.normal(KEYS, 4096).astype(np.float64)


def test_noise_is_normal_by_moments_kolmogorov_smirnov_and_tails(noise):
    n = noise.size
    assert abs(noise.mean()) < 4 / np.sqrt(n)
    for power, moment, variance in [(2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)]:
        assert abs((noise**power).mean() - moment) < 4 * np.sqrt(variance / n), power
    assert kstest(noise.ravel(), "norm").pvalue > 0.001
    for edge in (2, 3, 4, 4.5):
        expected = 2 * n * norm.sf(edge)
        assert abs((np.abs(noise) > edge).sum() - expected) < 4 * np.sqrt(expected), edge


def test_numbers_of_a_sample_and_of_others_tell_nothing_of_each_other(noise):
    limit, half = 4 / np.sqrt(noise.size // 2), noise.shape[1] // 2
    pairs = {
        "neighbours": (noise[:, 1:], noise[:, :-1]),
        "a table's pair": (noise[:, ::2], noise[:, 1::2]),
        "sum and difference": (noise[:, :half], noise[:, half:]),
        "samples": (noise[1:], noise[:-1]),
    }
    for name, (one, other) in pairs.items():
        assert abs((one * other).mean()) < limit, name
        assert abs(((one**2 - 1) * (other**2 - 1)).mean()) < 2 * limit, name
        assert abs((one**3 * other).mean()) < np.sqrt(15) * limit, name


def test_the_furthest_number_lies_beyond_five_and_before_what_is_stated():
    table = scaled_pairs().view(np.float32)
    assert 6.13 < 2 * np.abs(table).max() < 6.14
    # To the bit: no mean, and no correlation of a pair.
    pairs = table.astype(np.float64).reshape(4, -1, 2)
    assert not pairs.sum(axis=0).any() and not (pairs[:2, :, 0] * pairs[:2, :, 1]).sum(axis=0).any()
    assert abs((pairs**2).mean() - 0.5) < 1e-8


def mixed(state):
    """SplitMix64's output in PyTorch, which has signed integers alone."""

    def shifted(value, bits):
        return (value >> bits) & ((1 << (64 - bits)) - 1)

    state = (state ^ shifted(state, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    state = (state ^ shifted(state, 27)) * (0x94D049BB133111EB - 2**64)
    return state ^ shifted(state, 31)


def normal_in_torch(keys, num):
    words = -(-num // 8)
    counter = torch.arange(1, words + 1) * (0x9E3779B97F4A7C15 - 2**64)
    bits = mixed(torch.from_numpy(keys.view(np.int64))[:, None] + counter)
    places = torch.stack([(bits >> shift) & 0xFFFF for shift in (0, 16, 32, 48)], dim=2).flatten(1)
    table = torch.from_numpy(scaled_pairs().view(np.float32).reshape(-1, 2).copy())
    one, other = table[places].flatten(1).chunk(2, dim=1)
    return torch.cat([one + other, one - other], dim=1)[:, :num]


@pytest.mark.parametrize("num", [1, 8, 37, 4096])
def test_numpy_and_torch_give_the_same_bits(num):
    assert torch.equal(normal_in_torch(KEYS[:40], num), torch.from_numpy(random.normal(KEYS[:40], num)))


@pytest.mark.parametrize("words", [1, 7, 10**6])
def test_noise_is_the_same_however_much_of_it_is_made_at_once(monkeypatch, words):
    expected = random.normal(KEYS[:23], 100)
    monkeypatch.setattr(random, "_CHUNK_WORDS", words)
    into = np.full((23, 100), np.nan, np.float32)
    assert random.normal(KEYS[:23], 100, into) is into
    np.testing.assert_array_equal(into, expected)


def test_the_bits_stay_those_of_this_release():
    def digest(numbers):
        return hashlib.sha256(numbers.astype("<f4").tobytes()).hexdigest()

    assert digest(scaled_pairs().view(np.float32)) == TABLE
    assert digest(random.normal(KEYS[:5], 1001)) == NUMBERS


TABLE = "94e3aa351bd713ff353375326110219b9ae6fa7d925831219341b75249ffacd1"
NUMBERS = "f7701d2c405ab9ff0d47a3b03bd1fa89210d9c5c2de0001fc005746ab5030c4b"
