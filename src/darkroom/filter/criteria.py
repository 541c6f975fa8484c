"""The criteria that a sample must pass, in the order in which the funnel counts them."""

import polars as pl

from darkroom.config.dataset import Filter

DOWNLOAD = "download"
PWATERMARK = "pwatermark"
PUNSAFE = "punsafe"
MIN_SIDE_PX = "min_side_px"
MAX_ASPECT_RATIO = "max_aspect_ratio"
DUPLICATE = "duplicate"

CRITERIA = (DOWNLOAD, PWATERMARK, PUNSAFE, MIN_SIDE_PX, MAX_ASPECT_RATIO, DUPLICATE)
UNKNOWABLE = (PWATERMARK, PUNSAFE)
"""Criteria on scores that the list may lack; a sample without the score passes and is counted."""


def fails(settings: Filter) -> dict[str, pl.Expr]:
    """For each criterion, an expression over a scores table with a column `is_duplicate`.

    An expression is null where the score is unknown, and false where the criterion is switched off.
    """
    off = pl.lit(False)
    return {
        DOWNLOAD: pl.col("status") != "ok",
        PWATERMARK: off
        if settings.max_pwatermark is None
        else pl.col("pwatermark") > settings.max_pwatermark,
        PUNSAFE: off if settings.max_punsafe is None else pl.col("punsafe") > settings.max_punsafe,
        MIN_SIDE_PX: pl.col("min_side_px") < settings.min_side_px,
        MAX_ASPECT_RATIO: pl.col("aspect_ratio") > settings.max_aspect_ratio,
        DUPLICATE: pl.col("is_duplicate") if settings.drop_duplicates else off,
    }
