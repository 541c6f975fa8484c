"""The download of one part of a URL list: img2dataset drives, our opener and decoder do the work."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import polars as pl

from darkroom.download import VERSION
from darkroom.download import status as words
from darkroom.download.before import forget, take_over
from darkroom.download.decoders import Decoders
from darkroom.download.driven import Fetching, fetch_alone, fetch_and_decode
from darkroom.download.fetch import PictureOpener
from darkroom.download.journal import DECODED, Journal, journal_of
from darkroom.download.manners.crawl import Crawl
from darkroom.download.policy import parse_url
from darkroom.download.rounds import rows_to_retry
from darkroom.download.status import Failure, FetchError, printable
from darkroom.download.writer import (
    LIST_COLUMNS,
    LISTED_HASH,
    OWN_COLUMNS,
    REPEAT_OF,
    SEVERAL,
    Collector,
    Stored,
    write_part,
)
from darkroom.settings.download import Download
from darkroom.store import finite, sha256_json, sha256_rows

# Of a row that the list leaves empty, or that is empty because its URL was withdrawn: it does not tell which.
NO_URL = Failure(words.NO_URL, "the row has no URL")

_log = logging.getLogger(__name__)

FEWEST_FAILURES = 10
"""Fewer rows without an answer are no sign of a network that is down: a list's last part may have one row, and
that row a dead server."""
MOST_BLAME = 2 * DECODED
"""A row with so much is not tried again; from half of it on it is tried alone."""


def download_part(
    urls: str | Path,
    first_row: int,
    num_rows: int,
    settings: Download,
    tar: str | Path,
    table: str | Path,
    connect_to: Mapping[str, str] | None = None,
    rows_sha256: str | None = None,
    num_decoders: int = 1,
    max_transport_failures: float = 1.0,
    keep_journal: bool = False,
    crawl: Crawl | None = None,
) -> dict[str, int | dict[str, int]]:
    """Fetch rows [first_row, first_row + num_rows) of `urls` into `tar` and `table`.

    The same answers of the servers give the same bytes of both files. One call at a time in a
    process, because the opener is installed under `urllib.request`. Memory is bounded by what
    `memory.job_bytes` says. A call that ends early leaves a journal, and the next one goes on from there.

    Args:
        urls: Parquet list with `LIST_COLUMNS` and what else it carries, its column `row` counting from 0.
        first_row: first row of the part.
        num_rows: rows of the part; the last part of a list may have fewer.
        settings: the `download` section.
        tar: WebDataset shard of the pictures that arrived (<uid>.jpg, .json, .txt).
        table: one row a row of the part, see `writer.table_schema`.
        connect_to: "host:port" -> "ip:port" instead of a look-up.
        rows_sha256: what `store.sha256_rows` should say of the part's rows of `urls`.
        num_decoders: processes that decode; the files do not depend on it.
        max_transport_failures: share of the rows that may end without an answer; FEWEST_FAILURES - 1 always may.
        keep_journal: leave the journal of a part that is finished to the caller, who calls `journal.forget`, and
            what was set aside of it, `before.forget`.
        crawl: who asks, and how often; None: nobody tells, as fast as it goes.

    Returns:
        {"rows": n, "status": {status: n}}, and {"not_finite": {column: NaN and infinities, now null}} where
        there are any.

    Raises:
        ValueError: the list lacks a column or rows; its rows are not counted from 0, or are not `rows_sha256`.
        OSError: a file cannot be written.
        DecoderError: no process that decodes can be started.
        TooManyFailures: more than `max_transport_failures` of the rows ended without an answer.
    """
    rows, not_finite = read_rows(urls, first_row, num_rows, rows_sha256)
    files = Files(Path(tar), Path(table), keep_journal)
    bounds = settings, max_transport_failures
    return part_counts(_fetch(rows, files, *bounds, connect_to, num_decoders, crawl=crawl), not_finite)


def retry_part(
    tables: Sequence[str | Path],
    round_number: int,
    settings: Download,
    tar: str | Path,
    table: str | Path,
    connect_to: Mapping[str, str] | None = None,
    num_decoders: int = 1,
    keep_journal: bool = False,
    crawl: Crawl | None = None,
) -> dict[str, int | dict[str, int]]:
    """Fetch the rows of some parts again that ended with a transient status, into a part of their own.

    Args:
        tables: of the parts; they stay as they are.
        round_number: from 1; the column `round` of the table.
        settings, tar, table, connect_to, num_decoders, keep_journal, crawl: as `download_part`.

    Returns:
        {"rows": 0, "retried": n, "status": {status: n}}: what the counts of all parts change by, so that their
        sums are of the list's rows and how each ended last. A status that fewer rows have now has less than 0.

    Raises:
        ValueError: a table lacks a column, or two of them hold one row.
        OSError, DecoderError: as `download_part`.
    """
    rows, before = rows_to_retry(tables)
    files = Files(Path(tar), Path(table), keep_journal)
    made = _fetch(rows, files, settings, 1.0, connect_to, num_decoders, round_number, crawl)
    changes = Counter(made["status"].to_list())
    changes.subtract(before)
    return {"rows": 0, "retried": len(rows), "status": dict(sorted(changes.items()))}


class Files(NamedTuple):
    """Where a part lies, and whether its journal stays when it is finished."""

    tar: Path
    table: Path
    keep_journal: bool


def _fetch(
    rows: pl.DataFrame,
    files: Files,
    settings: Download,
    max_transport_failures: float,
    connect_to: Mapping[str, str] | None,
    num_decoders: int,
    round_number: int = 0,
    crawl: Crawl | None = None,
) -> pl.DataFrame:
    """Fetch `rows`, write their part and return its table; see `download_part`."""
    made_of = sha256_json([VERSION, settings.model_dump(mode="json"), sha256_rows(rows), round_number])
    outcomes: dict[int, Stored | Failure] = dict(_settled(rows))
    todo = {i: url for i, url in enumerate(rows["url"]) if i not in outcomes}
    part = files.tar.stem
    with journal_of(files.tar, made_of, files.keep_journal) as journal:
        take_over(files.tar, todo, journal)
        with (
            work_folder(files.tar) as folder,
            closing(PictureOpener(settings, connect_to, crawl=crawl)) as opener,
            Decoders(settings, num_decoders) as decoders,
        ):
            left = len(todo) - len(journal.outcomes)
            collector = Collector(journal, left, part)
            fetching = Fetching(settings, opener, decoders, journal, collector, _hashes(rows))
            fetch_what_is_missing(todo, journal, fetching, folder)
        lost = Failure(words.INTERNAL_ERROR, "img2dataset reported nothing about this row")
        outcomes |= {i: journal.outcomes.get(i, lost) for i in todo}
        refuse_too_many_failures(outcomes, rows["url"], max_transport_failures, journal, part)
        made = write_part(rows, outcomes, journal, files.tar, files.table, round_number)
        collector.log_progress()
    if not files.keep_journal:
        forget(files.tar)
    _log.info("%s: %d rows, %d pictures", part, len(made), (made["status"] == words.OK).sum())
    return made


def _hashes(rows: pl.DataFrame) -> dict[int, str]:
    """Position -> the list's hash, of rows that have one."""
    if LISTED_HASH not in rows.columns:
        return {}
    return {place: listed for place, listed in enumerate(rows[LISTED_HASH]) if listed}


class TooManyFailures(ValueError):
    """So many rows ended without an answer that the network is to blame, or the list."""


def fetch_what_is_missing(
    urls: Mapping[int, str], journal: Journal, fetching: Fetching, folder: Path
) -> None:
    """Have the journal hold an outcome of every row.

    A row that was being decoded when a job died is tried alone, before the others. If that job dies too, the row
    is to blame, and is not tried again. So is one that was being fetched when many died.
    """
    for place, blame in sorted(journal.blame.items()):
        if blame >= MOST_BLAME:
            sentence = "jobs died while this row was fetched or decoded, the last of them while no other was"
            fetching.collector.keep(place, Failure(words.JOB_DIED, sentence))
    missing = {place: url for place, url in urls.items() if place not in journal.outcomes}
    suspects = {
        place: url for place, url in missing.items() if journal.blame.get(place, 0) >= MOST_BLAME // 2
    }
    if suspects:
        _log.info("%d rows were being decoded when a job died; they are tried one at a time", len(suspects))
        fetch_alone(suspects, fetching)
    others = {place: url for place, url in missing.items() if place not in suspects}
    if others:
        fetch_and_decode(others, fetching, folder)


def refuse_too_many_failures(
    outcomes: Mapping[int, Stored | Failure],
    urls: pl.Series,
    max_share: float,
    journal: Journal,
    part: str,
) -> None:
    """Refuse a part of whose rows more than `max_share`, and FEWEST_FAILURES or more, got no answer.

    The next job fetches those again.

    Raises:
        TooManyFailures: says how many of how many, the first of them, and what to do.
    """
    failures = {i: o for i, o in outcomes.items() if isinstance(o, Failure) and o.status in words.TRANSPORT}
    if len(failures) <= max_share * len(outcomes) or len(failures) < FEWEST_FAILURES:
        return
    journal.reopen()
    first = min(failures)
    counts = Counter(failure.status for failure in failures.values())
    raise TooManyFailures(
        f"{part}: {len(failures):,} of {len(outcomes):,} rows ended without an answer"
        f" ({', '.join(f'{status} {number:,}' for status, number in sorted(counts.items()))}), more than"
        f" max_transport_failures ({max_share:g}) allows; the first: {printable(urls[first])}:"
        f" {printable(failures[first].error)}. See whether this machine reaches the network and a name server, and"
        f" start again: the other {len(outcomes) - len(failures):,} rows are kept, and only these are fetched. If"
        " their servers are gone for good, write a higher max_transport_failures into the dataset's file, which"
        " makes no other part again"
    )


def part_counts(table: pl.DataFrame, not_finite: dict[str, int]) -> dict[str, int | dict[str, int]]:
    """The counts of a part with this table, see `download_part`."""
    counts = Counter(table["status"].to_list())
    more = {"not_finite": not_finite} if not_finite else {}
    return {"rows": len(table), "status": dict(sorted(counts.items())), **more}


def read_rows(
    urls: str | Path, first_row: int, num_rows: int, rows_sha256: str | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The part's rows of the list, and how many numbers of each column were not finite, and are null now."""
    if first_row < 0 or num_rows < 1:
        raise ValueError(f"first_row {first_row} and num_rows {num_rows} should be >= 0 and >= 1")
    everything = pl.scan_parquet(urls)
    schema = everything.collect_schema()
    _check_columns(urls, schema)
    # A column of the list that is called like one of the table's own is not carried.
    taken = OWN_COLUMNS.keys() - LIST_COLUMNS.keys()
    total = everything.select(pl.len()).collect().item()
    if first_row >= max(total, 1):
        raise ValueError(f"{urls}: row {first_row} is past the end; the list has {total} rows")
    rows = everything.slice(first_row, num_rows).collect()
    if rows_sha256 is not None and sha256_rows(rows) != rows_sha256:
        raise ValueError(
            f"{urls}: rows {first_row} to {first_row + len(rows) - 1} are not those that the source has now; it"
            " was changed since they were listed. Start snakemake again"
        )
    several = [name for name, kind in SEVERAL.items() if schema.get(name) == kind]
    rows = rows.select(name for name in schema if name in several or name not in taken)
    rows = rows.with_columns(pl.col(name).cast(kind) for name, kind in LIST_COLUMNS.items())
    expected = pl.int_range(first_row, first_row + len(rows), eager=True)
    wrong = rows["row"].ne_missing(expected).arg_true()
    if len(wrong):
        line = wrong[0]
        raise ValueError(
            f"{urls}: line {expected[line]} has row {rows['row'][line]}; column 'row' should count from 0"
        )
    return finite(rows)


def _check_columns(urls: str | Path, schema: pl.Schema) -> None:
    for name, kind in LIST_COLUMNS.items():
        if name not in schema:
            raise ValueError(f"{urls}: no column {name!r}; it has {', '.join(schema.names())}")
        found = schema[name]
        fits = found == kind if kind == pl.String else found.is_numeric()
        if not fits and found != pl.Null:
            wanted = "text" if kind == pl.String else "numbers"
            raise ValueError(f"{urls}: column {name!r} holds {found}, it should hold {wanted}")


def _settled(rows: pl.DataFrame) -> Iterator[tuple[int, Failure]]:
    """The rows (by position) that end without a fetch: URLs we do not fetch, and repeated ones."""
    first: dict[str, int] = {}
    repeat_of = rows[REPEAT_OF] if REPEAT_OF in rows.columns else [None] * len(rows)
    for i, (url, row) in enumerate(zip(rows["url"], repeat_of, strict=True)):
        url = url or ""
        if row is not None:
            yield i, Failure(words.DUPLICATE_URL, f"row {row} has the same URL, and keeps this row's caption")
            continue
        if not url.strip():
            yield i, NO_URL
            continue
        # Of a list that nobody has looked through, what is repeated within the part is known.
        if first.setdefault(url, i) != i:
            row = rows["row"][first[url]]
            yield i, Failure(words.DUPLICATE_URL, f"row {row} has the same URL")
            continue
        try:
            parse_url(url)
        except FetchError as error:
            yield i, error.failure


@contextmanager
def work_folder(tar: Path) -> Iterator[Path]:
    """A folder beside the output; one that a killed job left behind is removed first."""
    folder = tar.parent / f".{tar.name}.work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
