"""A part as it was before its rows changed: what it has is not fetched again, because the web may have lost it.

The driver sets a finished part aside when its rows are others now: one was withdrawn, or got another caption, or
more came. The part's job takes over how rows with the same URL ended, and removes what was set aside when it is
finished. That goes for failures too: `darkroom retry` is what fetches rows again, in rounds that name these.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.download import status as words
from darkroom.download.decoders import Picture
from darkroom.download.journal import Journal
from darkroom.download.status import Failure
from darkroom.store import TarReader, read_part_manifest, sha256_file

_log = logging.getLogger(__name__)

# What a row of the list decides, and no server.
_OF_THE_LIST = (words.DUPLICATE_URL, words.NO_URL)


def before_folder(tar: str | Path) -> Path:
    """Where a part with this tar is set aside."""
    tar = Path(tar)
    return tar.parent / f".{tar.stem}.before"


def set_aside(tar: str | Path, made_with: str) -> bool:
    """Set the part with this tar aside, if it is whole and was made with these settings; says whether it was.

    Its files stay where they are as well: Snakemake removes them when the part's job begins.

    Raises:
        OSError: the folder cannot be written.
    """
    tar = Path(tar)
    files = [tar, tar.with_suffix(".parquet"), tar.with_suffix(".json")]
    try:
        body = read_part_manifest(files[-1])
    except (OSError, ValueError):
        return False
    if body["settings"] != made_with or not all(file.is_file() for file in files):
        return False
    folder = before_folder(tar)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in files:
        try:
            os.link(file, folder / file.name)
        except OSError:
            # A file system without hard links.
            shutil.copyfile(file, folder / file.name)
    return True


def ended_before(tar: str | Path, urls: Mapping[int, str]) -> Iterator[tuple[int, Picture | Failure]]:
    """(position, outcome) of the rows whose URLs the part that was set aside had fetched.

    None, where none was set aside, or its files are not those that its manifest names.
    """
    folder = before_folder(tar)
    name = folder / Path(tar).name
    table, manifest = name.with_suffix(".parquet"), name.with_suffix(".json")
    try:
        body = read_part_manifest(manifest)
        if any(body["files"][path.name] != sha256_file(path) for path in (name, table)):
            return
    except (OSError, ValueError, KeyError):
        return
    places = {url: place for place, url in urls.items()}
    rows = pl.read_parquet(table).filter(
        pl.col("url").is_in(list(places)) & ~pl.col("status").is_in(_OF_THE_LIST)
    )
    for row, found in outcomes_in(name, rows):
        yield places[row["url"]], found


def outcomes_in(tar: str | Path, rows: pl.DataFrame) -> Iterator[tuple[dict[str, Any], Picture | Failure]]:
    """(row, how it ended) of rows of a part's table, with the pictures of its tar."""
    with TarReader(tar) as pictures:
        for row in rows.iter_rows(named=True):
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
            if row["status"] == words.OK:
                jpeg = pictures.read(row["offset"], row["size"])
                yield row, Picture(jpeg, **_values(values, Picture._fields[1:]))
            else:
                yield row, Failure(**_values(values, Failure.__dataclass_fields__))


def take_over(tar: str | Path, urls: Mapping[int, str], journal: Journal) -> None:
    """Have the journal of a part hold what was set aside of it; `urls` are of its rows that are to be fetched.

    Raises:
        OSError: the journal cannot be written.
    """
    missing = {place: url for place, url in urls.items() if place not in journal.outcomes}
    taken = sum(journal.keep(place, found) is not None for place, found in ended_before(tar, missing))
    if journal.failure is not None:
        raise journal.failure
    if taken:
        _log.info("%s: %d of %d rows are as they were", Path(tar).stem, taken, len(urls))


def forget(tar: str | Path) -> None:
    """Remove what was set aside of a part that is finished."""
    with contextlib.suppress(OSError):
        shutil.rmtree(before_folder(tar))


def _values(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The table's columns that an outcome has too; null is what the outcome says by default."""
    return {name: row[name] for name in names if row.get(name) is not None}
