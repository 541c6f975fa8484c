"""The index of a run: the pictures that the tables have, whoever made it, and never another cache's."""

import json
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from test_train_data import FINGERPRINT, PARTS, write_cache

from darkroom.store import sha256_json
from darkroom.store.latents import ShardHeader, table_digest
from darkroom.train import index
from darkroom.train.data import LatentCache
from darkroom.train.index import find_index
from darkroom.train.index_rows import IndexRows


def found(shards, path):
    return find_index(path, [ShardHeader(shard) for shard, _ in shards], [table for _, table in shards])


def assert_equal(one, other):
    assert list(one) == list(other)
    for shape, bucket in one.items():
        np.testing.assert_array_equal(bucket.uids, other[shape].uids)
        assert set(bucket.columns) == set(other[shape].columns)
        for name, column in bucket.columns.items():
            np.testing.assert_array_equal(column, other[shape].columns[name])


def test_the_file_has_what_the_tables_have_in_under_a_hundred_bytes_a_picture(tmp_path):
    parts = [{(64, 64): 700, (96, 48): 300}, {(64, 64): 1000}]
    shards, _ = write_cache(tmp_path, parts)
    in_memory, mapped = found(shards, None), found(shards, tmp_path / "run/pictures.index")
    assert_equal(in_memory, mapped)
    rows = pl.concat(
        [pl.read_parquet(t).with_row_index("_row").with_columns(_shard=k) for k, (_, t) in enumerate(shards)]
    )
    rows = rows.filter(pl.col("bucket_width") == 64).sort("uid")
    bucket = mapped[64, 64]
    assert [f"{high:016x}{low:016x}" for high, low in bucket.uids.tolist()] == rows["uid"].to_list()
    for name, column in bucket.columns.items():
        assert column.tolist() == rows[name].to_list(), name
    assert (tmp_path / "run/pictures.index").stat().st_size < 100 * 2000


def test_it_is_used_again_and_made_again_where_it_is_cut_short_or_other_shards(tmp_path):
    shards, _ = write_cache(tmp_path, PARTS)
    path = tmp_path / "pictures.index"
    expected = found(shards, None)
    assert_equal(expected, found(shards, path))
    made, content = path.stat().st_mtime_ns, path.read_bytes()
    assert_equal(expected, found(shards, path))
    assert path.stat().st_mtime_ns == made
    for wrong in (b"", content[:-1], content[: len(content) // 2], content + b"x", b"\xff" * len(content)):
        path.unlink()  # what is mapped stays whole
        path.write_bytes(wrong)
        assert_equal(expected, found(shards, path))
        assert path.read_bytes() == content
    # Another cache's, whole.
    (tmp_path / "b").mkdir()
    others, _ = write_cache(tmp_path / "b", [{(64, 64): 5}])
    found(others, path)
    assert path.read_bytes() != content
    assert_equal(expected, found(shards, path))


def test_tables_are_not_read_where_it_is_whole_and_are_checked_where_it_is_not(tmp_path):
    shards, null = write_cache(tmp_path, PARTS)
    path = tmp_path / "pictures.index"
    first = LatentCache(shards, null, FINGERPRINT, path)
    shards[0][1].rename(tmp_path / "away.parquet")
    again = LatentCache(shards, null, FINGERPRINT, path)
    ask = ((64, 64), np.arange(5), np.array([0, 1, 2, 3, -1]))
    assert torch.equal(first.gather(*ask).conditioning.text[0], again.gather(*ask).conditioning.text[0])
    assert torch.equal(first.gather(*ask).latents, again.gather(*ask).latents)
    path.unlink()
    shards[0][1].write_bytes(shards[1][1].read_bytes())
    with pytest.raises(ValueError, match=r"part-00000\.parquet: is not the table of"):
        LatentCache(shards, null, FINGERPRINT, path)
    assert not path.exists()


def test_a_picture_of_two_shards_is_there_for_each_in_their_order(tmp_path):
    (tmp_path / "b").mkdir()
    shards, _ = write_cache(tmp_path, PARTS)
    others, _ = write_cache(tmp_path / "b", PARTS)
    both = found([*shards, *others], tmp_path / "pictures.index")[64, 64]
    assert (both.uids[::2] == both.uids[1::2]).all() and len(both.uids) == 22
    assert (both.columns["_shard"][::2] + 2 == both.columns["_shard"][1::2]).all()


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"uid": [], "n": []},
        {"uid": ['a"b', "é"], "b": [1, -2], "a": [None, 3], "x": [0.5, 1.0]},
        {"n": [2**63 - 1, 0, -(2**63)]},
    ],
)
def test_a_tables_digest_is_that_of_its_columns_as_json(columns):
    table = pl.DataFrame(columns, schema_overrides={"n": pl.Int64} if "n" in columns else None)
    assert table_digest(table) == sha256_json(table.to_dict(as_series=False))


@pytest.mark.parametrize("length", [0, 7, 2**40, 2**63])
def test_a_header_that_is_none_is_refused_by_name(tmp_path, length):
    path = tmp_path / "part.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + json.dumps([1]).encode())
    with pytest.raises(ValueError, match=r"part\.safetensors: no whole safetensors file"):
        ShardHeader(path)


@pytest.mark.parametrize("most", [0, 1, 7, 40, 1000])
def test_rows_that_memory_does_not_hold_are_sorted_in_pieces_to_the_same_bytes(tmp_path, monkeypatch, most):
    parts = [{(64, 64): 70, (96, 48): 3}, {(64, 64): 30}, {(48, 96): 20, (96, 48): 7}, {(64, 64): 1}]
    (tmp_path / "b").mkdir()
    shards = [*write_cache(tmp_path, parts)[0], *write_cache(tmp_path / "b", parts[:2])[0]]
    expected = found(shards, tmp_path / "whole.index")
    monkeypatch.setattr(index, "IndexRows", partial(IndexRows, most=most))
    assert_equal(expected, found(shards, tmp_path / "pieces.index"))
    assert (tmp_path / "pieces.index").read_bytes() == (tmp_path / "whole.index").read_bytes()
    assert {path.name for path in tmp_path.glob("*index*")} == {"whole.index", "pieces.index"}


def test_columns_that_not_all_rows_have_are_left_out_and_types_hold_every_value(tmp_path):
    def rows(uids, **columns):
        uid = np.array([[one << 56, one] for one in uids], np.uint64)
        return {"uid": uid, **{name: np.array(values) for name, values in columns.items()}}

    with open(tmp_path / "spill", "w+b") as file:
        for given in (IndexRows(None), IndexRows(file, most=2)):
            given.add((8, 8), rows([9, 3], a=np.uint8([1, 2]), b=np.uint8([5, 6])))
            given.add((8, 8), rows([4], b=np.uint8([7]), a=np.int64([-(2**40)])))
            given.add((8, 16), rows([200], a=np.uint16([300])))
            given.add((8, 8), rows([250], a=np.uint8([4])))
            assert given.names() == ["uid", "a"]
            assert {shape: (of.num, of.types["a"].str) for shape, of in given.layout.items()} == {
                (8, 8): (4, "<i8"),
                (8, 16): (1, "<u2"),
            }
            read = {}
            for shape, first, columns in given.sorted():
                assert first == len(read.setdefault(shape, []))
                read[shape] += zip(columns["uid"][:, 1].tolist(), columns["a"].tolist(), strict=True)
            assert read == {(8, 8): [(3, 2), (4, -(2**40)), (9, 1), (250, 4)], (8, 16): [(200, 300)]}
