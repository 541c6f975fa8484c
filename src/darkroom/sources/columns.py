"""The columns that a list carries besides URL and caption: their kinds, and how they are stored."""

import polars as pl

from darkroom.settings.columns import Kind


def kind_of(dtype: pl.DataType) -> Kind | None:
    """Number, text or boolean; None for what criteria cannot compare, such as lists and times."""
    if dtype.is_integer() or dtype.is_float() or dtype.is_decimal():
        return "number"
    if dtype == pl.Boolean:
        return "boolean"
    return "text" if dtype in (pl.String, pl.Categorical, pl.Enum) else None


def stored_type(dtype: pl.DataType) -> pl.DataType:
    """A column's own type, but decimals as Float64 and categories as text."""
    if dtype.is_decimal():
        return pl.Float64()
    return pl.String() if kind_of(dtype) == "text" else dtype


def cast(name: str, to: pl.DataType) -> pl.Expr:
    """A column in another type; what cannot be one is null."""
    column = pl.col(name)
    if to != pl.Boolean:
        return column.cast(to, strict=False)
    words = column.cast(pl.String, strict=False).str.to_lowercase()
    return words.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
