"""The scorers `clip_embedding` and `clip_duplicate`: exact in the cosine, one of a cluster kept, crops found."""

import base64
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from photographs import PHOTOGRAPHS, photograph, scores, write_part

from darkroom import store
from darkroom.components.base import Component
from darkroom.components.clip import load_clip
from darkroom.score import score_dataset
from darkroom.scorers import cosines
from darkroom.scorers.cosines import SCALE, first_alike, rounded

CLIP = Component(kind="clip", path=str(ROOT / "src/darkroom_demo/components/clip"))


def clustered(num: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around a few directions, at many distances from these."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(max(1, num // 6), dimensions))
    made = centres[random.integers(0, len(centres), num)]
    made += random.normal(size=made.shape) * random.uniform(0, 0.6, (num, 1))
    return rounded((made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32))


def by_hand(vectors: np.ndarray, min_cosine: float) -> list[int]:
    """The rule, word for word, in whole numbers."""
    whole, kept, found = vectors.astype(np.int64), list[int](), list[int]()
    for j, vector in enumerate(whole):
        near = [i for i in kept if int(whole[i] @ vector) >= min_cosine * SCALE**2]
        found.append(near[0] if near else j)
        kept += [] if near else [j]
    return found


@pytest.mark.parametrize("num", [0, 1, 5, 400])
@pytest.mark.parametrize("dimensions", [3, 64, 1024])
def test_what_is_found_is_what_comparing_all_finds_however_it_is_cut(
    num: int, dimensions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clustered(num, dimensions)
    for min_cosine in (0.8, 0.95):
        expected = by_hand(vectors, min_cosine)
        assert first_alike(vectors, min_cosine).tolist() == expected
        assert num < 400 or 1 < len(set(expected)) < num
        with monkeypatch.context() as cut:
            cut.setattr(cosines, "_BLOCK", 7)
            cut.setattr(cosines, "_KEPT", 5)
            assert first_alike(vectors, min_cosine).tolist() == expected


def test_float32_holds_every_sum_of_products() -> None:
    vectors = clustered(300, 1024)
    vectors[:3] = 0
    vectors[0, 0], vectors[1, :4], vectors[2] = SCALE, SCALE // 2, SCALE // 32
    whole = vectors.astype(np.int64)
    assert (np.abs(whole) @ np.abs(whole).T).max() < 2**24
    assert np.array_equal(cosines._products(vectors, vectors), whole @ whole.T)


def test_what_comes_later_changes_nothing_of_what_came_before() -> None:
    vectors = clustered(300, 16, 1)
    whole = first_alike(vectors, 0.9)
    for num in (1, 150, 299):
        assert first_alike(vectors[:num], 0.9).tolist() == whole[:num].tolist()


def part_of(folder: Path, pictures: list, first_row: int, sizes: dict[int, int]) -> Path:
    """A part with its embeddings; `sizes` are the original sides of rows that are not 100."""
    folder.mkdir()
    write_part(folder, pictures)
    scores(folder, "clip_embedding", {"clip": "clip"}, {"clip": CLIP})
    table = store.read_table(folder / "part-00000.parquet")
    side = pl.Series([sizes.get(first_row + row, 100) for row in table["row"]])
    for path in (folder / "part-00000.parquet", folder / "part-00000.clip_embedding.parquet"):
        store.write_table(path, store.read_table(path).with_columns(pl.col("row") + first_row))
    table = store.read_table(folder / "part-00000.parquet")
    named = folder.parent / f"part-{first_row:05d}.parquet"
    store.write_table(named, table.with_columns(original_width=side, original_height=side))
    (folder / "part-00000.clip_embedding.parquet").rename(
        named.with_name(named.name.replace(".parquet", ".clip_embedding.parquet"))
    )
    return named


def duplicates(tables: list[Path], min_cosine: float) -> pl.DataFrame:
    files = [path.with_name(path.name.replace(".parquet", ".clip_embedding.parquet")) for path in tables]
    out = tables[0].parent / "clip_duplicate.parquet"
    score_dataset("clip_duplicate", {"min_cosine": min_cosine}, tables, out, scores=files)
    return store.read_table(out)


def test_a_crop_names_the_larger_of_its_part_and_an_earlier_part_keeps_its_own(tmp_path: Path) -> None:
    cat = photograph("chelsea")
    left, top = round(0.025 * cat.width), round(0.025 * cat.height)
    crop = cat.crop((left, top, cat.width - left, cat.height - top))
    others = [photograph(name) for name in PHOTOGRAPHS if name not in ("chelsea", "ihc")]
    first = part_of(tmp_path / "first", [crop, cat, *others], 0, {1: 200})
    found = duplicates([first], 0.95)
    # The last row has no picture.
    assert found["clip_duplicate"].to_list() == [True, False, *[False] * len(others), None]
    assert found["clip_duplicate_of"].to_list() == [1, *[None] * (len(others) + 2)]
    second = part_of(tmp_path / "second", [cat], 50, {50: 999})
    grown = duplicates([first, second], 0.95)
    assert grown.head(found.height).equals(found)
    assert grown["clip_duplicate_of"].to_list()[-2:] == [1, None]


def test_the_column_is_the_embedding_as_whole_numbers(tmp_path: Path) -> None:
    stored = write_part(tmp_path, [photograph("coffee"), photograph("rocket")])
    told = scores(tmp_path, "clip_embedding", {"clip": "clip"}, {"clip": CLIP})["clip_embedding"].to_list()
    expected = load_clip(CLIP).encode_images(stored).numpy()
    for text, vector in zip(told[:2], expected, strict=True):
        found = np.frombuffer(base64.b64decode(text), "<i2")
        assert abs(found / SCALE - vector).max() <= 0.5 / SCALE + 1e-5
    assert told[2] is None


def test_embeddings_of_unlike_lengths_are_refused(tmp_path: Path) -> None:
    table = part_of(tmp_path / "first", [photograph("coffee"), photograph("rocket")], 0, {})
    path = table.with_name("part-00000.clip_embedding.parquet")
    other = pl.when(pl.col("row") == 0).then(pl.lit("AAAA")).otherwise("clip_embedding")
    store.write_table(path, store.read_table(path).with_columns(clip_embedding=other))
    with pytest.raises(ValueError, match="clip_embedding: embeddings of 2 lengths"):
        duplicates([table], 0.9)
