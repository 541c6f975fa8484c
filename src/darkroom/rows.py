"""Tables that others wrote, row by row: CSV, Parquet or JSON lines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from darkroom.settings.json_texts import read_json

JSON_LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".parquet")


def read_rows(path: Path, columns: tuple[str, ...], example: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row, values) of a table, rows counted from 1; of JSON lines, the lines that are not empty. Of a CSV all
    values are text.

    Args:
        path: ends in one of JSON_LINES and TABLES.
        columns: that it has to have; of JSON lines, whoever reads the values checks that.
        example: a line of JSON as it should be.

    Raises:
        ValueError: it cannot be read, or lacks a column; names the file, and the row.
    """
    if path.suffix.lower() in JSON_LINES:
        yield from _json_lines(path, example)
        return
    import polars as pl

    try:
        if path.suffix.lower() == ".csv":
            table = pl.read_csv(path, infer_schema=False)
        elif path.suffix.lower() == ".parquet":
            table = pl.read_parquet(path)
        else:
            raise ValueError(f"{path}: ends in none of {', '.join(TABLES)} and {' and '.join(JSON_LINES)}")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path}: {str(error).strip().splitlines()[0]}") from None
    for column in columns:
        if column not in table.columns:
            raise ValueError(f"{path}: has no column {column!r}; it has {', '.join(table.columns)}")
    yield from enumerate(table.iter_rows(named=True), start=1)


def _json_lines(path: Path, example: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                values = read_json(line)
            except ValueError as error:
                raise ValueError(f"{path}, row {number}: {error}") from None
            if not isinstance(values, dict):
                raise ValueError(f"{path}, row {number}: no record like {example}")
            yield number, values
