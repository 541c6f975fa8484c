"""Criteria applied to what is known of a part: which samples are kept, and why the others are not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from darkroom import store
from darkroom.config.keep import DOWNLOAD, Criterion
from darkroom.filter.criteria import fails
from darkroom.settings.columns import kind_of

Counts = dict[str, Any]


def select_part(
    table: str | Path,
    scores: Mapping[str | Path, Sequence[str]],
    keep: Sequence[Criterion],
    selection: str | Path,
) -> Counts:
    """Write which rows of a part are kept.

    Columns: uid, row, kept, first_failure (the first criterion that fails, or null), `fails_<criterion>` for
    each, `unknown_<criterion>` for each of `keep` (the picture is there, the value is not: the criterion's
    `unknown` says what becomes of it), and status. The first criterion is `download`: there is no picture.
    The others judge rows that were not downloaded too, by what is known of them; what is not known of a row
    without a picture fails nothing.

    Args:
        table: the part's download table.
        scores: file of a scorer, of this part or of the whole dataset -> the columns that it makes.
        keep: the criteria, in the funnel's order.
        selection: the file to write.

    Returns:
        {"rows": n, "kept": n, "dropped": {criterion: first failures}, "kept_unknown": {criterion: n}}. Rows of a
        round of retries were counted before, as dropped by the first criterion, and are taken back from there: the
        sums over all parts count every row of the list once.

    Raises:
        ValueError: a table lacks a column or rows, or a column is of another kind than its criterion.
    """
    labels = [DOWNLOAD, *(criterion.label for criterion in keep)]
    values = _values(table, scores, keep)
    num_counted = int((values["round"] > 0).sum())
    judged = _judged(values, keep)
    first = pl.coalesce(*(pl.when(f"fails_{label}").then(pl.lit(label)) for label in labels))
    made = judged.with_columns(first_failure=first).select(
        "uid",
        "row",
        pl.col("first_failure").is_null().alias("kept"),
        "first_failure",
        *(f"fails_{label}" for label in labels),
        *(f"unknown_{label}" for label in labels[1:]),
        "status",
    )
    store.write_table(selection, made)
    kept = made.filter("kept")
    dropped = {label: int((made["first_failure"] == label).sum()) for label in labels}
    return {
        "rows": made.height - num_counted,
        "kept": kept.height,
        "dropped": {**dropped, DOWNLOAD: dropped[DOWNLOAD] - num_counted},
        "kept_unknown": {label: int(kept[f"unknown_{label}"].sum()) for label in labels[1:]},
    }


def _judged(rows: pl.DataFrame, keep: Sequence[Criterion]) -> pl.DataFrame:
    """The keys, with `fails_` and `unknown_` of every criterion."""
    is_stored = pl.col("status") == "ok"
    said = rows.select(
        "uid",
        "row",
        "status",
        **{f"fails_{c.label}": fails(c) for c in keep},
        **{f"fails_{DOWNLOAD}": ~is_stored},
    )
    known = said.with_columns(
        **{f"unknown_{c.label}": pl.col(f"fails_{c.label}").is_null() & is_stored for c in keep}
    )
    return known.with_columns(
        **{
            f"fails_{c.label}": pl.col(f"fails_{c.label}").fill_null(
                pl.col(f"unknown_{c.label}") if c.unknown == "drop" else False
            )
            for c in keep
        }
    )


def _in_order_of(row: pl.Series, told: pl.DataFrame) -> pl.DataFrame:
    """What is told of these rows, in their order; nulls where nothing is."""
    # A file of the same part has the same order.
    if told["row"].equals(row):
        return told
    return row.to_frame().join(told, on="row", how="left", maintain_order="left")


def _values(
    table: str | Path, scores: Mapping[str | Path, Sequence[str]], keep: Sequence[Criterion]
) -> pl.DataFrame:
    """The part's rows with every column that a criterion names."""
    named = list(dict.fromkeys(criterion.column for criterion in keep))
    scored = [column for columns in scores.values() for column in columns]
    rows = store.read_table(
        table, list(dict.fromkeys(["uid", "row", "status", "round", *(c for c in named if c not in scored)]))
    )
    low, high = rows["row"].min() or 0, rows["row"].max() or 0
    for path, columns in scores.items():
        wanted = [column for column in columns if column in named]
        # Of a file of the whole dataset, the part's rows alone come into memory.
        told = store.read_table(path, ["uid", "row", *wanted], where=pl.col("row").is_between(low, high))
        found = _in_order_of(rows["row"], told)
        missing = (rows["uid"] != found["uid"]).fill_null(True).sum()
        if missing:
            raise ValueError(f"{path}: lacks {missing} rows of {table}; remove it and run `snakemake score`")
        rows = rows.hstack(found.select(wanted))
    for criterion in keep:
        kind = kind_of(str(rows.schema[criterion.column]))
        if kind != criterion.kind and rows.schema[criterion.column] != pl.Null:
            raise ValueError(
                f"{table}: column {criterion.column!r} holds {rows.schema[criterion.column]}, and keep compares it"
                f" with {criterion.values[0]!r}"
            )
    return rows
