"""The pictures of a run by bucket, sorted, with their places in the shards: made once, and mapped by all ranks.

The file is 8 bytes that tell where its last part begins, arrays, each from a multiple of 64 bytes, and as its last
part JSON:

    key       digest of the headers of the shards, and so of their tables
    last      where it begins
    buckets   of each: width, height, num, and where its columns begin and their types; `uid` has two of 64 bits

An index with another key, or that does not end so, is made again.
"""

import json
import mmap
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from darkroom.store import replacing, sha256_json
from darkroom.store.latents import ShardHeader
from darkroom.train.index_rows import Array, IndexRows, wide
from darkroom.train.plan import Ints, Shape, UInts, parse_uids

FORMAT = 1
INDEX_FILE = "pictures.index"
# In which of the shards a picture is, and in which row of its table.
SHARD, ROW = "_shard", "_row"
_NOT_KEPT = ("uid", "row", "bucket_width", "bucket_height")
_ALIGNED = 64


@dataclass(frozen=True)
class BucketPlaces:
    """n pictures of one bucket: their uids (n, 2), ascending, and the columns (n,) that shards' tables have."""

    uids: UInts
    columns: Mapping[str, Array]

    def at(self, name: str, places: Ints) -> Ints:
        """A column's values of pictures `places` (B,)."""
        return self.columns[name][places].astype(np.int64)


def find_index(
    path: str | Path | None, shards: Sequence[ShardHeader], tables: Sequence[str | Path]
) -> dict[Shape, BucketPlaces]:
    """The index of shards, by (width, height): mapped from `path`, where it is made unless it is these shards'.

    None keeps it in memory. Columns that not all tables have are left out.

    Raises:
        ValueError: a table is not its shard's; names the file.
    """
    if path is None:
        return _in_memory(_rows(shards, tables, None))
    key = sha256_json([FORMAT, *(shard.digest for shard in shards)])
    found = _mapped(Path(path), key)
    if found is None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Without a name: nothing is left of it when the process is killed.
        with tempfile.TemporaryFile(dir=Path(path).parent) as spill:
            _write(Path(path), key, _rows(shards, tables, spill))
        found = _mapped(Path(path), key)
        assert found is not None, path
    return found


def _rows(shards: Sequence[ShardHeader], tables: Sequence[str | Path], spill: BinaryIO | None) -> IndexRows:
    found = IndexRows(spill)
    for number, (shard, path) in enumerate(zip(shards, tables, strict=True)):
        table = shard.read_table(path).with_row_index(ROW)
        for shape, rows in table.group_by("bucket_width", "bucket_height", maintain_order=True):
            columns = {"uid": parse_uids(rows["uid"].to_list())}
            columns |= {name: _small(rows[name]) for name in rows.columns if name not in _NOT_KEPT}
            columns[SHARD] = np.full(len(rows), number, np.min_scalar_type(number))
            width, height = (int(str(side)) for side in shape)
            found.add((width, height), columns)
    return found


def _in_memory(rows: IndexRows) -> dict[Shape, BucketPlaces]:
    found = {}
    for shape, _, columns in rows.sorted():
        found[shape] = BucketPlaces(columns["uid"], {n: c for n, c in columns.items() if n != "uid"})
    return found


def _small(column: pl.Series) -> Array:
    """A column of whole numbers in as few bytes as they need."""
    values: Array = column.to_numpy().astype(np.int64)
    least, most = int(values.min()), int(values.max())
    return values if least < 0 or most >= 1 << 32 else values.astype(np.min_scalar_type(most))


def _write(path: Path, key: str, rows: IndexRows) -> None:
    """Arrays, what is told of them, and at the beginning where that lies."""
    told: list[dict[str, Any]] = []
    places: dict[tuple[Shape, str], tuple[int, np.dtype[Any]]] = {}
    end, names = 8, rows.names()
    for (width, height), of in sorted(rows.layout.items()):
        columns: dict[str, list[Any]] = {}
        for name in names:
            begin = -(-end // _ALIGNED) * _ALIGNED
            places[(width, height), name] = begin, of.types[name]
            columns[name] = [begin, of.types[name].str]
            end = begin + of.num * wide(name) * of.types[name].itemsize
        told.append({"width": width, "height": height, "num": of.num, "columns": columns})
    with replacing(path) as beside, open(beside, "wb") as file:
        file.write(end.to_bytes(8, "little"))
        for shape, first, found in rows.sorted():
            for name, values in found.items():
                begin, of_type = places[shape, name]
                file.seek(begin + first * wide(name) * of_type.itemsize)
                file.write(np.ascontiguousarray(values, of_type).data)
        file.seek(end)
        file.write(json.dumps({"key": key, "last": end, "buckets": told}).encode())


def _mapped(path: Path, key: str) -> dict[Shape, BucketPlaces] | None:
    """What is in the file, or None where it is not there, cut short, or other shards'."""
    try:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        end = int.from_bytes(mapped[:8], "little")
        header = json.loads(mapped[end:])
    except (OSError, ValueError):
        return None
    if not isinstance(header, dict) or header.get("key") != key or header.get("last") != end:
        return None
    found = {}
    for bucket in header["buckets"]:
        columns = {}
        for name, (begin, kind) in bucket["columns"].items():
            array = np.frombuffer(mapped, kind, bucket["num"] * wide(name), begin)
            columns[name] = array.reshape(-1, 2) if name == "uid" else array
        found[bucket["width"], bucket["height"]] = BucketPlaces(columns.pop("uid"), columns)
    return found
