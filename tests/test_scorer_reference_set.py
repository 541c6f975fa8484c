"""`in_reference_set`: pictures of a set that a training must not contain are found in a dataset, and named."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from photographs import PHOTOGRAPHS, photograph, write_part
from PIL import Image, ImageOps

from darkroom import store
from darkroom.score import references
from darkroom.score.stage import Asked, score_in_one_pass, score_part
from darkroom.scorers.hamming import Hashes, Near, first_near_of


def jpeg(picture: Image.Image, quality: int = 95) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two photographs and a file that is none, a tar with two others, a table with a fifth."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "bench/deep").mkdir(parents=True)
    (folder / "bench/deep/cat #1.jpg").write_bytes(jpeg(photograph("chelsea")))
    photograph("coffee").save(folder / "bench/coffee.png")
    (folder / "bench/broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (folder / "tars").mkdir()
    members = [(f"{name}.jpg", jpeg(photograph(name))) for name in ("rocket", "astronaut")]
    store.write_tar(folder / "tars/0.tar", members)
    pl.DataFrame({"image": [{"bytes": jpeg(photograph("retina")), "path": "x.jpg"}]}).write_parquet(
        folder / "real.parquet"
    )
    return folder


def made(sets: Path, out: Path, *names: str) -> dict[str, Path]:
    paths = {"bench": sets / "bench", "tars": sets / "tars", "real": sets / "real.parquet"}
    for name in names:
        references.write_references(str(paths[name]), out / f"{name}.parquet")
    return {name: out / f"{name}.parquet" for name in names}


def test_the_pictures_of_folders_tars_and_tables_are_hashed_and_what_is_none_is_counted(
    sets: Path, tmp_path: Path
) -> None:
    tables = made(sets, tmp_path, "bench", "tars", "real")
    bench = store.read_table(tables["bench"])
    assert bench["picture"].to_list() == ["local:broken.jpg", "local:coffee.png", "local:deep/cat%20%231.jpg"]
    assert bench["status"].to_list() == ["not_an_image", "ok", "ok"]
    assert bench["phash"].is_null().to_list() == [True, False, False]
    assert store.read_table(tables["tars"])["picture"].to_list() == [
        "local:0.tar/rocket.jpg",
        "local:0.tar/astronaut.jpg",
    ]
    assert store.read_table(tables["real"])["picture"].to_list() == ["local:real.parquet/0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bench.parquet",
        "real.parquet",
        "tars.parquet",
    ]


def scored(folder: Path, tables: dict[str, Path], **options: Any) -> tuple[pl.DataFrame, Any]:
    out = folder / "part-00000.in_reference_set.parquet"
    paths = folder / "part-00000.parquet", folder / "part-00000.tar", out
    told = score_part("in_reference_set", {"sets": dict.fromkeys(tables, "x"), **options}, *paths, {}, tables)
    return store.read_table(out).sort("row"), told


def test_copies_of_a_set_are_found_however_they_were_kept_and_others_are_not(
    sets: Path, tmp_path: Path
) -> None:
    cat, rocket = photograph("chelsea"), photograph("rocket")
    half = cat.resize((cat.width // 2, cat.height // 2))
    write_part(tmp_path, [cat, half, ImageOps.mirror(rocket), *map(photograph, ("motorcycle_left", "ihc"))])
    found, told = scored(tmp_path, made(sets, tmp_path, "bench", "tars"))
    assert found["in_reference_set"].to_list() == [True, True, True, False, False, None]
    assert found["reference_set"].to_list() == ["bench", "bench", "tars", None, None, None]
    cat_url = "local:deep/cat%20%231.jpg"
    assert found["reference_picture"].to_list() == [
        cat_url,
        cat_url,
        "local:0.tar/rocket.jpg",
        None,
        None,
        None,
    ]
    assert told.judges["reference set bench"] == {
        "sha256": store.sha256_file(tmp_path / "bench.parquet"), "pictures": 3, "not_read": {"not_an_image": 1},
    }  # fmt: skip
    assert told.judges["reference set tars"]["pictures"] == 2
    assert told.counts == {
        "in_reference_set": {"rows": 6, "unknown": {"reference_set": 2, "reference_picture": 2}}
    }


def test_the_first_set_names_what_is_in_several(sets: Path, tmp_path: Path) -> None:
    write_part(tmp_path, [photograph("chelsea")])
    tables = made(sets, tmp_path, "bench")
    again = {"again": tmp_path / "again.parquet", **tables}
    (tmp_path / "again.parquet").write_bytes(tables["bench"].read_bytes())
    assert scored(tmp_path, again)[0]["reference_set"][0] == "again"
    assert scored(tmp_path, dict(reversed(again.items())))[0]["reference_set"][0] == "bench"


def test_pictures_without_detail_are_near_none(sets: Path, tmp_path: Path) -> None:
    white = Image.new("RGB", (64, 64), "white")
    (tmp_path / "blank").mkdir()
    for name in ("a", "b"):
        white.save(tmp_path / f"blank/{name}.png")
    references.write_references(str(tmp_path / "blank"), tmp_path / "blank.parquet")
    write_part(tmp_path, [white])
    found, _ = scored(tmp_path, {"blank": tmp_path / "blank.parquet"})
    assert found["in_reference_set"].to_list() == [False, None]


def test_it_shares_the_hashes_of_perceptual_hash_in_one_pass(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from darkroom.scorers import perceptual_hash

    write_part(tmp_path, [photograph(name) for name in PHOTOGRAPHS] * 6)
    tables = made(sets, tmp_path, "bench", "tars")
    alone, _ = scored(tmp_path, tables)
    num, hashes = 0, perceptual_hash.hashes

    def counting(image: Image.Image) -> Any:
        nonlocal num
        num += 1
        return hashes(image)

    monkeypatch.setattr(perceptual_hash, "hashes", counting)
    of = Asked(
        "in_reference_set", {"sets": dict.fromkeys(tables, "x")}, tmp_path / "a.parquet", "", {}, tables
    )
    asked = [of, Asked("perceptual_hash", {}, tmp_path / "b.parquet", "")]
    score_in_one_pass(asked, tmp_path / "part-00000.parquet", tmp_path / "part-00000.tar")
    assert num == 6 * len(PHOTOGRAPHS)
    assert store.read_table(of.out).sort("row").equals(alone)


def test_a_set_is_another_where_its_pictures_are(sets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(photograph("chelsea")))
    states = [references.state_of(str(folder))]
    (folder / "b.jpg").write_bytes(jpeg(photograph("coffee")))
    states.append(references.state_of(str(folder)))
    (folder / "b.jpg").rename(folder / "c.jpg")
    states.append(references.state_of(str(folder)))
    (folder / "c.jpg").write_bytes(jpeg(photograph("coffee"), 50))
    states.append(references.state_of(str(folder)))
    assert len(set(states)) == 4
    os.link(folder / "a.jpg", tmp_path / "elsewhere.jpg")
    assert references.state_of(str(folder)) == states[-1]


def test_what_is_no_set_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a")
    with pytest.raises(ValueError, match="texts holds neither pictures nor tars nor Parquet tables"):
        references.state_of(str(tmp_path / "texts"))
    with pytest.raises(ValueError, match="gone is no folder, tar or Parquet table"):
        references.state_of(str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"no file .*gone\.tar"):
        references.state_of(str(tmp_path / "gone.tar"))
    with pytest.raises(ValueError, match="the environment variable DARKROOM_NONE is not set"):
        references.state_of("$DARKROOM_NONE/coco")
    (tmp_path / "texts/a.jpg").write_text("a")
    with pytest.raises(ValueError, match=r"none of its pictures can be read \(not_an_image 1\)"):
        references.write_references(str(tmp_path / "texts"), tmp_path / "out.parquet")


@pytest.mark.parametrize("num", [(0, 5), (5, 0), (300, 9000)])
def test_the_first_near_one_of_a_set_is_what_comparing_with_all_finds(num: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    word = random.integers(0, 2**64, 4, dtype=np.uint64)

    def drawn(n: int) -> Hashes:
        # Few of the bits vary, so that many are near each other.
        turned = []
        for _ in range(2):
            flips = np.uint64(1) << random.integers(0, 12, (5, n, 4), dtype=np.uint64)
            turned.append(np.bitwise_xor.reduce(flips, axis=0) ^ word)
        return Hashes(*turned, random.integers(0, 4, (n, 2), dtype=np.int16))

    of, hashes, near = drawn(num[0]), drawn(num[1]), Near(3, 9, 2)
    expected = np.full(num[1], -1)
    for at in reversed(range(num[0])):
        far = [np.bitwise_count(of.plain[at] ^ turned) for turned in (hashes.plain, hashes.mirrored)]
        is_near = np.any([(f[:, 0] <= 3) & (f.sum(axis=1) <= 9) for f in far], axis=0)
        expected[is_near & (abs(hashes.colours - of.colours[at]) <= 2).all(axis=1)] = at
    found = first_near_of(of, hashes, near, 2)
    assert found.tolist() == expected.tolist()
    assert not all(num) or 0.05 < (found >= 0).mean() < 0.95
