"""Several captions of a picture: rows with one URL, and columns of lists; the picture is got once."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from test_download_server import Server, serving, settings

from darkroom.config.dataset import parse_source
from darkroom.download.stage import download_part
from darkroom.sources import repeats
from darkroom.sources.table import list_columns, look_at, write_urls
from darkroom.store import read_table

HOST = "http://images.example:80"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def listed(path: Path, **values: Any) -> pl.DataFrame:
    """The list that a source of `path` becomes."""
    source = parse_source({"kind": "list", "path": str(path), **values})
    out = path.parent / "urls.parquet"
    write_urls(source, out, list(list_columns(source)))
    return read_table(out)


def coco(path: Path, urls: list[str | None], captions: list[str | None] | None = None) -> Path:
    captions = captions or [f"caption {i}" for i in range(len(urls))]
    pl.DataFrame({"URL": urls, "TEXT": captions}, schema={"URL": pl.String, "TEXT": pl.String}).write_parquet(
        path
    )
    return path


def test_a_picture_with_five_captions_is_fetched_once_whatever_parts_its_rows_lie_in(
    server: Server, tmp_path: Path
) -> None:
    names = [
        "/good.jpg",
        "/large.png",
        "/good.jpg",
        "/good.jpg",
        "/404.jpg",
        "/good.jpg",
        "/404.jpg",
        "/good.jpg",
    ]
    listed(coco(tmp_path / "list.parquet", [HOST + name for name in names]))
    tables = []
    for first in range(0, 8, 3):
        out = tmp_path / f"{first}.tar", tmp_path / f"{first}.parquet"
        to = {"images.example:80": f"127.0.0.1:{server.server_port}"}
        download_part(tmp_path / "urls.parquet", first, 3, settings(num_retries=0), *out, to)
        tables.append(read_table(out[1]))
    assert dict(server.requests) == dict.fromkeys(("/good.jpg", "/large.png", "/404.jpg"), 1)
    table = pl.concat(tables).sort("row")
    assert table["status"].to_list() == [
        "ok",
        "ok",
        *["duplicate_url"] * 2,
        "http_404",
        *["duplicate_url"] * 3,
    ]
    assert table["captions"][0].to_list() == [f"caption {row}" for row in (0, 2, 3, 5, 7)]
    assert table["captions"][1] is None and table["captions"].is_null().sum() == 6
    assert table["error"][5] == "row 0 has the same URL, and keeps this row's caption"
    assert table["uid"].n_unique() == len(table) and "repeat_of" not in table.columns


def test_captions_of_one_url_are_kept_once_each_in_order_and_empty_ones_not(tmp_path: Path) -> None:
    urls = ["http://a", "http://a", "http://b", "http://a", "http://a", "http://b", None, None, "", ""]
    captions: list[str | None] = ["x", None, "y", "x", " ", "y", "1", "2", "3", "4"]
    found = listed(coco(tmp_path / "list.parquet", urls, captions))
    # Nothing but "x" and "y" is said of them; and rows without a URL have none in common.
    assert found["captions"].is_null().all()
    assert found["repeat_of"].to_list() == [None, 0, None, 0, 0, 2, None, None, None, None]
    assert found["caption"].to_list() == captions


def test_of_a_url_that_stands_for_anything_a_bounded_number_of_captions_is_kept(tmp_path: Path) -> None:
    found = listed(coco(tmp_path / "list.parquet", ["http://placeholder.example"] * 500))
    assert found["captions"][0].to_list() == [f"caption {i}" for i in range(repeats.MAX_CAPTIONS)]
    assert found["repeat_of"].to_list() == [None, *[0] * 499]


def test_urls_that_only_have_one_hash_are_not_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pl.Series, "hash", lambda self: pl.Series([7] * len(self), dtype=pl.UInt64))
    found = listed(coco(tmp_path / "list.parquet", ["http://a", "http://b", "http://a", None]))
    assert found["repeat_of"].to_list() == [None, None, 0, None]
    assert found["captions"].to_list() == [["caption 0", "caption 2"], None, None, None]


LISTS = [
    {"URL": "http://a", "TEXT": ["one", "two"], "n": 1},
    {"URL": "http://b", "TEXT": ["alone"], "n": 2},
    {"URL": "http://c", "TEXT": [], "n": 3},
    {"URL": "http://d", "TEXT": None, "n": 4},
    {"URL": "http://a", "TEXT": ["two", "three"], "n": 5},
]


def write_parquet(path: Path) -> None:
    pl.DataFrame(LISTS).write_parquet(path)


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in LISTS))


def write_mixed(path: Path) -> None:
    mixed = [
        {**row, "TEXT": row["TEXT"][0]} if row["TEXT"] and len(row["TEXT"]) == 1 else row for row in LISTS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in mixed))


@pytest.mark.parametrize(
    ("name", "write"),
    [("list.parquet", write_parquet), ("list.jsonl", write_jsonl), ("mixed.jsonl", write_mixed)],
)
def test_a_column_may_hold_lists_of_captions(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    found = listed(tmp_path / name)
    assert found["caption"].to_list() == ["one", "alone", None, None, "two"]
    assert found["captions"].to_list() == [["one", "two", "three"], None, None, None, None]
    assert found["repeat_of"].to_list() == [None, None, None, None, 0] and found["n"].to_list() == [
        1,
        2,
        3,
        4,
        5,
    ]


def test_a_row_with_an_earlier_url_changes_the_part_that_keeps_its_caption(tmp_path: Path) -> None:
    path, urls = tmp_path / "list.parquet", [f"http://{i}.example" for i in range(12)]
    source = parse_source({"kind": "list", "path": str(path)})

    def states(*more: str) -> list[Any]:
        coco(path, [*urls, *more])
        return look_at(source, 4, "mine", tmp_path).parts

    before, now = states(), states(urls[5])
    assert [a == b for a, b in zip(before, now, strict=False)] == [True, False, True] and len(now) == 4
    # The same as when nothing was known before, and back again.
    (tmp_path / "mine.parquet").unlink()
    assert states(urls[5]) == now and states() == before
