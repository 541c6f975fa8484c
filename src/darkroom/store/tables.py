"""Part tables: Parquet files with the same bytes for the same rows."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from darkroom.store.atomic import replacing


def write_table(path: str | Path, table: pl.DataFrame, sort_by: str | None = "uid") -> None:
    """Write `table` atomically, sorted by `sort_by` (None keeps the order given)."""
    if sort_by is not None:
        table = table.sort(sort_by)
    with replacing(path) as beside:
        pq.write_table(table.to_arrow(), beside, compression="zstd", store_schema=False)


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a part table, or some of its columns.

    Raises:
        ValueError: a column is missing; names the file and what it has.
    """
    present = pq.read_schema(path).names
    missing = [c for c in columns or [] if c not in present]
    if missing:
        raise ValueError(f"{path}: no column {missing[0]!r}; it has {', '.join(present)}")
    return pl.read_parquet(path, columns=list(columns) if columns is not None else None)
