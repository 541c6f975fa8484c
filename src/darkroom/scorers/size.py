"""The size of the stored picture, which is what later stages see."""

from typing import TYPE_CHECKING

from darkroom.scorers.base import Part, Scorer
from darkroom.settings.base import Section

if TYPE_CHECKING:
    import polars as pl


class Size(Section):
    """`min_side_px`, the shorter side, and `aspect_ratio`, longer side / shorter side, of the stored picture."""


def score(options: Size, part: Part) -> "pl.DataFrame":
    """From the table alone; null where there is no picture."""
    import polars as pl

    del options
    shorter, longer = pl.min_horizontal("width", "height"), pl.max_horizontal("width", "height")
    return part.rows.select(
        min_side_px=shorter.cast(pl.Int32),
        aspect_ratio=longer.cast(pl.Float64) / shorter,
    )


SPEC = Scorer(
    name="size",
    section=Size,
    columns={"min_side_px": "Int32", "aspect_ratio": "Float64"},
    reads="table",
    needs=("width", "height"),
    score=score,
)
