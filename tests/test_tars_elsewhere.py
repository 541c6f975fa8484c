"""The tars of the download, read by those who know nothing of darkroom: webdataset and Hugging Face's datasets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
import webdataset
from PIL import Image

from darkroom.config.dataset import Download, parse_source
from darkroom.sources.base import Part
from darkroom.sources.table import download_from, write_urls
from darkroom.store import read_table

NUM = 7
# What captions of the web have in them, and a tar of a dataset must keep apart from its own names.
CAPTIONS = ["a cat", 'grün, with "quotes"', "two\nlines", "dots.in.it", "", "{}", "ünïcode 猫 🐈"]


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tar of a part, with its table beside it, of pictures in a folder."""
    folder = tmp_path_factory.mktemp("tars")
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, caption in enumerate(CAPTIONS):
        Image.new("RGB", (40 + number, 30), (number * 30, 100, 200)).save(pictures / f"a.b {number}.png")
        (pictures / f"a.b {number}.txt").write_text(caption, encoding="utf-8")
    source = parse_source({"kind": "pictures", "folder": str(pictures), "uncaptioned": "keep"})
    write_urls(source, folder / "urls.parquet", [])
    files = folder / "part-00000.tar", folder / "part-00000.parquet"
    made = Part(folder / "urls.parquet", 0, 100, Download(), *files)
    assert download_from(source, made)["status"] == {"ok": NUM}
    yield folder / "part-00000.tar"


def expected(part: Path) -> pl.DataFrame:
    return read_table(part.with_suffix(".parquet")).sort("uid")


def check(sample: dict[str, Any], row: dict[str, Any], image: Image.Image, text: str) -> None:
    assert sample["__key__"] == row["uid"]
    assert image.size == (row["width"], row["height"]) and text == (row["caption"] or "")


def test_webdataset_reads_every_sample_in_the_order_of_the_table(part: Path) -> None:
    found = list(webdataset.WebDataset(str(part), shardshuffle=False).decode("pil"))
    rows = expected(part).to_dicts()
    assert [sample["__key__"] for sample in found] == [row["uid"] for row in rows]
    for sample, row in zip(found, rows, strict=True):
        check(sample, row, sample["jpg"], sample["txt"])
        assert sample["json"]["sha256"] == row["sha256"] and sample["json"]["url"] == row["url"]
    triples = webdataset.WebDataset(str(part), shardshuffle=False).to_tuple("jpg", "txt", "json")
    for (jpeg, text, told), row in zip(triples, rows, strict=True):
        with part.open("rb") as file:
            file.seek(row["offset"])
            assert file.read(row["size"]) == jpeg
        assert text.decode() == (row["caption"] or "") and json.loads(told)["uid"] == row["uid"]


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_same(part: Path, tmp_path: Path, streaming: bool) -> None:
    loaded = datasets.load_dataset(
        "webdataset",
        data_files={"train": [str(part)]},
        split="train",
        streaming=streaming,
        cache_dir=str(tmp_path),
    )
    found, rows = list(loaded), expected(part).to_dicts()
    assert len(found) == NUM
    for sample, row in zip(found, rows, strict=True):
        check(sample, row, sample["jpg"], sample["txt"])
        assert sample["json"]["original_width"] == row["original_width"]


def test_what_webdataset_writes_of_it_is_a_source_with_the_same_urls_and_captions(
    part: Path, tmp_path: Path
) -> None:
    with webdataset.TarWriter(str(tmp_path / "again.tar")) as sink:
        for sample in webdataset.WebDataset(str(part), shardshuffle=False):
            sink.write({name: sample[name] for name in ("__key__", "jpg", "txt", "json")})
    source = parse_source({"kind": "webdataset", "path": str(tmp_path / "again.tar"), "uncaptioned": "keep"})
    write_urls(source, tmp_path / "urls.parquet", [])
    files = tmp_path / "part-00000.tar", tmp_path / "part-00000.parquet"
    counts = download_from(source, Part(tmp_path / "urls.parquet", 0, 100, Download(), *files))
    assert counts["status"] == {"ok": NUM}
    columns = ["url", "caption", "width", "height"]
    again, before = (read_table(path).sort("url") for path in (files[1], part.with_suffix(".parquet")))
    assert (
        again.select(columns)
        .with_columns(pl.col("caption").fill_null(""))
        .equals(before.select(columns).with_columns(pl.col("caption").fill_null("")))
    )
