"""Digests of rows, whatever batches, files or formats they came in."""

import hashlib
from collections.abc import Iterable, Iterator

import polars as pl


def sha256_rows(rows: pl.DataFrame) -> str:
    """Hex SHA-256 of a table's names, types and values: texts, numbers, booleans, and lists of texts."""
    digest = hashlib.sha256()
    for column in rows.iter_columns():
        digest.update(f"{column.name}\n{column.dtype}\n{len(column)}\n".encode())
        for content in _contents(column):
            digest.update(content)
    return digest.hexdigest()


def _contents(column: pl.Series) -> Iterator[bytes]:
    """The bytes of a column's values, from which they can be told apart."""
    yield column.is_null().to_numpy().tobytes()
    known = column.drop_nulls()
    if isinstance(column.dtype, pl.List):
        yield known.list.len().to_numpy().astype("<u4").tobytes()
        yield from _contents(known.explode(empty_as_null=False))
    elif column.dtype == pl.String:
        yield known.str.len_bytes().to_numpy().astype("<u4").tobytes()
        yield known.str.join("").item().encode() if len(known) else b""
    else:
        yield known.to_physical().to_numpy().tobytes()


def parts_of(batches: Iterable[pl.DataFrame], rows_per_part: int) -> Iterator[pl.DataFrame]:
    """Batches cut anew into tables of `rows_per_part` rows, of which the last may have fewer.

    Memory is that of a part and a batch.
    """
    waiting: pl.DataFrame | None = None
    for batch in batches:
        waiting = batch if waiting is None else waiting.vstack(batch)
        while len(waiting) >= rows_per_part:
            yield waiting[:rows_per_part]
            waiting = waiting[rows_per_part:]
    if waiting is not None and len(waiting):
        yield waiting
