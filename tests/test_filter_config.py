"""Which criteria a dataset may ask for, and what is said of others."""

import re
from typing import Any

import pytest

from darkroom.config.dataset import Dataset
from darkroom.filter import check_criteria


def dataset(**values: Any) -> Dataset:
    source = {"kind": "list", "path": "list.parquet"}
    return Dataset.model_validate({"description": "x", "source": source, "recaption": None, **values})


def test_without_keep_pictures_are_judged_by_what_every_source_has() -> None:
    usual = dataset()
    check_criteria(usual, {})
    assert [criterion.words for criterion in usual.keep] == [
        "min_side_px is below 64",
        "aspect_ratio is above 3.0",
        "duplicate is not false",
    ]
    assert list(usual.scorers.listed()) == ["size", "duplicate"]


@pytest.mark.parametrize(
    ("criterion", "said"),
    [
        (
            {"column": "languages", "equals": "en"},
            "keep.0.column: no column 'languages'; did you mean 'Language'?",
        ),
        ({"column": "zzz", "min": 1}, "no column 'zzz'; there are Language, aspect_ratio, caption,"),
        ({"column": "Language", "min": 1}, "'Language' holds text, and is compared with numbers"),
        ({"column": "width", "equals": "64"}, "'width' holds numbers, and is compared with text"),
        ({"column": "duplicate", "max": 0.5}, "'duplicate' holds booleans, and is compared with numbers"),
        (
            {"column": "Language", "matches": "(?=x)"},
            "keep.0.matches: '(?=x)': regex error: regex parse error",
        ),
    ],
)
def test_a_criterion_that_cannot_be_asked_is_refused_before_any_job(
    criterion: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        check_criteria(dataset(keep=[criterion]), {"Language": "text"})


def test_a_column_of_a_scorer_that_is_not_listed_names_the_scorer() -> None:
    wanted = dataset(scorers={"size": {}}, keep=[{"column": "duplicate", "equals": False}])
    with pytest.raises(ValueError, match="which the scorer 'duplicate' makes; `scorers` does not list it"):
        check_criteria(wanted, {})


def test_a_list_with_a_column_that_a_scorer_makes_is_refused() -> None:
    with pytest.raises(ValueError, match="the column 'min_side_px' is one of the list too"):
        check_criteria(dataset(), {"min_side_px": "number"})


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ([{"column": "a", "min": 1}, {"column": "a", "max": 2}], "2 criteria are called 'a'"),
        ([{"column": "a", "min": 1, "name": "download"}], "'download' is the first criterion's own name"),
        ([{"column": "a"}], "a: no comparison is given; give min or max or both, or one of"),
        ([{"column": "a", "min": 1, "equals": 1}], "a: equals and min and max are given"),
        ([{"column": "a", "min": 2, "max": 1}], "a: min 2 is above max 1, which keeps nothing"),
        ([{"column": "a", "in": ["de", False]}], "compares with boolean and text at once"),
        ([{"column": "a", "in": []}], "at least 1 item"),
        ([{"column": "a", "min": float("inf")}], "finite number"),
        ([{"column": "a", "min": True}], "min is true; it should be a number"),
        ([{"column": "a", "min": 1, "unknown": "maybe"}], "'keep' or 'drop'"),
    ],
)
def test_a_criterion_that_says_nothing_or_two_things_is_refused(
    keep: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        dataset(keep=keep)
