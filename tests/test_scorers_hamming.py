"""The index of hashes: it finds what comparing all with all finds, and ends where very many are alike."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from darkroom.scorers import hamming, shards
from darkroom.scorers.hamming import Hashes, Near, first_near
from darkroom.scorers.shards import Shards


def brute_force(hashes: Hashes, near: Near) -> list[int]:
    """The rule, word for word."""
    kept: list[int] = []
    found = []
    for j in range(len(hashes.plain)):
        first = j
        for turned in (hashes.plain, hashes.mirrored):
            bits = np.bitwise_count(hashes.plain[kept] ^ turned[j])
            off = abs(hashes.colours[kept] - hashes.colours[j]).max(axis=1)
            is_near = (
                (off <= near.max_colour)
                & (bits[:, 0] <= near.max_low_bits)
                & (bits.sum(axis=1) <= near.max_bits)
            )
            first = min([first, *np.array(kept)[is_near].tolist()]) if kept else first
        found.append(first)
        if first == j:
            kept.append(j)
    return found


def alike(num: int, num_sources: int, max_flips: int, seed: int) -> Hashes:
    """Hashes around a few sources: some equal, some mirrored, each with a few bits that differ."""
    random = np.random.default_rng(seed)
    sources = random.integers(0, 2**64, (num_sources, 2, 4), dtype=np.uint64)
    made = sources[random.integers(0, num_sources, num)]
    for word in range(4):
        for turned in range(2):
            for _ in range(max_flips):
                bit = np.uint64(1) << random.integers(0, 64, num, dtype=np.uint64)
                made[:, turned, word] ^= np.where(random.random(num) < 0.4, bit, np.uint64(0))
    is_mirrored = random.random(num) < 0.3
    made[is_mirrored] = made[is_mirrored][:, ::-1]
    made[num // 2 : num // 2 + num // 5] = made[: num // 5]
    colours = random.integers(100, 104, (num, 2), dtype=np.int16)
    colours[num // 2 : num // 2 + num // 5] = colours[: num // 5]
    return Hashes(np.ascontiguousarray(made[:, 0]), np.ascontiguousarray(made[:, 1]), colours)


@pytest.fixture(params=["in memory", "on disk"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where entries are sorted; as if few were many."""
    if request.param == "on disk":
        for name, value in (("_IN_MEMORY", 50), ("_SHARD", 20)):
            monkeypatch.setattr(shards, name, value)
        monkeypatch.setattr(hamming, "_CHUNK", 64)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("max_low_bits", range(1, 7))
@pytest.mark.parametrize(
    ("num", "num_sources", "max_flips"), [(0, 1, 0), (1, 1, 0), (300, 3, 4), (700, 200, 6)]
)
def test_what_is_found_is_what_comparing_all_finds(
    num: int, num_sources: int, max_flips: int, max_low_bits: int
) -> None:
    for seed in range(3):
        hashes = alike(num, num_sources, max_flips, seed)
        near = Near(max_low_bits, max_bits=14, max_colour=2)
        expected = brute_force(hashes, near)
        assert first_near(hashes, near).tolist() == expected
        if num > 1:
            assert 1 < len(set(expected)) < num


@pytest.mark.usefixtures("place")
def test_very_many_that_are_alike_are_halved_and_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, near = alike(1500, 2, 6, 0), Near(3, 14, 2)
    expected = first_near(hashes, near).tolist()
    assert expected == brute_force(hashes, near)
    halved = []
    halves = hamming._halves
    monkeypatch.setattr(hamming, "_halves", lambda of: halved.append(len(of)) or halves(of))
    monkeypatch.setattr(hamming, "_FEW", 16)
    monkeypatch.setattr(hamming, "_CHUNK", 100)
    for num_threads in (1, 3):
        assert first_near(hashes, near, num_threads).tolist() == expected
    assert len(halved) > 10


def test_a_shard_that_is_too_large_is_halved_too(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, near = alike(1500, 400, 6, 0), Near(3, 14, 2)
    halved = []
    halves = hamming._halves
    monkeypatch.setattr(hamming, "_halves", lambda of: halved.append(len(of)) or halves(of))
    monkeypatch.setattr(hamming, "_FEW", 16)
    assert first_near(hashes, near).tolist() == brute_force(hashes, near) and not halved
    monkeypatch.setattr(hamming, "_CHUNK", 10)
    assert first_near(hashes, near).tolist() == brute_force(hashes, near) and halved


def test_files_are_read_as_arrays_are_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_IN_MEMORY", 50)
    monkeypatch.setattr(shards, "_SHARD", 20)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hashes, near = alike(700, 200, 6, 3), Near(4, 14, 2)
    for name, values in vars(hashes).items():
        np.save(tmp_path / f"{name}.npy", values)
    mapped = Hashes(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in vars(hashes)))
    assert first_near(mapped, near, 2).tolist() == first_near(hashes, near).tolist()
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy"}


@pytest.mark.parametrize("num", [0, 1, 5000])
def test_shards_hold_what_was_added_in_order(
    num: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_IN_MEMORY", 100)
    monkeypatch.setattr(shards, "_SHARD", 100)
    numbers = np.random.default_rng(0).integers(0, 2**40, num, dtype=np.uint64)
    numbers[: num // 2] >>= np.uint64(30)
    with Shards(num, 40, tmp_path) as made:
        for begin in range(0, num, 700):
            made.add(numbers[begin : begin + 700].copy())
        found = list(made)
    assert len(found) == (1 if num < 100 else 64)
    assert np.concatenate(found).tolist() == sorted(numbers.tolist())


def test_what_comes_later_changes_nothing_of_what_came_before() -> None:
    hashes, near = alike(900, 40, 6, 1), Near(4, 14, 2)
    whole = first_near(hashes, near)
    for num in (1, 300, 899):
        assert first_near(hashes.of(np.arange(num)), near).tolist() == whole[:num].tolist()
