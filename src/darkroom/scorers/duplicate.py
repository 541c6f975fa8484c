"""Byte-identical downloads, over the whole dataset."""

from typing import TYPE_CHECKING

from darkroom.scorers.base import Part, Scorer
from darkroom.settings.base import Section

if TYPE_CHECKING:
    import polars as pl


class Duplicate(Section):
    """`duplicate`: an earlier row has the same bytes; `first_row` is that row. Null without a picture."""


def score(options: Duplicate, part: Part) -> "pl.DataFrame":
    """The copy with the smallest row is the original, whatever `keep` says of it: this depends on the
    pictures alone. It stays the original when a later round of retries brings a copy with a smaller row."""
    import polars as pl

    del options
    is_stored, row = pl.col("status") == "ok", pl.col("row")
    # Bytes that were refused have a digest too; they are nobody's original.
    in_order = row.filter(is_stored).sort_by(pl.col("round").filter(is_stored), row.filter(is_stored))
    first = in_order.first().over("sha256")
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
)
