"""Collects what img2dataset hands out, in any order, and writes the part's tar and table."""

import json
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from darkroom import store
from darkroom.download import status as words
from darkroom.download.decode import Picture
from darkroom.download.status import Failure

SPOOL_BYTES = 64 * 2**20
"""Encoded pictures kept in memory before they are spooled to a file, bytes."""
LOG_EVERY_S = 5.0

SCHEMA: dict[str, Any] = {
    "row": pl.Int64,
    "uid": pl.String,
    "url": pl.String,
    "caption": pl.String,
    "similarity": pl.Float64,
    "pwatermark": pl.Float64,
    "punsafe": pl.Float64,
    "status": pl.String,
    "error": pl.String,
    "sha256": pl.String,
    "num_bytes": pl.Int64,
    "width": pl.Int32,
    "height": pl.Int32,
    "original_width": pl.Int32,
    "original_height": pl.Int32,
    "offset": pl.Int64,
    "size": pl.Int64,
}
"""Columns of the part table, in order. `offset` and `size` are of the JPEG in the tar, bytes."""

_CARRIED = ("row", "url", "caption", "similarity", "pwatermark", "punsafe")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """A decoded picture whose JPEG lies in the spool at [start, start + size)."""

    picture: Picture
    start: int
    size: int


class Collector:
    """img2dataset's sample writer: keeps one outcome per key, and the JPEGs in a spool.

    Args:
        folder: where the spool's file is made once it is large.
        total: rows that will be reported, for the progress lines.
        name: what the progress lines call the part.
    """

    def __init__(self, folder: Path, total: int, name: str) -> None:
        self.outcomes: dict[int, Stored | Failure] = {}
        self.failure: OSError | None = None
        self._spool = tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=str(folder))  # noqa: SIM115 - __exit__
        self._end = 0
        self._total = total
        self._name = name
        self._started = self._logged = time.monotonic()

    def __enter__(self) -> "Collector":
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def write(self, picture: Picture | None, key: str, caption: str | None, meta: Mapping[str, Any]) -> None:
        """Called by img2dataset once a URL; `key` is the URL's zero-padded position.

        An error of the disk is kept in `failure`: img2dataset would print it and go on.
        """
        if picture is None:
            self.outcomes[int(key)] = Failure.from_message(str(meta["error_message"]))
        else:
            try:
                self._spool.seek(self._end)
                self._spool.write(picture.jpeg)
            except OSError as error:
                self.failure = self.failure or error
                return
            size = len(picture.jpeg)
            self.outcomes[int(key)] = Stored(picture._replace(jpeg=b""), self._end, size)
            self._end += size
        self._log_progress()

    def close(self) -> None:
        """Called by img2dataset after the last picture; the spool is still needed."""

    def jpeg(self, stored: Stored) -> bytes:
        """The bytes of a picture that was written."""
        self._spool.seek(stored.start)
        return self._spool.read(stored.size)

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
    collector: Collector,
    tar: str | Path,
    table: str | Path,
) -> pl.DataFrame:
    """Write the pictures and every row, both sorted by uid, and return the table.

    Args:
        rows: the list's rows of this part, with the columns that are carried.
        outcomes: how each row ended, by its position in `rows`.
        collector: holds the JPEGs of the stored ones.
        tar: written first; `table` names offsets in it.
        table: one row a row of the list, columns `SCHEMA`.

    Raises:
        ValueError: two rows have the same uid (a list that was made to collide).
    """
    records = [_record(row, outcomes[i]) for i, row in enumerate(rows.iter_rows(named=True))]
    _refuse_equal_uids(records)
    ok = sorted((r["uid"], i) for i, r in enumerate(records) if r["status"] == words.OK)

    def members() -> Iterator[tuple[str, bytes]]:
        for uid, i in ok:
            stored = outcomes[i]
            assert isinstance(stored, Stored)
            yield f"{uid}.jpg", collector.jpeg(stored)
            yield f"{uid}.json", _json(records[i])
            yield f"{uid}.txt", (records[i]["caption"] or "").encode()

    spans = store.write_tar(tar, members())
    for uid, i in ok:
        records[i]["offset"], records[i]["size"] = spans[f"{uid}.jpg"]
    made = pl.DataFrame(records, schema=SCHEMA, orient="row")
    store.write_table(table, made)
    return made


def _record(row: Mapping[str, Any], outcome: Stored | Failure) -> dict[str, Any]:
    record: dict[str, Any] = dict.fromkeys(SCHEMA)
    record.update({name: row[name] for name in _CARRIED})
    if isinstance(outcome, Stored):
        picture = outcome.picture
        record.update(
            status=words.OK,
            sha256=picture.sha256,
            num_bytes=picture.num_bytes,
            width=picture.width,
            height=picture.height,
            original_width=picture.original_width,
            original_height=picture.original_height,
        )
    else:
        record.update(
            status=outcome.status, error=outcome.error, sha256=outcome.sha256, num_bytes=outcome.num_bytes
        )
    url = row["url"] or ""
    if record["status"] == words.DUPLICATE_URL:
        url = f"{url}#row={row['row']}"
    record["uid"] = store.sample_uid(url, record["sha256"] or "")
    return record


def _json(record: Mapping[str, Any]) -> bytes:
    told = {k: v for k, v in record.items() if k not in ("status", "error", "offset", "size")}
    return json.dumps(told, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def _refuse_equal_uids(records: Iterable[Mapping[str, Any]]) -> None:
    rows: dict[str, int] = {}
    for record in records:
        first = rows.setdefault(record["uid"], record["row"])
        if first != record["row"]:
            raise ValueError(
                f"rows {first} and {record['row']} of the list have the same uid; change one URL"
            )
