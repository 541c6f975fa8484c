"""A table of prompts for pictures that anybody made: CSV, Parquet or JSON lines with `file` and `prompt`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.settings.json_texts import read_json

_COLUMNS = ("file", "prompt")
_JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Prompts:
    """Picture -> its prompt, in the pictures' order; and how many rows of the table name none that is here."""

    of: dict[str, str]
    num_rows_without_picture: int


def read_prompts(path: str | Path, folder: Path, names: Sequence[str]) -> Prompts:
    """The prompts of pictures; a `file` is relative to their folder, or to that of the table.

    Args:
        path: `.csv`, `.parquet`, `.jsonl` or `.ndjson`.
        folder: the pictures' folder.
        names: the pictures' paths in it.

    Raises:
        ValueError: the table cannot be read, a row has no file or no prompt, a picture stands there twice, or none
            does; names the file and the row.
    """
    path = Path(path)
    known, found, num_unknown = set(names), {}, 0
    for number, values in _rows(path):
        for column in _COLUMNS:
            if not (isinstance(values.get(column), str) and values[column].strip()):
                raise ValueError(f"{path}, row {number}: {column!r} is missing or no text")
        name = _name(values["file"], path.parent, folder, known)
        if name is None:
            num_unknown += 1
        elif name in found:
            raise ValueError(f"{path}, row {number}: {name} stands there twice")
        else:
            found[name] = values["prompt"].strip()
    if not found:
        raise ValueError(f"{path}: names no picture of {folder}; `file` should be a path in it")
    return Prompts({name: found[name] for name in names if name in found}, num_unknown)


def _name(file: str, beside: Path, folder: Path, known: set[str]) -> str | None:
    """The picture that a row means."""
    plain = Path(file).as_posix()
    if plain in known:
        return plain
    try:
        name = (beside / file).resolve().relative_to(folder.resolve()).as_posix()
    except (ValueError, OSError, RuntimeError):
        return None
    return name if name in known else None


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row, values), counted from 1."""
    if path.suffix.lower() in _JSON_LINES:
        yield from _json_lines(path)
        return
    try:
        if path.suffix.lower() == ".csv":
            table = pl.read_csv(path, infer_schema=False)
        elif path.suffix.lower() == ".parquet":
            table = pl.read_parquet(path)
        else:
            raise ValueError(f"{path}: ends in none of .csv, .parquet and {' and '.join(_JSON_LINES)}")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path}: {str(error).strip().splitlines()[0]}") from None
    for column in _COLUMNS:
        if column not in table.columns:
            raise ValueError(f"{path}: has no column {column!r}; it has {', '.join(table.columns)}")
    yield from enumerate(table.select(_COLUMNS).iter_rows(named=True), start=1)


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                values = read_json(line)
            except ValueError as error:
                raise ValueError(f"{path}, row {number}: {error}") from None
            if not isinstance(values, dict):
                raise ValueError(
                    f'{path}, row {number}: no record like {{"file": "1.png", "prompt": "a cat"}}'
                )
            yield number, values
