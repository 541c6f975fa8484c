"""Collects how rows end, in any order, and writes the part's tar and table."""

import json
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from darkroom import store
from darkroom.download import status as words
from darkroom.download.decoders import Picture
from darkroom.download.memory import SPOOL_BYTES
from darkroom.download.status import Failure, printable

LOG_EVERY_S = 5.0

LIST_COLUMNS: dict[str, type[pl.DataType]] = {"row": pl.Int64, "url": pl.String, "caption": pl.String}
"""Columns that every list has; only `row` may not be null. What else it has is carried as it is."""

_MADE: dict[str, Any] = {
    "status": pl.String,
    "error": pl.String,
    "round": pl.Int32,
    "opt_outs": pl.List(pl.String),
    "sha256": pl.String,
    "num_bytes": pl.Int64,
    "width": pl.Int32,
    "height": pl.Int32,
    "original_width": pl.Int32,
    "original_height": pl.Int32,
    "offset": pl.Int64,
    "size": pl.Int64,
}

SEVERAL: dict[str, Any] = {"captions": pl.List(pl.String)}
"""All captions of a picture that has more than one; else null, as in lists without the column."""

LISTED_HASH, SAME_BYTES = "listed_hash", "same_bytes"
"""The list's own hash of a row's file, SHA-256 or MD5 in lower-case hex, in tables of lists that have one; and
whether it is that of the bytes that were downloaded, null where either is missing."""

REPEAT_OF, PLACE = "repeat_of", "_place"
OF_LISTS = (REPEAT_OF, PLACE)
"""Columns of a list, not of the table: the first row with the same URL, in those that come after it; and where the
picture's bytes lie, in words of the source."""

OWN_COLUMNS: dict[str, Any] = {"row": pl.Int64, "uid": pl.String, **LIST_COLUMNS, **SEVERAL, **_MADE}
"""Columns that the part table has whatever the list is. `offset` and `size` are of the JPEG in the tar, bytes."""


def carried_columns(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Of a list's or a table's columns those that the list has of its own."""
    return {name: kind for name, kind in schema.items() if name not in (*OWN_COLUMNS, *OF_LISTS, SAME_BYTES)}


def table_schema(rows: pl.DataFrame) -> pl.Schema:
    """Columns of the part table, in order, for rows of a list: those it carries stand after the caption."""
    carried = carried_columns(rows.schema)
    compared = {SAME_BYTES: pl.Boolean} if LISTED_HASH in carried else {}
    names = dict.fromkeys(("row", "uid", *LIST_COLUMNS, *SEVERAL, *carried, *compared, *_MADE))
    return pl.Schema({name: {**carried, **compared, **OWN_COLUMNS}[name] for name in names})


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """A decoded picture whose JPEG lies at [start, start + size) of a file of the store that keeps it."""

    picture: Picture
    start: int
    size: int
    file: int = 0


class PictureStore(Protocol):
    """Keeps how rows end until the part is written."""

    @property
    def failure(self) -> OSError | None:
        """The first error of the disk; nothing is kept after it."""

    def keep(self, place: int, found: Picture | Failure) -> Stored | Failure | None:
        """Keep how the row at a position ended; None where the disk fails."""

    def jpeg(self, stored: Stored) -> bytes:
        """The bytes of a picture that was kept."""


class Spool:
    """Keeps outcomes while a job lives: in memory, and JPEGs beyond SPOOL_BYTES in a file of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.failure: OSError | None = None
        self._file = tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=str(folder))  # noqa: SIM115 - __exit__
        self._end = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def keep(self, place: int, found: Picture | Failure) -> Stored | Failure | None:
        """See `PictureStore`; one thread at a time."""
        del place
        if isinstance(found, Failure) or self.failure is not None:
            return found if isinstance(found, Failure) else None
        try:
            self._file.seek(self._end)
            self._file.write(found.jpeg)
        except OSError as error:
            self.failure = error
            return None
        stored = Stored(found._replace(jpeg=b""), self._end, len(found.jpeg))
        self._end += stored.size
        return stored

    def jpeg(self, stored: Stored) -> bytes:
        """See `PictureStore`."""
        self._file.seek(stored.start)
        return self._file.read(stored.size)


class Collector:
    """Gathers how rows end, and tells how far it is.

    Args:
        store: keeps them.
        total: rows that will be reported, for the progress lines.
        name: what the progress lines call the part.
    """

    def __init__(self, store: PictureStore, total: int, name: str) -> None:
        self.outcomes: dict[int, Stored | Failure] = {}
        self._store = store
        self._total = total
        self._name = name
        self._started = self._logged = time.monotonic()

    @property
    def failure(self) -> OSError | None:
        """An error of the disk. It is kept, because img2dataset would print it and go on."""
        return self._store.failure

    def keep(self, place: int, found: Picture | Failure) -> None:
        """Keep how the row at a position ended; one thread at a time."""
        outcome = self._store.keep(place, found)
        if outcome is not None:
            self.outcomes[place] = outcome
            self._log_progress()

    def jpeg(self, stored: Stored) -> bytes:
        """The bytes of a picture that was kept."""
        return self._store.jpeg(stored)

    def log_progress(self) -> None:
        """Log rows done, of how many, and the rate so far."""
        done, seconds = len(self.outcomes), max(time.monotonic() - self._started, 1e-9)
        _log.info("%s: %d/%d URLs, %.1f/s", self._name, done, self._total, done / seconds)

    def _log_progress(self) -> None:
        if time.monotonic() - self._logged >= LOG_EVERY_S:
            self._logged = time.monotonic()
            self.log_progress()


def write_part(
    rows: pl.DataFrame,
    outcomes: Mapping[int, Stored | Failure],
    pictures: "PictureStore | Collector",
    tar: str | Path,
    table: str | Path,
    round_number: int = 0,
) -> pl.DataFrame:
    """Write the pictures and every row, both sorted by uid, and return the table.

    Args:
        rows: the list's rows of this part, with the columns that are carried.
        outcomes: how each row ended, by its position in `rows`.
        pictures: holds the JPEGs of the stored ones.
        tar: written first; `table` names offsets in it.
        table: one row a row of the list, columns as `table_schema` says.
        round_number: of the round of retries that the part belongs to; 0 is the first fetch.

    Raises:
        ValueError: two rows have the same uid (a list that was made to collide).
    """
    rows = rows.drop(OF_LISTS, strict=False).with_columns(round=pl.lit(round_number, pl.Int32))
    schema = table_schema(rows)
    listed = rows.iter_rows(named=True)
    records = [_record({**dict.fromkeys(schema), **row}, outcomes[i]) for i, row in enumerate(listed)]
    _tell_apart(records)
    ok = sorted((r["uid"], i) for i, r in enumerate(records) if r["status"] == words.OK)

    def members() -> Iterator[tuple[str, bytes]]:
        for uid, i in ok:
            stored = outcomes[i]
            assert isinstance(stored, Stored)
            yield f"{uid}.jpg", pictures.jpeg(stored)
            yield f"{uid}.json", _json(records[i])
            yield f"{uid}.txt", (records[i]["caption"] or "").encode()

    spans = store.write_tar(tar, members())
    for uid, i in ok:
        records[i]["offset"], records[i]["size"] = spans[f"{uid}.jpg"]
    made = pl.DataFrame(records, schema=schema, orient="row")
    store.write_table(table, made)
    return made


def _record(record: dict[str, Any], outcome: Stored | Failure) -> dict[str, Any]:
    """Complete the record of a row, which has what the list says."""
    picture = outcome.picture if isinstance(outcome, Stored) else outcome
    if SAME_BYTES in record:
        record[SAME_BYTES] = picture.same_bytes
    if isinstance(picture, Picture):
        record.update(
            status=words.OK,
            sha256=picture.sha256,
            num_bytes=picture.num_bytes,
            width=picture.width,
            height=picture.height,
            original_width=picture.original_width,
            original_height=picture.original_height,
            opt_outs=list(picture.opt_outs) or None,
        )
    else:
        record.update(
            status=picture.status,
            error=printable(picture.error),
            sha256=picture.sha256,
            num_bytes=picture.num_bytes,
            opt_outs=[printable(told) for told in picture.opt_outs] or None,
        )
    url = record["url"] or ""
    if record["status"] == words.DUPLICATE_URL:
        url = f"{url}#row={record['row']}"
    record["uid"] = store.sample_uid(url, record["sha256"] or "")
    return record


def _json(record: Mapping[str, Any]) -> bytes:
    told = {k: v for k, v in record.items() if k not in ("status", "error", "round", "offset", "size")}
    return json.dumps(told, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def _tell_apart(records: Iterable[dict[str, Any]]) -> None:
    """Give rows without a picture that have the URL and bytes of an earlier one a uid of their own.

    Raises:
        ValueError: two rows with a picture have one uid.
    """
    rows: dict[str, int] = {}
    for record in records:
        if record["uid"] in rows and record["status"] != words.OK:
            url = f"{record['url'] or ''}#row={record['row']}"
            record["uid"] = store.sample_uid(url, record["sha256"] or "")
        first = rows.setdefault(record["uid"], record["row"])
        if first != record["row"]:
            raise ValueError(
                f"rows {first} and {record['row']} of the list have the same uid; change one URL"
            )
