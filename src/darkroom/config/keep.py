"""Which pictures are kept: `scorers` says what is computed of them, `keep` what it must be.

A criterion is data: one column, one comparison with values, and what becomes of a picture without a value.
Nothing in it is evaluated as code.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, create_model, model_validator

from darkroom.scorers.table import SCORERS
from darkroom.settings.base import ADDED, Section
from darkroom.settings.columns import Kind, kind_of

# The first, implicit criterion: a row without a picture cannot be kept.
DOWNLOAD = "download"


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("input should be a finite number")
    return value


def _value(value: Any) -> Any:
    return value if isinstance(value, bool | str) else _number(value)


# Checked beforehand: one message instead of one for each member of the union, and no 1 for true.
Number = Annotated[int | float, BeforeValidator(_number)]
Value = Annotated[bool | int | float | str, BeforeValidator(_value)]


def _kind_of_value(value: Value) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def _plain(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Scorers(Section):
    """What is computed of every picture, and with which options; each scorer that stands here is asked."""

    def listed(self) -> dict[str, Section]:
        """Name -> options of the scorers to ask, in the order of `SCORERS`."""
        return {name: getattr(self, name) for name in SCORERS if getattr(self, name) is not None}

    def check(self) -> None:
        """Refuse scorers that cannot be asked together.

        Raises:
            ValueError: two make a column of the same name, or one comes after another that is not listed.
        """
        self.columns()
        listed = self.listed()
        for name in listed:
            for earlier in SCORERS[name].after:
                if earlier not in listed:
                    raise ValueError(f"scorers: {name} works on what {earlier} says; list {earlier} too")

    def columns(self) -> dict[str, tuple[str, Kind]]:
        """Column -> (the scorer that makes it, its kind), of the scorers listed.

        Raises:
            ValueError: two of them make a column of the same name.
        """
        found: dict[str, tuple[str, Kind]] = {}
        for name in self.listed():
            for column, kind in SCORERS[name].columns.items():
                if column in found:
                    raise ValueError(
                        f"scorers: {found[column][0]} and {name} both make a column {column!r}; list one of them"
                    )
                found[column] = name, kind_of(kind)
        return found


_FIELDS: Mapping[str, Any] = {
    name: (
        # As an option added later: a scorer that is not listed leaves no trace in anybody's settings.
        Annotated[spec.section | None, ADDED],
        Field(None, description=(spec.section.__doc__ or "").strip().splitlines()[0]),
    )
    for name, spec in SCORERS.items()
}
Scorers: type[_Scorers] = create_model("Scorers", __base__=_Scorers, __doc__=_Scorers.__doc__, **_FIELDS)


class Criterion(Section):
    """One comparison of one column: `min`, `max` or both, or one of `equals`, `in`, `not_in` and `matches`."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    column: str = Field(
        min_length=1, description="a column of the list, of a scorer or of the download's table"
    )
    name: Annotated[str | None, ADDED] = Field(
        None, min_length=1, description="what the funnel calls it; null: the column's name"
    )
    min: Annotated[Number | None, ADDED] = Field(None, description="least number that is kept")
    max: Annotated[Number | None, ADDED] = Field(None, description="greatest number that is kept")
    equals: Annotated[Value | None, ADDED] = Field(None, description="the only value that is kept")
    in_: Annotated[tuple[Value, ...] | None, ADDED] = Field(
        None, alias="in", min_length=1, description="the values that are kept"
    )
    not_in: Annotated[tuple[Value, ...] | None, ADDED] = Field(
        None, min_length=1, description="the values that are not kept"
    )
    matches: Annotated[str | None, ADDED] = Field(
        None, description="regular expression (of Rust's crate regex) that is found in the text"
    )
    unknown: Annotated[Literal["keep", "drop"], ADDED] = Field(
        "keep", description="what becomes of a picture whose value is null"
    )

    @property
    def label(self) -> str:
        """What the funnel calls it."""
        return self.name or self.column

    @property
    def values(self) -> tuple[Value, ...]:
        """Everything that the column is compared with."""
        given = (self.min, self.max, self.equals, self.matches)
        return (*(v for v in given if v is not None), *(self.in_ or ()), *(self.not_in or ()))

    @property
    def kind(self) -> Kind:
        """The kind of column that this can be compared with."""
        return _kind_of_value(self.values[0])

    @property
    def words(self) -> str:
        """When it fails, in words, for the funnel and the report."""
        if self.matches is not None:
            return f"{self.column} does not match {self.matches!r}"
        if self.equals is not None:
            return f"{self.column} is not {_plain(self.equals)}"
        if self.in_ is not None:
            return f"{self.column} is none of {', '.join(map(_plain, self.in_))}"
        if self.not_in is not None:
            return f"{self.column} is one of {', '.join(map(_plain, self.not_in))}"
        bounds = [f"below {self.min}"] if self.min is not None else []
        bounds += [f"above {self.max}"] if self.max is not None else []
        return f"{self.column} is {' or '.join(bounds)}"

    @model_validator(mode="after")
    def _compares_once(self) -> "Criterion":
        """Refuse none and several comparisons, values of several kinds, and ranges that hold nothing."""
        others = {"equals": self.equals, "in": self.in_, "not_in": self.not_in, "matches": self.matches}
        given = [name for name, value in others.items() if value is not None]
        given += ["min and max"] if (self.min, self.max) != (None, None) else []
        if len(given) != 1:
            which = f"{' and '.join(given)} are given" if given else "no comparison is given"
            raise ValueError(
                f"{self.label}: {which}; give min or max or both, or one of equals, in, not_in and matches"
            )
        kinds = sorted({_kind_of_value(value) for value in self.values})
        if len(kinds) > 1:
            raise ValueError(
                f"{self.label}: compares with {' and '.join(kinds)} at once; give values of one kind, text such as"
                " 'no' or '1' in quotes"
            )
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"{self.label}: min {self.min} is above max {self.max}, which keeps nothing")
        return self


DEFAULT_SCORERS = Scorers.model_validate({"size": {}, "duplicate": {}})
DEFAULT_KEEP = tuple(
    Criterion.model_validate(values)
    for values in (
        {"column": "min_side_px", "min": 64},
        {"column": "aspect_ratio", "max": 3.0},
        {"column": "duplicate", "equals": False},
    )
)
"""What can be asked of the pictures of every source. The columns of a list are its own, so none is named here."""


def check_names(keep: tuple[Criterion, ...]) -> None:
    """Refuse two criteria of one name.

    Raises:
        ValueError: names it.
    """
    for label, number in Counter([DOWNLOAD, *(criterion.label for criterion in keep)]).items():
        if number > 1 and label == DOWNLOAD:
            raise ValueError(f"keep: {DOWNLOAD!r} is the first criterion's own name; give another `name`")
        if number > 1:
            raise ValueError(f"keep: {number} criteria are called {label!r}; give one of them another `name`")
