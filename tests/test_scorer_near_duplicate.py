"""The scorers `perceptual_hash` and `near_duplicate`: what is found, what is kept, lists that grow."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from photographs import PHOTOGRAPHS, photograph, scores, write_part
from PIL import Image
from scipy.fft import dctn

from darkroom import store
from darkroom.score import score_dataset
from darkroom.scorers.perceptual_hash import SPEC as PERCEPTUAL_HASH
from darkroom.scorers.perceptual_hash import coefficients, hashes

sys.path.insert(0, str(ROOT / "trials"))
from near_duplicates import CHANGES, load, measured, speed

HASHED = {"uid": pl.String, "row": pl.Int64} | {
    name: getattr(pl, kind) for name, kind in PERCEPTUAL_HASH.columns.items()
}
RESIZED_OR_COMPRESSED = [name for name in CHANGES if "cropped" not in name and "mirrored" not in name]


def test_coefficients_are_those_of_scipy_of_the_lowest_frequencies() -> None:
    luma = np.random.default_rng(0).integers(0, 256, (64, 64))
    # Scipy's type 2 has a factor of 2 in each direction.
    expected = dctn(luma, type=2) / 4
    pairs = sorted(
        ((u, v) for u in range(17) for v in range(17) if u + v), key=lambda pair: (sum(pair), pair)
    )
    pairs[:64] = [pairs[8 * place + group] for group in range(8) for place in range(8)]
    # Cosines are rounded; what is no noise has 410 and more.
    assert coefficients(luma) / 2**28 == pytest.approx([expected[pair] for pair in pairs[:256]], abs=10)


def test_the_hash_of_a_mirror_image_is_the_mirrored_hash() -> None:
    for name in PHOTOGRAPHS:
        picture = photograph(name)
        plain, mirrored, detail, *colours = hashes(picture)
        turned = hashes(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        distance = (
            (int(plain, 16) ^ int(turned[1], 16)).bit_count(),
            (int(mirrored, 16) ^ int(turned[0], 16)).bit_count(),
        )
        assert max(distance) <= 1 and abs(detail - turned[2]) <= 1 and colours == list(turned[3:])
        assert len(plain) == 64 and detail > 40


def test_a_part_has_a_hash_of_every_picture_and_an_empty_one_no_detail(tmp_path: Path) -> None:
    stored = write_part(tmp_path, [photograph("coffee"), Image.new("RGB", (80, 60), (200, 30, 40))])
    found = scores(tmp_path, "perceptual_hash", {})
    told = found.select("phash", "phash_mirrored", "phash_detail", "phash_cb", "phash_cr").rows()
    assert told == [*map(hashes, stored), (None,) * 5]
    assert told[1][2] == 0 and told[0][2] > 40


def dataset(folder: Path, parts: list[list[dict[str, Any]]]) -> tuple[list[Path], list[Path]]:
    """Tables of the download and of the hashes."""
    tables, hashed = [], []
    for number, rows in enumerate(parts):
        tables.append(folder / f"{store.part_name(number)}.parquet")
        hashed.append(folder / f"{store.part_name(number)}.perceptual_hash.parquet")
        store.write_table(tables[-1], pl.DataFrame([row["of"] for row in rows], orient="row"))
        store.write_table(hashed[-1], pl.DataFrame([row["hash"] for row in rows], HASHED))
    return tables, hashed


def row(number: int, low: int = 0, high: int = 0, **changes: Any) -> dict[str, Any]:
    """A row whose hash differs in these bits, of the lowest 64 and of the rest."""
    plain = f"{0x5A5A5A5A00000000 ^ low:016x}{0x3C3C ^ high:048x}"
    size = changes.pop("size", 100)
    keys = {"uid": f"{number:032x}", "row": number}
    of = {**keys, "status": "ok", "original_width": size, "original_height": size} | {
        name: value for name, value in changes.items() if name == "status"
    }
    told = {"phash": plain, "phash_mirrored": f"{number + 2:016x}" * 4, "phash_detail": 60, "phash_cb": 128}
    told |= {"phash_cr": 128, **{name: value for name, value in changes.items() if name != "status"}}
    return {"of": of, "hash": {**keys, **told}}


def near(folder: Path, *parts: list[dict[str, Any]], **options: Any) -> list[tuple[Any, ...]]:
    tables, hashed = dataset(folder, list(parts))
    out = folder / "near_duplicate.parquet"
    score_dataset("near_duplicate", options, tables, out, scores=hashed)
    return store.read_table(out).select("row", "near_duplicate", "near_duplicate_of").rows()


def test_of_a_part_the_picture_of_the_most_pixels_is_kept_then_the_first(tmp_path: Path) -> None:
    rows = [row(0), row(1, low=0b1, size=300), row(2, low=0b11, size=300), row(3, low=2**60 - 1)]
    assert near(tmp_path, rows) == [(0, True, 1), (1, False, None), (2, True, 1), (3, False, None)]


def test_what_is_kept_of_a_part_stays_whatever_a_later_one_brings(tmp_path: Path) -> None:
    # The second part's picture is larger than both, and near both, which are not near each other.
    first = [row(0, low=0b1111), row(1, low=0b1111 << 8)]
    later = [row(2, low=0b11 | 0b11 << 8, size=900), row(3, low=0b111 | 0b1 << 8, size=800)]
    before = near(tmp_path, first)
    assert before == [(0, False, None), (1, False, None)]
    assert near(tmp_path, first, later) == [*before, (2, True, 0), (3, True, 0)]


@pytest.mark.parametrize(
    ("other", "options", "is_near"),
    [
        ({"low": 0b1111}, {}, True),
        ({"low": 0b11111}, {}, False),
        ({"low": 0b11111}, {"max_low_bits": 5}, True),
        ({"low": 0b1, "high": 2**55 - 2**16}, {}, True),
        ({"low": 0b11, "high": 2**55 - 2**16}, {}, False),
        ({"phash_cr": 136}, {}, True),
        ({"phash_cb": 119}, {}, False),
        ({"phash_cb": 119}, {"max_colour": 9}, True),
        ({"phash_detail": 23}, {}, False),
        ({"phash_detail": 23}, {"min_detail": 23}, True),
        ({"phash": "01" * 32, "phash_mirrored": f"{0x5A5A5A5A00000001:016x}{0x3C3C:048x}"}, {}, True),
    ],
)
def test_options_say_how_near_is_near(
    tmp_path: Path, other: dict[str, Any], options: dict[str, Any], is_near: bool
) -> None:
    assert near(tmp_path, [row(0)], [row(1, **other)], **options)[1] == (1, is_near, 0 if is_near else None)


def test_a_row_without_a_picture_is_null(tmp_path: Path) -> None:
    gone = row(
        1, status="timeout", phash=None, phash_mirrored=None, phash_detail=None, phash_cb=None, phash_cr=None
    )
    assert near(tmp_path, [row(0), gone, row(2)]) == [(0, False, None), (1, None, None), (2, True, 0)]
    assert near(tmp_path, [gone]) == [(1, None, None)]


def test_the_benchmark_finds_all_that_it_hides() -> None:
    assert speed([2_000, 30_000], num_threads=2)


@pytest.mark.real
def test_of_500_pictures_99_of_100_are_found_again_and_99_of_100_found_are_right(
    unpacked: Callable[[str], Path],
) -> None:
    """Rendered pictures of one code point: those of several are variants of these."""
    paths = sorted(unpacked("@lobehub/fluent-emoji-3d@1.1.0").rglob("*.webp"))
    paths = [path for path in paths if "-" not in path.name]
    some = [load(paths[place]) for place in np.random.default_rng(0).permutation(len(paths))[:500]]
    found = measured(some)
    print(json.dumps({name: tuple(map(float, each)) for name, each in found.items()}, indent=1))
    for name in [*RESIZED_OR_COMPRESSED, "mirrored", "mirrored, half"]:
        assert found[name].recall >= 0.99 and found[name].precision >= 0.99, name
    # What is left out at the edges moves all else: most crops are other pictures to this hash.
    assert 0.25 < found["5 % cropped"].recall < 0.6 and found["5 % cropped"].precision >= 0.99
