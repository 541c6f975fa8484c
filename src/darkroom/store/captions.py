"""Captions by name: what a table calls them, from the recaption stage's on."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

# The alt-text, which every picture has beside the captions that were generated.
ORIGINAL = "original"
_PREFIX = "caption_"


def caption_column(name: str) -> str:
    """The column with the texts of a caption."""
    return f"{_PREFIX}{name}"


def names_in(columns: Iterable[str]) -> tuple[str, ...]:
    """The captions that a table with these columns has, in their order."""
    return tuple(column.removeprefix(_PREFIX) for column in columns if column.startswith(_PREFIX))


def captions_of(path: str | Path) -> tuple[str, ...]:
    """The captions that a part of the recaption stage has."""
    return names_in(pq.read_schema(path).names)
