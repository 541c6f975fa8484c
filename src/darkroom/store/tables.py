"""Part tables: Parquet files with the same bytes for the same rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from darkroom.store.atomic import replacing

# Rows that tables written in batches have in a row group.
ROW_GROUP = 131_072


def write_table(path: str | Path, table: pl.DataFrame, sort_by: str | None = "uid") -> None:
    """Write `table` atomically, sorted by `sort_by` (None keeps the order given)."""
    # Sorting what is sorted takes ten times as long as looking.
    if sort_by is not None and not table[sort_by].is_sorted():
        table = table.sort(sort_by)
    with replacing(path) as beside:
        pq.write_table(table.to_arrow(), beside, compression="zstd", store_schema=False)


def write_batches(
    path: str | Path,
    batches: Iterable[pl.DataFrame],
    metadata: Callable[[], Mapping[bytes, str]] | None = None,
) -> int:
    """Write what comes in batches, at least one, in their order, and return the number of rows.

    The bytes do not depend on how rows are cut into batches, and are those of `write_table` up to ROW_GROUP rows.
    Memory is bounded by two row groups and a batch. `metadata`, asked after the last batch, stands in the footer.
    """
    num_rows, waiting = 0, None
    with replacing(path) as beside, ExitStack() as stack:
        writer = None

        def write(group: pl.DataFrame) -> None:
            nonlocal writer
            table = group.rechunk().to_arrow()
            if writer is None:
                options = {"compression": "zstd", "store_schema": False}
                writer = stack.enter_context(pq.ParquetWriter(beside, table.schema, **options))
            writer.write_table(table)

        for batch in batches:
            waiting = batch if waiting is None else waiting.vstack(batch)
            num_rows += len(batch)
            while len(waiting) > ROW_GROUP:
                write(waiting[:ROW_GROUP])
                waiting = waiting[ROW_GROUP:]
        assert waiting is not None, "there is one batch at least"
        if len(waiting) or writer is None:
            write(waiting)
        if metadata is not None:
            assert writer is not None, "a file without rows has one empty row group"
            writer.add_key_value_metadata(metadata())
    return num_rows


def read_table(
    path: str | Path, columns: Sequence[str] | None = None, where: pl.Expr | None = None
) -> pl.DataFrame:
    """Read a part table, or some of its columns; `where` says which rows come into memory.

    Raises:
        ValueError: a column is missing; names the file and what it has.
    """
    present = pq.read_schema(path).names
    missing = [c for c in columns or [] if c not in present]
    if missing:
        raise ValueError(f"{path}: no column {missing[0]!r}; it has {', '.join(present)}")
    if where is not None:
        return pl.scan_parquet(path).filter(where).select(columns or pl.all()).collect()
    return pl.read_parquet(path, columns=list(columns) if columns is not None else None)


def finite(table: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """The table with NaN and infinities as null, and how many there were in each column that had any."""
    floats = [name for name, kind in table.schema.items() if kind.is_float()]
    counts = {name: int((~table[name].is_finite()).sum()) for name in floats}
    wrong = {name: number for name, number in counts.items() if number}
    return table.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)) for name in wrong), wrong
