"""A table of prompts for pictures that anybody made: CSV, Parquet or JSON lines with `file` and `prompt`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from darkroom.rows import read_rows

_COLUMNS = ("file", "prompt")
_EXAMPLE = '{"file": "1.png", "prompt": "a cat"}'


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
    for number, values in read_rows(path, _COLUMNS, _EXAMPLE):
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
