"""What thresholds are applied to: scored once per part, and copies found over the whole dataset."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from darkroom import store
from darkroom.filter.criteria import UNKNOWABLE

Counts = dict[str, int | dict[str, int]]

_FROM_DOWNLOAD = ("uid", "row", "status", "pwatermark", "punsafe", "width", "height", "sha256")


def score_part(table: str | Path, scores: str | Path) -> Counts:
    """Write the scores of every row of a download table.

    `min_side_px` and `aspect_ratio` (longest side / shortest side) are of the stored picture, which
    is what later stages see; null where there is none. `sha256` is of the downloaded bytes.

    Returns:
        {"rows": n, "unknown": {score: stored pictures without it}}.

    Raises:
        ValueError: the table lacks a column.
    """
    rows = store.read_table(table, _FROM_DOWNLOAD)
    sides = pl.min_horizontal("width", "height"), pl.max_horizontal("width", "height")
    made = rows.select(
        "uid",
        "row",
        "status",
        "pwatermark",
        "punsafe",
        min_side_px=sides[0].cast(pl.Int32),
        aspect_ratio=sides[1].cast(pl.Float64) / sides[0],
        sha256="sha256",
    )
    store.write_table(scores, made)
    stored = made.filter(status="ok")
    return {"rows": made.height, "unknown": {name: stored[name].null_count() for name in UNKNOWABLE}}


def find_duplicates(scores: Sequence[str | Path], out: str | Path) -> Counts:
    """Write the later copies of byte-identical downloads: row, uid, and the first row with the bytes.

    The copy with the smallest row is the original, whatever the thresholds say of it, so that this
    table depends on the pictures alone. Sorted by row.

    Returns:
        {"rows": n, "copies": later copies, "copied": pictures that have copies}.

    Raises:
        ValueError: `scores` is empty, or a table lacks a column.
    """
    if not scores:
        raise ValueError("find_duplicates: no scores; give the table of every part")
    rows = pl.concat([store.read_table(part, ("row", "uid", "status", "sha256")) for part in scores])
    stored = rows.filter(status="ok").with_columns(first_row=pl.col("row").min().over("sha256"))
    copies = stored.filter(pl.col("row") != pl.col("first_row")).select("row", "uid", "first_row")
    store.write_table(out, copies, sort_by="row")
    return {"rows": rows.height, "copies": copies.height, "copied": copies["first_row"].n_unique()}
