"""The rule of which of several pictures that look alike is kept, and what is told of the others.

Pictures are looked at part by part, of each part those of the most pixels first, before they were reduced, of as
many the one with the smallest row first. One is kept unless it is near one that was kept before, and is else a
near duplicate of the first of those.
"""

from typing import TYPE_CHECKING

from darkroom.scorers.base import Part

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

NEEDS = ("original_width", "original_height")
"""Columns of the download table that the order takes."""


def in_order(part: Part, is_judged: "pl.Expr", *columns: str) -> "pl.DataFrame":
    """The rows with a picture that are judged, in the rule's order: `at`, their place in the part's rows, `row`,
    and some columns."""
    import numpy as np
    import polars as pl

    place = np.repeat(np.arange(len(part.lengths)), part.lengths)
    rows = part.rows.with_columns(part=pl.Series(place), at=pl.int_range(pl.len()))
    pixels = pl.col("original_width").cast(pl.Int64) * pl.col("original_height")
    judged = rows.filter((pl.col("status") == "ok") & is_judged)
    return judged.sort("part", -pixels, "row").select("at", "row", *columns)


def told_of(part: Part, judged: "pl.DataFrame", first: "np.ndarray", name: str) -> "pl.DataFrame":
    """`name`, whether a picture is near a kept one, null without a picture; and `name`_of, the row of the first.

    Args:
        judged: as `in_order` gives them.
        first: for each of these the place among them of the first kept one that it is near to, or its own.
    """
    import numpy as np
    import polars as pl

    is_near = first != np.arange(len(first))
    at = judged["at"].to_numpy()[is_near]
    found, of = np.zeros(part.rows.height, bool), np.full(part.rows.height, -1, np.int64)
    found[at] = True
    of[at] = judged["row"].to_numpy()[first[is_near]]
    is_stored = part.rows["status"] == "ok"
    told = pl.DataFrame({name: found, f"{name}_of": of})
    return told.select(
        pl.when(is_stored).then(name).alias(name), pl.when(name).then(f"{name}_of").alias(f"{name}_of")
    )
