"""The rows of an index sorted by bucket and uid, of more pictures than memory holds.

Rows are kept as they come. When there are too many, all that are held go to a file, split into pieces by the first
bits of their uids. Uids are digests, so pieces are of about the same size, and all uids of a piece are below those
of the next: each is sorted alone. Rows of the same uid stay in the order in which they came.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from darkroom.train.plan import Shape

# 16 bytes of a uid and some 15 of the rest: 0.5 GB, and three times as much while they are sorted.
MOST_ROWS = 1 << 24
NUM_PIECES = 256

Array = npt.NDArray[Any]
Columns = Mapping[str, Array]


@dataclass
class Layout:
    """What is known of a bucket's rows: how many, and of the columns that all have the type that holds each."""

    num: int = 0
    types: dict[str, np.dtype[Any]] = field(default_factory=dict)


class _Written(NamedTuple):
    """Rows in the file: columns one after another."""

    shape: Shape
    begin: int
    num: int
    types: tuple[tuple[str, np.dtype[Any]], ...]


class IndexRows:
    """Rows of many tables, to be read once by bucket and uid."""

    def __init__(self, spill: BinaryIO | None, most: int = MOST_ROWS) -> None:
        """`spill`: an empty file for all beyond `most` rows; without one, all are kept in memory."""
        self._file, self._most = spill, most
        self._held: dict[Shape, list[Columns]] = {}
        self._num_held = 0
        self._pieces: list[list[_Written]] = [[] for _ in range(NUM_PIECES)]
        self.layout: dict[Shape, Layout] = {}

    def add(self, shape: Shape, columns: Columns) -> None:
        """Rows of a bucket: `uid` (n, 2) of 64 bits, and any columns (n,) of whole numbers."""
        num = len(columns["uid"])
        known = self.layout.setdefault(shape, Layout())
        types = known.types if known.num else {name: values.dtype for name, values in columns.items()}
        known.types = {
            name: np.result_type(of_type, columns[name].dtype)
            for name, of_type in types.items()
            if name in columns
        }
        known.num += num
        self._held.setdefault(shape, []).append(columns)
        self._num_held += num
        if self._file is not None and self._num_held > self._most:
            self._flush(self._file)

    def names(self) -> list[str]:
        """The columns that all rows have, in the order of the first."""
        layouts = list(self.layout.values())
        return [
            name for of in layouts[:1] for name in of.types if all(name in each.types for each in layouts)
        ]

    def sorted(self) -> Iterator[tuple[Shape, int, Columns]]:
        """Bucket, place of the first, and columns by ascending uid; of several pieces the first comes first."""
        names = self.names()
        if self._file is None or not any(self._pieces):
            for shape in sorted(self._held):
                yield shape, 0, _sorted(_joined(self._held.pop(shape), names))
            return
        self._flush(self._file)
        first = dict.fromkeys(self.layout, 0)
        for piece in self._pieces:
            for shape, written in groupby(sorted(piece, key=lambda one: one.shape), lambda one: one.shape):
                rows = _sorted(_joined([_read(self._file, one) for one in written], names))
                yield shape, first[shape], rows
                first[shape] += len(rows["uid"])

    def _flush(self, file: BinaryIO) -> None:
        for shape, chunks in self._held.items():
            # Tables of other columns are written apart.
            for names, alike in groupby(chunks, key=tuple):
                self._write(file, shape, _joined(list(alike), names))
        self._held, self._num_held = {}, 0

    def _write(self, file: BinaryIO, shape: Shape, rows: Columns) -> None:
        of_row = (rows["uid"][:, 0] >> np.uint64(64 - NUM_PIECES.bit_length() + 1)).astype(np.intp)
        order = np.argsort(of_row, kind="stable")
        ends = np.cumsum(np.bincount(of_row, minlength=NUM_PIECES))
        ordered = {name: values[order] for name, values in rows.items()}
        types = tuple((name, values.dtype) for name, values in rows.items())
        for piece, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
            if begin < end:
                place = file.tell()
                self._pieces[piece].append(_Written(shape, place, int(end - begin), types))
                for values in ordered.values():
                    file.write(values[begin:end].data)


def wide(name: str) -> int:
    """The numbers of a column's row."""
    return 2 if name == "uid" else 1


def _read(file: BinaryIO, written: _Written) -> Columns:
    file.seek(written.begin)
    rows = {}
    for name, of_type in written.types:
        values = np.frombuffer(file.read(written.num * wide(name) * of_type.itemsize), of_type)
        rows[name] = values.reshape(-1, 2) if name == "uid" else values
    return rows


def _joined(chunks: Sequence[Columns], names: Sequence[str]) -> Columns:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in names}


def _sorted(rows: Columns) -> Columns:
    uids = rows["uid"]
    order = np.argsort(uids[:, 0], kind="stable")
    first = uids[order, 0]
    if (first[1:] == first[:-1]).any():
        # Of a picture that several shards have, theirs is the order.
        order = np.lexsort((uids[:, 1], uids[:, 0]))
    return {name: values[order] for name, values in rows.items()}
