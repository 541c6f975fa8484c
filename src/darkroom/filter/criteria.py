"""Criteria as expressions, and whether a dataset's columns are what they ask for."""

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import polars as pl

from darkroom.config.keep import Criterion
from darkroom.download.writer import LISTED_HASH, OWN_COLUMNS, SAME_BYTES
from darkroom.scorers.table import SCORERS
from darkroom.settings.columns import Kind, kind_of

if TYPE_CHECKING:
    # Not needed by the jobs of the stage, which only apply criteria.
    from darkroom.config.dataset import Dataset


def fails(criterion: Criterion) -> pl.Expr:
    """Whether a row fails a criterion; null where its value is not known.

    Numbers compare as polars compares them: 0.1 equals the nearest Float32 of a Float32 column.
    """
    column = pl.col(criterion.column)
    if criterion.matches is not None:
        return ~column.str.contains(criterion.matches)
    if criterion.equals is not None:
        return column != criterion.equals
    if criterion.in_ is not None:
        return ~_is_one_of(column, criterion.in_)
    if criterion.not_in is not None:
        return _is_one_of(column, criterion.not_in)
    outside = [column < criterion.min] if criterion.min is not None else []
    outside += [column > criterion.max] if criterion.max is not None else []
    return pl.any_horizontal(outside)


def check_criteria(dataset: "Dataset", carried: Mapping[str, Kind]) -> None:
    """Refuse a criterion on a column that there will not be, or that it cannot be compared with.

    Args:
        dataset: its `keep` and `scorers`.
        carried: the columns that come with the list, see `sources.table.list_columns`.

    Raises:
        ValueError: a column is unknown, made by a scorer that is not listed or by two, or of another kind; or
            a regular expression is wrong. Names the criterion.
    """
    made = {column: kind for column, (_, kind) in dataset.scorers.columns().items()}
    own = {name: kind_of(str(kind)) for name, kind in OWN_COLUMNS.items()}
    if LISTED_HASH in carried:
        own[SAME_BYTES] = "boolean"
    for column in made:
        if column in own or column in carried:
            raise ValueError(
                f"scorers: the column {column!r} is one of {'the list' if column in carried else 'the download'}"
                " too; a name can have one meaning only: leave the scorer out, or rename the list's column"
            )
    known = {**carried, **own, **made}
    for number, criterion in enumerate(dataset.keep):
        where = f"keep.{number}.column"
        if criterion.column not in known:
            raise ValueError(f"{where}: no column {criterion.column!r}{_hint(criterion.column, list(known))}")
        found = known[criterion.column]
        if found != criterion.kind:
            raise ValueError(
                f"{where}: {criterion.column!r} holds {_plural(found)}, and is compared with"
                f" {_plural(criterion.kind)}"
            )
        if criterion.matches is not None:
            try:
                pl.Series([""]).str.contains(criterion.matches)
            except pl.exceptions.ComputeError as error:
                told = " ".join(str(error).split("This error occurred")[0].split())
                raise ValueError(f"keep.{number}.matches: {criterion.matches!r}: {told}") from None


def _is_one_of(column: pl.Expr, values: tuple[bool | int | float | str, ...]) -> pl.Expr:
    if isinstance(values[0], str):
        return column.is_in(list(values))
    # Whole numbers and fractions may stand in one list; polars has `is_in` for columns of the values' own type.
    return pl.any_horizontal([column == value for value in values])


def _hint(column: str, known: list[str]) -> str:
    makers = [name for name, scorer in SCORERS.items() if column in scorer.columns]
    if makers:
        return f", which the scorer {makers[0]!r} makes; `scorers` does not list it"
    same = [name for name in known if name.lower() == column.lower()]
    near = same or difflib.get_close_matches(column, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"


def _plural(kind: Kind) -> str:
    return {"number": "numbers", "text": "text", "boolean": "booleans"}[kind]
