"""Parquet with pictures in it, as data sets of Hugging Face are: what enters, and what is refused."""

import tracemalloc
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_tars import png

from darkroom.config.dataset import parse_source
from darkroom.settings.download import Download
from darkroom.sources.base import Part
from darkroom.sources.table import count_rows, download_from, list_columns, look_at, write_urls
from darkroom.store import read_table, sample_uid

COLORS = ("red", "green", "blue", "white", "black", "yellow", "purple")


def table_of(num: int, as_struct: bool = True, **more: list[Any]) -> pa.Table:
    contents = [png(COLORS[i % 7], (20 + i, 10)) for i in range(num)]
    pictures: Any = (
        [{"bytes": c, "path": f"{i}.png"} for i, c in enumerate(contents)] if as_struct else contents
    )
    return pa.table(
        {"image": pictures, "text": [f"picture {i}" for i in range(num)], "label": range(num), **more}
    )


def source_of(path: Path, **values: Any) -> Any:
    return parse_source({"kind": "tables_of_pictures", "path": str(path), **values})


def read_in(
    source: Any, out: Path, rows_per_part: int = 100, **options: Any
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The download tables of a source, by row, and how many rows ended how."""
    out.mkdir(exist_ok=True)
    num = write_urls(source, out / "urls.parquet", list(list_columns(source)))
    tables = []
    for first in range(0, num, rows_per_part):
        part = out / f"{first}.tar", out / f"{first}.parquet"
        download_from(source, Part(out / "urls.parquet", first, rows_per_part, Download(**options), *part))
        tables.append(read_table(part[1]))
    table = pl.concat(tables).sort("row")
    return table, dict(table["status"].value_counts().sort("status").iter_rows())


@pytest.mark.parametrize("as_struct", [True, False])
@pytest.mark.parametrize("rows_per_part", [2, 5, 100])
def test_pictures_are_read_from_any_row_group_into_any_part(
    tmp_path: Path, as_struct: bool, rows_per_part: int
) -> None:
    pq.write_table(table_of(11, as_struct), tmp_path / "a.parquet", row_group_size=4)
    source = source_of(tmp_path / "a.parquet")
    assert list_columns(source) == {"label": "number"}
    table, counts = read_in(source, tmp_path / "out", rows_per_part)
    assert counts == {"ok": 11}
    assert table["original_width"].to_list() == [20 + i for i in range(11)]
    assert table["caption"].to_list() == [f"picture {i}" for i in range(11)]
    assert table["label"].to_list() == list(range(11))
    assert table["url"].to_list() == [f"local:a.parquet/{i}" for i in range(11)]


def test_a_column_may_tell_the_url_and_the_uid_is_that_of_a_download(tmp_path: Path) -> None:
    urls = ["http://a.example/0", None, ""]
    pq.write_table(table_of(3, link=urls), tmp_path / "a.parquet")
    table, _ = read_in(source_of(tmp_path / "a.parquet", url_column="link"), tmp_path / "out")
    assert table["url"].to_list() == ["http://a.example/0", "local:a.parquet/1", "local:a.parquet/2"]
    assert table["uid"][0] == sample_uid("http://a.example/0", table["sha256"][0])


def test_captions_may_be_lists_or_missing_and_pictures_too(tmp_path: Path) -> None:
    captions = [["a", "b"], [], None, ["c"], ["d"]]
    table = table_of(5).set_column(1, "captions", pa.array(captions, pa.list_(pa.string())))
    pictures = table.column("image").to_pylist()
    pictures[3] = {"bytes": None, "path": "elsewhere.png"}
    pictures[4] = None
    pq.write_table(table.set_column(0, "image", pa.array(pictures)), tmp_path / "a.parquet")
    found, counts = read_in(source_of(tmp_path / "a.parquet"), tmp_path / "out")
    assert counts == {"no_caption": 2, "no_picture": 2, "ok": 1}
    assert found["captions"].to_list() == [["a", "b"], None, None, None, None]
    _, counts = read_in(source_of(tmp_path / "a.parquet", uncaptioned="keep"), tmp_path / "out2")
    assert counts == {"no_picture": 2, "ok": 3}


def test_bounds_of_the_download_hold_for_rows(tmp_path: Path) -> None:
    table = table_of(3)
    pictures = [png(), b"x" * 5_000, b"no picture"]
    pq.write_table(table.set_column(0, "image", pa.array(pictures)), tmp_path / "a.parquet")
    _, counts = read_in(source_of(tmp_path / "a.parquet"), tmp_path / "out", max_bytes=4_000)
    assert counts == {"not_an_image": 1, "ok": 1, "too_many_bytes": 1}


@pytest.mark.parametrize(
    ("table", "values", "told"),
    [
        (pa.table({"text": ["a"]}), {}, r"no column 'image' \(source.picture_column\); it has text"),
        (
            pa.table({"image": ["a.png"], "text": ["a"]}),
            {},
            r"'image' \(source.picture_column\) holds string; it",
        ),
        (
            pa.table({"image": [{"path": "a"}], "text": ["a"]}),
            {},
            r"holds struct<path: string>; it should",
        ),
        (pa.table({"image": [b"a"]}), {}, r"no captions: none of its keys is caption or captions or text"),
        (pa.table({"image": [b"a"], "text": ["a"]}), {"caption_key": "x"}, r"none of its keys is x"),
        (
            pa.table({"image": [b"a"], "text": ["a"]}),
            {"url_column": "x"},
            r"no column 'x' \(source.url_column\)",
        ),
    ],
)
def test_a_table_that_will_not_do_is_refused_by_file_and_key(
    tmp_path: Path, table: pa.Table, values: dict[str, str], told: str
) -> None:
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=rf"source.path: .*a.parquet: .*{told}"):
        count_rows(source_of(tmp_path / "a.parquet", **values))


def test_a_table_that_changes_under_way_is_refused(tmp_path: Path) -> None:
    pq.write_table(table_of(5), tmp_path / "a.parquet")
    source, out = source_of(tmp_path / "a.parquet"), tmp_path / "urls.parquet"
    write_urls(source, out, [])
    pq.write_table(table_of(3), tmp_path / "a.parquet")
    with pytest.raises(
        ValueError, match=r"a.parquet: was changed since it was listed. Start snakemake again"
    ):
        download_from(source, Part(out, 0, 5, Download(), tmp_path / "x.tar", tmp_path / "x.parquet"))


def test_each_files_size_and_time_reach_its_own_parts(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for name in ("a", "b"):
        pq.write_table(table_of(4), tmp_path / f"tables/{name}.parquet")
    before = look_at(source_of(tmp_path / "tables"), 2, "mine", tmp_path).parts
    # Other pictures, the same words.
    pq.write_table(
        table_of(7).slice(3).drop("text").append_column("text", table_of(4)["text"]), tmp_path / "x"
    )
    changed = table_of(4).set_column(0, "image", pq.read_table(tmp_path / "x")["image"])
    pq.write_table(changed, tmp_path / "tables/b.parquet")
    now = look_at(source_of(tmp_path / "tables"), 2, "mine", tmp_path).parts
    assert [a == b for a, b in zip(before, now, strict=True)] == [True, True, False, False]


def test_a_table_without_captions_will_do_where_there_is_a_captioner(tmp_path: Path) -> None:
    pq.write_table(table_of(5).drop("text"), tmp_path / "labelled.parquet", row_group_size=2)
    pq.write_table(table_of(5).select(["image"]), tmp_path / "bare.parquet")
    for name in ("labelled", "bare"):
        source = source_of(tmp_path / f"{name}.parquet").with_captioner(True)
        table, counts = read_in(source, tmp_path / name)
        assert counts == {"ok": 5} and table["caption"].is_null().all() and table["captions"].is_null().all()
        with pytest.raises(ValueError, match=r"no captions: none of its keys is"):
            count_rows(source_of(tmp_path / f"{name}.parquet").with_captioner(False))


def test_pictures_are_not_all_in_memory(tmp_path: Path) -> None:
    large = [bytes([i]) * 1_000_000 for i in range(100)]
    table = table_of(100).set_column(0, "image", pa.array(large))
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    source, out = source_of(tmp_path / "a.parquet"), tmp_path / "urls.parquet"
    write_urls(source, out, [])
    tracemalloc.start()
    download_from(source, Part(out, 0, 100, Download(), tmp_path / "x.tar", tmp_path / "x.parquet"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000
