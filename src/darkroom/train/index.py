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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl

from darkroom.store import replacing, sha256_json
from darkroom.store.latents import ShardHeader
from darkroom.train.plan import Ints, Shape, UInts, parse_uids

Array = npt.NDArray[Any]
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
        return {shape: _read(arrays) for shape, arrays in _sorted_buckets(shards, tables)}
    key = sha256_json([FORMAT, *(shard.digest for shard in shards)])
    found = _mapped(Path(path), key)
    if found is None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        _write(Path(path), key, _sorted_buckets(shards, tables))
        found = _mapped(Path(path), key)
        assert found is not None, path
    return found


def _read(arrays: Iterator[tuple[str, Array]]) -> BucketPlaces:
    columns = dict(arrays)
    return BucketPlaces(columns.pop("uid"), columns)


def _sorted_buckets(
    shards: Sequence[ShardHeader], tables: Sequence[str | Path]
) -> Iterator[tuple[Shape, Iterator[tuple[str, Array]]]]:
    """By bucket its columns, one after another; in memory are those of this bucket and of all that come."""
    parts: dict[Shape, list[dict[str, Array]]] = {}
    for number, (shard, path) in enumerate(zip(shards, tables, strict=True)):
        table = shard.read_table(path).with_row_index(ROW)
        for shape, rows in table.group_by("bucket_width", "bucket_height", maintain_order=True):
            columns = {name: _small(rows[name]) for name in rows.columns if name not in _NOT_KEPT}
            columns[SHARD] = np.full(len(rows), number, np.min_scalar_type(number))
            width, height = (int(str(side)) for side in shape)
            parts.setdefault((width, height), []).append(
                {"uid": parse_uids(rows["uid"].to_list()), **columns}
            )
    shared = [name for part in [*parts.values()][:1] for name in part[0]]
    shared = [name for name in shared if all(name in part for of in parts.values() for part in of)]
    for shape in sorted(parts):
        yield shape, _sorted_columns(parts.pop(shape), shared)


def _sorted_columns(parts: list[dict[str, Array]], names: Sequence[str]) -> Iterator[tuple[str, Array]]:
    uids = np.concatenate([part["uid"] for part in parts])
    order = np.argsort(uids[:, 0], kind="stable")
    first = uids[order, 0]
    if (first[1:] == first[:-1]).any():
        # Of a picture that several shards have, theirs is the order.
        order = np.lexsort((uids[:, 1], uids[:, 0]))
    yield "uid", uids[order]
    for name in names:
        if name != "uid":
            yield name, np.concatenate([part[name] for part in parts])[order]


def _small(column: pl.Series) -> Array:
    """A column of whole numbers in as few bytes as they need."""
    values: Array = column.to_numpy().astype(np.int64)
    least, most = int(values.min()), int(values.max())
    return values if least < 0 or most >= 1 << 32 else values.astype(np.min_scalar_type(most))


def _write(path: Path, key: str, buckets: Iterator[tuple[Shape, Iterator[tuple[str, Array]]]]) -> None:
    """Arrays, what is told of them, and at the beginning where that lies."""
    told: list[dict[str, Any]] = []
    with replacing(path) as beside, open(beside, "wb") as file:
        file.seek(8)
        for (width, height), arrays in buckets:
            columns, num = {}, 0
            for name, array in arrays:
                columns[name] = [_append(file, array), array.dtype.str]
                num = len(array)
            told.append({"width": width, "height": height, "num": num, "columns": columns})
        end = file.tell()
        header = json.dumps({"key": key, "last": end, "buckets": told}).encode()
        file.write(header)
        file.seek(0)
        file.write(end.to_bytes(8, "little"))


def _append(file: BinaryIO, array: Array) -> int:
    begin = -(-file.tell() // _ALIGNED) * _ALIGNED
    file.seek(begin)
    file.write(np.ascontiguousarray(array).data)
    return begin


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
            wide = 2 if name == "uid" else 1
            array = np.frombuffer(mapped, kind, bucket["num"] * wide, begin)
            columns[name] = array.reshape(-1, 2) if name == "uid" else array
        found[bucket["width"], bucket["height"]] = BucketPlaces(columns.pop("uid"), columns)
    return found
