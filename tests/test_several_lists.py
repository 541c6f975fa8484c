"""Several lists in one dataset: one after another, each read once, a picture of two of them once."""

import os
import time
from pathlib import Path

import polars as pl
import pytest
from test_lists import ROWS, listed, source_of, write_list

from darkroom.config.dataset import parse_source
from darkroom.sources.table import list_columns, look_at
from darkroom.store import sha256_file

MORE = [
    {"URL": "http://b.example/1.jpg", "TEXT": "a cat", "pwatermark": 0.5, "WIDTH": 320},
    {"URL": "http://a.example/2.jpg", "TEXT": "said again", "pwatermark": 0.0, "WIDTH": 480},
]


def lists(*paths: Path | str):
    return parse_source({"kind": "list", "path": [str(path) for path in paths]})


def test_lists_are_appended_in_the_order_in_which_they_are_named(tmp_path):
    one = write_list(tmp_path / "z.parquet")
    write_list(tmp_path / "more/a.csv", MORE)
    found = listed(lists(one, tmp_path / "more"), tmp_path / "urls.parquet")
    assert found["url"].to_list() == [row["URL"] for row in [*ROWS, *MORE]]
    assert found["row"].to_list() == list(range(5))
    assert found["other"].to_list() == ["x", "y", "z", None, None]
    # One URL is one picture, with the captions of both.
    assert found["repeat_of"].to_list() == [None, None, None, None, 1]
    again = listed(lists(one, tmp_path / "more"), tmp_path / "again.parquet")
    assert again.equals(found) and sha256_file(tmp_path / "again.parquet") == sha256_file(
        tmp_path / "urls.parquet"
    )


def test_a_list_of_one_path_is_that_path(tmp_path):
    path = write_list(tmp_path / "list.parquet")
    several, alone = lists(path), source_of(path)
    assert listed(several, tmp_path / "a.parquet").equals(listed(alone, tmp_path / "b.parquet"))
    assert list_columns(several) == list_columns(alone)
    assert alone.model_dump(mode="json")["path"] == str(path)


def test_a_list_that_is_added_behind_changes_no_part_before_it(tmp_path):
    one, more = write_list(tmp_path / "one.parquet"), write_list(tmp_path / "more.parquet", MORE[:1])
    before = look_at(lists(one), 3, "some", tmp_path / "kept")
    after = look_at(lists(one, more), 3, "some", tmp_path / "kept")
    assert after.num_rows == 4 and after.parts[:1] == before.parts and len(after.parts) == 2


def test_a_change_of_any_of_them_is_seen(tmp_path):
    one, more = write_list(tmp_path / "one.parquet"), write_list(tmp_path / "more.parquet", MORE[:1])
    for path in (one, more):
        os.utime(path, ns=(time.time_ns() - 10**11,) * 2)
    before = look_at(lists(one, more), 3, "some", tmp_path / "kept").parts
    write_list(more, MORE[1:])
    after = look_at(lists(one, more), 3, "some", tmp_path / "kept").parts
    assert after != before and after[1] != before[1]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "names no list; write a path, or a list of several"),
        (["one.parquet", "*.parquet"], r"source.path: leads to .*one.parquet twice"),
        (["one.parquet", "not-there.csv"], "source.path: no file .*not-there.csv"),
        (["one.parquet", "other.csv"], "source.url_column.*other.csv|other.csv.*URL"),
    ],
)
def test_what_cannot_be_one_list_is_refused(tmp_path, paths, message):
    write_list(tmp_path / "one.parquet")
    write_list(tmp_path / "other.csv", [{"address": "http://a.example/1.jpg", "TEXT": "no such column"}])
    with pytest.raises(ValueError, match=message):
        look_at(lists(*(tmp_path / path for path in paths)), 3, "some", tmp_path / "kept")


def test_a_list_in_the_first_ones_columns_may_lack_those_that_are_carried(tmp_path):
    one = write_list(tmp_path / "one.parquet")
    more = write_list(tmp_path / "more.parquet", [{"URL": "http://b.example/1.jpg", "TEXT": "a cat"}])
    found = listed(lists(one, more), tmp_path / "urls.parquet")
    assert found["pwatermark"].to_list() == [0.25, None, 1.0, None]
    assert found.schema["WIDTH"] == pl.Int64
