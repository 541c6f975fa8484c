"""Captions by name: what a table calls them, from the recaption stage's on."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from darkroom.store.tables import read_table

# The gate that a picture fell to for its captions; a column where there are gates.
DROPPED = "dropped"
_PREFIX = "caption_"


def caption_column(name: str) -> str:
    """The column with the texts of a caption."""
    return f"{_PREFIX}{name}"


def names_in(columns: Iterable[str]) -> tuple[str, ...]:
    """The captions that a table with these columns has, in their order."""
    return tuple(column.removeprefix(_PREFIX) for column in columns if column.startswith(_PREFIX))


def dropped_pictures(path: str | Path) -> pl.DataFrame:
    """uid and `dropped`, the gate, of the pictures that a part of the recaption stage drops for their captions."""
    if DROPPED not in pq.read_schema(path).names:
        return pl.DataFrame(schema={"uid": pl.String, DROPPED: pl.String})
    return read_table(path, ["uid", DROPPED]).drop_nulls(DROPPED)


def captions_of(path: str | Path) -> tuple[str, ...]:
    """The captions that a part of the recaption stage has."""
    return names_in(pq.read_schema(path).names)
