"""Byte-identical downloads, over the whole dataset."""

from typing import TYPE_CHECKING

from darkroom.scorers.base import Part, Scorer
from darkroom.settings.base import Section

if TYPE_CHECKING:
    import polars as pl


# More than any list has: rounds times it, and a row, in one number that sorts as both do.
_ROWS = 1 << 44


class Duplicate(Section):
    """`duplicate`: an earlier row has the same bytes; `first_row` is that row. Null without a picture."""


def score(options: Duplicate, part: Part) -> "pl.DataFrame":
    """The copy with the smallest row is the original, whatever `keep` says of it: this depends on the
    pictures alone. It stays the original when a later round of retries brings a copy with a smaller row."""
    import polars as pl

    del options
    is_stored, row = pl.col("status") == "ok", pl.col("row")
    # Bytes that were refused have a digest too; they are nobody's original.
    in_order = pl.when(is_stored).then(pl.col("round").cast(pl.Int64) * _ROWS + row)
    first = in_order.min().over("sha256") % _ROWS
    is_copy = first != row
    return part.rows.select(
        duplicate=pl.when(is_stored).then(is_copy),
        first_row=pl.when(is_stored & is_copy).then(first),
    )


SPEC = Scorer(
    name="duplicate",
    section=Duplicate,
    columns={"duplicate": "Boolean", "first_row": "Int64"},
    reads="dataset",
    needs=("sha256", "round"),
    score=score,
    copy_of="first_row",
)
