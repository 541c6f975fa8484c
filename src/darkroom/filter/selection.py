"""Thresholds applied to scores: which samples of a part are kept, and why the others are not."""

from pathlib import Path

import polars as pl

from darkroom import store
from darkroom.config.dataset import Filter
from darkroom.filter.criteria import CRITERIA, DOWNLOAD, UNKNOWABLE, fails
from darkroom.filter.scores import Counts

_FROM_SCORES = ("uid", "row", "status", "pwatermark", "punsafe", "min_side_px", "aspect_ratio")


def select_part(
    scores: str | Path, duplicates: str | Path, settings: Filter, selection: str | Path
) -> Counts:
    """Write which rows of a part are kept.

    Columns: uid, row, kept, first_failure (the first criterion of `CRITERIA` that fails, or null),
    `fails_<criterion>` for each, and, for the funnel, status and `unknown_<score>` (the criterion is
    in force, the picture is there, its score is not: such a row passes). Criteria on a list's scores
    also judge rows that were not downloaded; those on pictures pass them.

    Returns:
        {"rows": n, "kept": n, "dropped": {criterion: first failures}, "kept_unknown": {score: n}}.

    Raises:
        ValueError: a table lacks a column.
    """
    rows = store.read_table(scores, _FROM_SCORES)
    copies = store.read_table(duplicates, ["row"])["row"]
    judged = rows.with_columns(is_duplicate=pl.col("row").is_in(copies.implode())).with_columns(
        **{f"fails_{name}": expression for name, expression in fails(settings).items()}
    )
    known = judged.with_columns(
        **{
            f"unknown_{name}": pl.col(f"fails_{name}").is_null() & ~pl.col(f"fails_{DOWNLOAD}")
            for name in UNKNOWABLE
        }
    ).with_columns(pl.col([f"fails_{name}" for name in CRITERIA]).fill_null(False))
    first = pl.coalesce(*(pl.when(f"fails_{name}").then(pl.lit(name)) for name in CRITERIA))
    made = known.with_columns(first_failure=first).select(
        "uid",
        "row",
        pl.col("first_failure").is_null().alias("kept"),
        "first_failure",
        *(f"fails_{name}" for name in CRITERIA),
        *(f"unknown_{name}" for name in UNKNOWABLE),
        "status",
    )
    store.write_table(selection, made)
    kept = made.filter("kept")
    return {
        "rows": made.height,
        "kept": kept.height,
        "dropped": {name: int((made["first_failure"] == name).sum()) for name in CRITERIA},
        "kept_unknown": {name: int(kept[f"unknown_{name}"].sum()) for name in UNKNOWABLE},
    }
