"""Captions of pictures in a list beside them, as Hugging Face's image folders have it: `metadata.jsonl` or `.csv`.

A list holds for its folder and those below; `file_name` is a picture's path from there.
"""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.sources.captions import CAPTION_KEYS, caption_key

if TYPE_CHECKING:
    import polars as pl

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILE_NAME = "file_name"


@dataclass(frozen=True)
class Told:
    """What a list says of a picture: its captions, and its values of the columns that are carried."""

    captions: list[str]
    values: dict[str, Any]


def lists_in(names: Sequence[str]) -> list[str]:
    """The lists among a folder's files, those of outer folders first.

    Raises:
        ValueError: two of them are of one folder.
    """
    found = [name for name in names if posixpath.basename(name) in NAMES]
    by_folder: dict[str, str] = {}
    for name in found:
        other = by_folder.setdefault(posixpath.dirname(name), name)
        if other != name:
            raise ValueError(f"{other} and {name} both tell of one folder's pictures; keep one")
    return sorted(found, key=lambda name: (name.count("/"), name))


def columns_of(path: Path, key: str | None) -> "dict[str, pl.DataType]":
    """Column -> type of what a list tells besides file names and captions.

    Raises:
        ValueError: it cannot be read, or has no file names or captions; names it.
    """
    from darkroom.download.writer import OF_LISTS, OWN_COLUMNS
    from darkroom.sources import readers

    form = readers.format_of(path)
    assert form is not None, "its name tells"
    found = readers.columns_of(path, form)
    taken = {*OWN_COLUMNS, *OF_LISTS, _FILE_NAME, *CAPTION_KEYS, key}
    return {name: kind for name, kind in found.items() if name not in taken}


def read_list(
    path: Path, below: str, key: str | None, carried: "Mapping[str, pl.DataType]"
) -> dict[str, Told]:
    """Picture -> what a list in the folder `below` says of it.

    Raises:
        ValueError: it cannot be read; names it and what is wrong.
    """
    from darkroom.sources import readers

    form = readers.format_of(path)
    assert form is not None, "its name tells"
    captions = caption_key(list(readers.columns_of(path, form)), key, path)
    needed = {"file": (_FILE_NAME, "which names the pictures"), "caption": (captions, "source.caption_key")}
    told: dict[str, Told] = {}
    for batch in readers.read_rows(path, form, readers.Wanted(needed, carried)):
        for row in batch.iter_rows(named=True):
            if row["file"] is None:
                raise ValueError(f"{path}: a row has no {_FILE_NAME}")
            name = posixpath.normpath(posixpath.join(below, row["file"]))
            values = {column: row[column] for column in carried}
            # Rows of one picture are captions of it.
            known = told.setdefault(name, Told([], values)).captions
            several = row[readers.SEVERAL] or [row["caption"]]
            known += [text for text in several if text and text not in known]
    return told
