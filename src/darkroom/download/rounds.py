"""Rounds of retries: which rows are fetched again, and how they are cut into parts of their own.

The parts that are there keep their bytes. A part of a round has those rows of some earlier parts that ended with a
transient status, and no part is taken up by two: so every row has one last state, in the last part that has it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from darkroom.download import status as words
from darkroom.download.writer import LIST_COLUMNS, SEVERAL, carried_columns
from darkroom.store import part_name, read_table, retry_name, round_of

_LISTED = re.compile(r"part-\d{5,}")

Rounds = Sequence[Sequence[Sequence[str]]]
"""Round -> part of the round -> the parts whose rows it fetches again."""


def is_transient_in(column: str) -> pl.Expr:
    """`status.is_transient` of a column."""
    return pl.col(column).is_in(words.TRANSIENT) | pl.col(column).str.starts_with("http_5")


def rows_to_retry(tables: Sequence[str | Path]) -> tuple[pl.DataFrame, list[str]]:
    """The rows of parts that ended with a transient status, as the list has them, and these statuses.

    Raises:
        ValueError: a table lacks a column, or two of them hold one row.
    """
    found = [read_table(table, where=is_transient_in("status")) for table in tables]
    rows = pl.concat(found).sort("row")
    twice = rows["row"].filter(rows["row"].is_duplicated())
    if len(twice):
        raise ValueError(f"row {twice[0]} is in two of {', '.join(map(str, tables))}")
    listed = [*LIST_COLUMNS, *SEVERAL, *carried_columns(rows.schema)]
    return rows.select(listed), rows["status"].to_list()


def parts_of_rounds(rounds: Rounds) -> dict[str, Sequence[str]]:
    """Part of a round -> the parts whose rows it fetches again, in order."""
    return {
        retry_name(number, index): sources
        for number, parts in enumerate(rounds, start=1)
        for index, sources in enumerate(parts)
    }


def refuse_wrong_rounds(rounds: Rounds) -> None:
    """Refuse rounds in which a row could end twice.

    Raises:
        ValueError: a part is taken up twice, or by a round that does not come after it, or is none.
    """
    known, taken = parts_of_rounds(rounds), set()
    for name, sources in known.items():
        if not sources:
            raise ValueError(f"{name} fetches rows of no part again")
        for source in sources:
            is_listed = _LISTED.fullmatch(source) is not None
            if round_of(source) >= round_of(name) or not (is_listed or source in known):
                raise ValueError(f"{name} cannot fetch rows of {source!r} again, which is no part before it")
            if source in taken:
                raise ValueError(f"{source} is taken up twice; its rows would end twice")
            taken.add(source)


@dataclass
class Failed:
    """What may be fetched again.

    Attributes:
        by_part: part -> its rows that ended with a transient status and were not fetched again.
        by_status: transient status -> rows.
    """

    by_part: dict[str, int] = field(default_factory=dict)
    by_status: dict[str, int] = field(default_factory=dict)


def find_failed(tables: Mapping[str, str | Path], rounds: Rounds) -> Failed:
    """Look at the tables of all parts, by name, of the list and of `rounds`.

    Raises:
        OSError: a table is not here.
    """
    taken = {source for sources in parts_of_rounds(rounds).values() for source in sources}
    failed = Failed()
    for name, table in tables.items():
        if name in taken:
            continue
        rows = read_table(table, ["status"], where=is_transient_in("status"))
        if len(rows):
            failed.by_part[name] = len(rows)
        for status, number in rows.group_by("status").len().sort("status").rows():
            failed.by_status[status] = failed.by_status.get(status, 0) + number
    return failed


def next_round(
    failed: Failed, rounds: Rounds, rows_per_part: int, num_rows: int
) -> tuple[tuple[str, ...], ...]:
    """Cut the failed rows into parts of a round, of about `rows_per_part` rows.

    Parts are taken whole and in order. The last part of the list, where it is not full, is made again when the
    list grows, and with it what was made from it: so it stays alone.

    Args:
        num_rows: of the list.
    """
    grows = _made_of_last(rounds, num_rows // rows_per_part) if num_rows % rows_per_part else set()
    parts: list[list[str]] = []
    num_in_last, is_closed = 0, True
    for name, number in failed.by_part.items():
        if is_closed or name in grows or num_in_last + number > rows_per_part:
            parts.append([])
            num_in_last = 0
        parts[-1].append(name)
        num_in_last += number
        is_closed = name in grows
    return tuple(map(tuple, parts))


def _made_of_last(rounds: Rounds, last: int) -> set[str]:
    """A part of the list, and those of rounds that have rows of it."""
    found = {part_name(last)}
    for name, sources in parts_of_rounds(rounds).items():
        if found & set(sources):
            found.add(name)
    return found
