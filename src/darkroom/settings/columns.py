"""The kinds of columns that a list may have and a criterion may name."""

from typing import Literal

Kind = Literal["number", "text", "boolean"]


def kind_of(dtype: str) -> Kind:
    """The kind of a column by the name of its type in polars."""
    return {"String": "text", "Boolean": "boolean"}.get(dtype, "number")  # type: ignore[return-value]
