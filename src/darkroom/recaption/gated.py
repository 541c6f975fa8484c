"""What the gates did with a part's captions, in numbers."""

from collections.abc import Collection
from typing import Any

import polars as pl

from darkroom.store.captions import DROPPED


def gate_counts(made: pl.DataFrame, names: Collection[str]) -> dict[str, Any]:
    """How captions came through the gates, of the table that the stage writes.

    Returns:
        passed: name -> how -> captions: `at_once`, `after_1_retry`, `after_2_retries` and so on,
            `by_fallback_1` and so on, and `not_asked` where nobody could be. not_passed: name -> the
            first gate that the text does not pass -> captions.
        kept: pictures. dropped: gate -> pictures that were for it.
    """
    passed = {name: _outcomes(made, name) for name in names}
    failed = {name: _numbers(made[f"{name}_gate"].drop_nulls()) for name in names}
    dropped = _numbers(made[DROPPED].drop_nulls())
    return {"passed": passed, "not_passed": failed, "kept": made[DROPPED].null_count(), "dropped": dropped}


def _outcomes(made: pl.DataFrame, name: str) -> dict[str, int]:
    """Of the captions of a name that passed, how many did so how."""
    of_first = made.filter(pl.col(f"{name}_gate").is_null(), pl.col(f"{name}_captioner") == 0)
    tries = sorted(of_first[f"{name}_tries"].value_counts().iter_rows())
    told = {_words(number): count for number, count in tries}
    others = made.filter(pl.col(f"{name}_gate").is_null(), pl.col(f"{name}_captioner") > 0)
    by = sorted(others[f"{name}_captioner"].value_counts().iter_rows())
    return {**told, **{f"by_fallback_{number}": count for number, count in by}}


def _words(tries: int) -> str:
    if tries < 2:
        return "at_once" if tries else "not_asked"
    return "after_1_retry" if tries == 2 else f"after_{tries - 1}_retries"


def _numbers(labels: pl.Series) -> dict[str, int]:
    return dict(sorted(labels.value_counts().iter_rows()))
