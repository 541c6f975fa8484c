"""A part whose rows are of several sources: each gets its own pictures, and what they got becomes one part."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from darkroom.download.before import outcomes_in
from darkroom.download.journal import forget, journal_folder
from darkroom.download.stage import part_counts, read_rows, work_folder
from darkroom.download.status import Failure
from darkroom.download.writer import SEVERAL, Collector, Spool, Stored, write_part
from darkroom.sources.base import Counts, Part
from darkroom.store import read_table


class Owner(NamedTuple):
    """A source whose rows [first_row, first_row + num_rows) of the list are of the part."""

    name: str
    first_row: int
    num_rows: int


def owners_of(part: Part, column: str) -> list[Owner]:
    """The sources that a part has rows of, in order, by the list's `column`."""
    names = pl.scan_parquet(part.urls).slice(part.first_row, part.num_rows).select(column).collect()
    runs = (
        names.with_row_index("row").group_by(column, maintain_order=True).agg(pl.len(), pl.col("row").first())
    )
    return [Owner(name, part.first_row + row, number) for name, number, row in runs.iter_rows()]


def download_joined(
    part: Part,
    owners: Sequence[Owner],
    of_files: Collection[str],
    get: Callable[[str, Part], object],
    own_urls: Callable[[str], pl.Expr],
) -> Counts:
    """Make a part's tar and table of what each source makes of its own rows.

    Where that is killed, what came from the web stays in the journals beside it.

    Args:
        of_files: names of the sources that read files: they are given a list with their own URLs.
        get: (source, its part) -> that part is made.
        own_urls: source -> column `url` as the source itself has it.

    Raises:
        what `get` raises.
    """
    rows, not_finite = read_rows(part.urls, part.first_row, part.num_rows, part.rows)
    tar = Path(part.tar)
    folder = journal_folder(tar)
    folder.mkdir(parents=True, exist_ok=True)
    captions: list[list[str] | None] = [None] * len(rows)
    with work_folder(tar) as work, Spool(work) as spool:
        collector = Collector(spool, len(rows), tar.stem)
        for owner in owners:
            own = replace(
                part, first_row=owner.first_row, num_rows=owner.num_rows, rows=None, keep_journal=True,
                tar=folder / f"{owner.name}.tar", table=folder / f"{owner.name}.parquet",
            )  # fmt: skip
            if owner.name in of_files:
                own = replace(
                    own, urls=_own_list(own, own_urls(owner.name), work / "urls.parquet"), first_row=0
                )
            get(owner.name, own)
            begin = owner.first_row - part.first_row
            counted_from = 0 if owner.name in of_files else owner.first_row
            for row, found in outcomes_in(own.tar, read_table(own.table)):
                place = begin + row["row"] - counted_from
                captions[place] = row["captions"]
                collector.keep(place, found)
        if collector.failure is not None:
            raise collector.failure
        rows = rows.with_columns(pl.Series("captions", captions, SEVERAL["captions"]))
        outcomes: dict[int, Stored | Failure] = collector.outcomes
        made = write_part(rows, outcomes, collector, tar, part.table)
    if not part.keep_journal:
        forget(tar)
    return part_counts(made, not_finite)


def _own_list(own: Part, url: pl.Expr, path: Path) -> Path:
    """The rows of a source as a list of its own."""
    rows = pl.read_parquet(own.urls).slice(own.first_row, own.num_rows)
    rows.with_columns(url, row=pl.int_range(own.num_rows, dtype=pl.Int64)).write_parquet(path)
    return path
