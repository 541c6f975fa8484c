"""The filter: criteria apply late and in their order, the unknown is as stated, every row is counted once."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from filter_inputs import KEEP, LABELS, Parts, criteria, gone, sample
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from darkroom import store
from darkroom.config.keep import Criterion
from darkroom.filter import funnel, refuse_empty, write_funnel
from darkroom.filter.criteria import fails


def without(*columns: str) -> tuple[Criterion, ...]:
    return tuple(criterion for criterion in KEEP if criterion.column not in columns)


@pytest.mark.parametrize(
    ("bad", "criterion"),
    [
        (gone(0), "download"),
        (gone(0, status="timeout"), "download"),
        (sample(0, pwatermark=0.51), "pwatermark"),
        (sample(0, punsafe=1.0), "punsafe"),
        (sample(0, width=63), "min_side_px"),
        (sample(0, width=96, height=289), "aspect_ratio"),
        (sample(0, width=289, height=96), "aspect_ratio"),
    ],
)
def test_each_criterion_drops_what_fails_it_and_nothing_else(
    tmp_path: Path, bad: dict[str, Any], criterion: str
) -> None:
    selection = Parts(tmp_path, [bad, sample(1)]).select()
    assert selection["first_failure"].to_list() == [criterion, None]
    assert selection["kept"].to_list() == [False, True]
    for name in LABELS:
        assert selection[f"fails_{name}"].to_list() == [name == criterion, False]


def test_a_value_on_the_threshold_is_kept(tmp_path: Path) -> None:
    edge = sample(0, pwatermark=0.5, punsafe=0.5, width=64, height=192)
    assert Parts(tmp_path, [edge]).select()["kept"].to_list() == [True]


def test_the_first_failing_criterion_is_named_and_the_others_are_told(tmp_path: Path) -> None:
    rows = [
        sample(0, pwatermark=0.9, punsafe=0.9, width=10, height=100),
        gone(1, punsafe=0.9),
        sample(2, width=10, height=100),
    ]
    selection = Parts(tmp_path, rows).select()
    assert selection["first_failure"].to_list() == ["pwatermark", "download", "min_side_px"]
    assert selection["fails_punsafe"].to_list() == [True, True, False]
    assert selection["fails_aspect_ratio"].to_list() == [True, False, True]


def test_the_funnel_adds_up_to_the_list(tmp_path: Path) -> None:
    first = [sample(0), gone(1), gone(2, status="timeout", pwatermark=0.9), sample(3, pwatermark=0.9)]
    second = [sample(4, pwatermark=0.9, punsafe=0.9), sample(5, width=8, height=90), sample(6)]
    parts = Parts(tmp_path, first, second)
    parts.select()
    counted = funnel(parts.selections[::-1], KEEP)
    assert (counted["rows"], counted["kept"]) == (7, 2)
    steps = {step["criterion"]: step for step in counted["criteria"]}
    assert list(steps) == list(LABELS)
    assert steps["download"] == {"criterion": "download", "first_failure": 2, "fails": 2, "remaining": 5}
    assert steps["pwatermark"] == {"criterion": "pwatermark", "first_failure": 2, "fails": 3, "remaining": 3}
    assert steps["punsafe"]["first_failure"] == 0
    joint = {tuple(pair["criteria"]): pair["fails"] for pair in counted["joint"]}
    assert len(joint) == 15
    assert {pair: n for pair, n in joint.items() if n} == {
        ("download", "pwatermark"): 1,
        ("pwatermark", "punsafe"): 1,
        ("min_side_px", "aspect_ratio"): 1,
    }
    assert counted["status"] == {"http_404": 1, "ok": 5, "timeout": 1}
    assert parts.counts["select 1"] == {
        "rows": 3,
        "kept": 1,
        "dropped": {**dict.fromkeys(LABELS, 0), "pwatermark": 1, "min_side_px": 1},
        "kept_unknown": dict.fromkeys(LABELS[1:], 0),
    }


def test_the_funnel_is_written_as_json_and_as_a_table_for_plots(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0), gone(1)])
    parts.select()
    write_funnel(funnel(parts.selections, KEEP), tmp_path / "funnel.json", tmp_path / "funnel.csv")
    assert json.loads((tmp_path / "funnel.json").read_text())["kept"] == 1
    lines = (tmp_path / "funnel.csv").read_text().splitlines()
    assert lines[:3] == ["criterion,first_failure,fails,remaining", "list,0,0,2", "download,1,1,1"]
    assert len(lines) == 2 + len(LABELS)


def test_rows_that_are_missing_or_counted_twice_are_an_error(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0), sample(1)], [sample(2)], [sample(3)])
    parts.select()
    with pytest.raises(ValueError, match="row 2 is in no part"):
        funnel([parts.selections[0], parts.selections[2]], KEEP)
    with pytest.raises(ValueError, match="row 2 is in two parts"):
        funnel([*parts.selections, parts.selections[1]], KEEP)
    with pytest.raises(ValueError, match="no selections"):
        funnel([], KEEP)


def test_an_unknown_score_is_kept_and_counted_while_its_criterion_is_in_force(tmp_path: Path) -> None:
    rows = [
        sample(0, pwatermark=None),
        sample(1, pwatermark=None, punsafe=0.9),
        gone(2, pwatermark=None),
        sample(3),
    ]
    parts = Parts(tmp_path, rows)
    assert parts.select()["kept"].to_list() == [True, False, False, True]
    assert parts.counts["select 0"]["kept_unknown"] == {**dict.fromkeys(LABELS[1:], 0), "pwatermark": 1}
    assert funnel(parts.selections, KEEP)["unknown"]["pwatermark"] == {"rows": 2, "kept": 1}
    parts.select(without("pwatermark"))
    assert "pwatermark" not in funnel(parts.selections, without("pwatermark"))["unknown"]


def test_a_criterion_may_drop_the_unknown_and_then_says_so(tmp_path: Path) -> None:
    strict = criteria({"column": "pwatermark", "max": 0.5, "unknown": "drop"})
    parts = Parts(tmp_path, [sample(0, pwatermark=None), gone(1, pwatermark=None), sample(2)])
    selection = parts.select(strict)
    assert selection["first_failure"].to_list() == ["pwatermark", "download", None]
    # Of a row without a picture, what is not known fails nothing.
    assert selection["fails_pwatermark"].to_list() == [True, False, False]
    assert funnel(parts.selections, strict)["unknown"] == {"pwatermark": {"rows": 1, "kept": 0}}


def test_the_order_of_the_criteria_is_the_funnels_and_changes_nothing_else(tmp_path: Path) -> None:
    rows = [sample(0, pwatermark=0.9, punsafe=0.9), sample(1, punsafe=0.9), sample(2, width=8), sample(3)]
    parts = Parts(tmp_path, rows)
    forwards, backwards = parts.select(), parts.select(KEEP[::-1])
    assert forwards["first_failure"].to_list() == ["pwatermark", "punsafe", "min_side_px", None]
    assert backwards["first_failure"].to_list() == ["punsafe", "punsafe", "aspect_ratio", None]
    assert forwards["kept"].equals(backwards["kept"])
    steps = funnel(parts.selections, KEEP[::-1])["criteria"]
    assert [step["criterion"] for step in steps] == ["download", *LABELS[:0:-1]]


def test_a_column_may_be_named_twice_under_two_names(tmp_path: Path) -> None:
    both = criteria(
        {"column": "min_side_px", "min": 64}, {"column": "min_side_px", "max": 128, "name": "too_large"}
    )
    rows = [sample(0, width=8), sample(1, width=900, height=900), sample(2)]
    assert Parts(tmp_path, rows).select(both)["first_failure"].to_list() == ["min_side_px", "too_large", None]


def test_no_criteria_keep_every_picture(tmp_path: Path) -> None:
    rows = [sample(0, pwatermark=1.0, width=1), gone(1), sample(2, sha256=f"{0:064x}")]
    assert Parts(tmp_path, rows).select(())["kept"].to_list() == [True, False, True]


def test_a_copy_stays_one_although_its_original_is_dropped(tmp_path: Path) -> None:
    rows = [sample(0, sha256="1" * 64, pwatermark=1.0), sample(1, sha256="1" * 64)]
    assert Parts(tmp_path, rows).select()["first_failure"].to_list() == ["pwatermark", "duplicate"]


def test_a_threshold_changes_the_selection_and_neither_scores_nor_duplicates(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(i, pwatermark=i / 10) for i in range(10)])
    before = [path.read_bytes() for path in (*parts.scores, parts.duplicates)]
    assert parts.select()["kept"].sum() == 6
    assert parts.select(criteria({"column": "pwatermark", "max": 0.2}))["kept"].sum() == 3
    assert [path.read_bytes() for path in (*parts.scores, parts.duplicates)] == before


def test_any_column_of_the_list_or_of_the_download_can_be_named(tmp_path: Path) -> None:
    carried = {"Language": pl.String, "nsfw": pl.Boolean, "LIKES": pl.UInt8, "score": pl.Float32}
    rows = [
        sample(0, Language="en", nsfw=False, LIKES=200, score=0.1),
        sample(1, Language="fr", nsfw=False, LIKES=200, score=0.1),
        sample(2, Language="de", nsfw=True, LIKES=200, score=0.1),
        sample(3, Language="de", nsfw=False, LIKES=3, score=0.1),
        sample(4, Language="de", nsfw=False, LIKES=200, score=0.11),
        sample(5, Language="de", nsfw=False, LIKES=200, score=0.1, url="http://bad.example/5"),
        sample(6, Language=None, nsfw=None, LIKES=None, score=None, caption=None),
    ]
    rows = [{k: v for k, v in row.items() if k not in ("pwatermark", "punsafe")} for row in rows]
    keep = criteria(
        {"column": "Language", "in": ["en", "de"]},
        {"column": "nsfw", "equals": False},
        {"column": "LIKES", "min": 10},
        {"column": "score", "max": 0.1},
        {"column": "url", "matches": "^http://a[.]"},
        {"column": "num_bytes", "not_in": [0, 1]},
    )
    selection = Parts(tmp_path, rows, carried=carried).select(keep)
    assert selection["first_failure"].to_list() == [None, "Language", "nsfw", "LIKES", "score", "url", None]


def test_a_filter_that_keeps_nothing_fails_and_names_the_criterion_that_dropped_the_last(
    tmp_path: Path,
) -> None:
    parts = Parts(tmp_path, [gone(0), sample(1, width=8), sample(2, width=9), sample(3, pwatermark=0.9)])
    parts.select()
    told = (
        "nothing is kept of 4 rows; the last 2 fell to 'min_side_px' (min_side_px is below 64); dropped by each:"
        " download 1, pwatermark 1, min_side_px 2"
    )
    with pytest.raises(ValueError, match=re.escape(told)):
        refuse_empty(funnel(parts.selections, KEEP))
    parts.select(())
    refuse_empty(funnel(parts.selections, ()))


def test_a_selection_of_other_criteria_and_tables_of_other_rows_are_clear_errors(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0), sample(1)])
    parts.select(without("punsafe"))
    with pytest.raises(ValueError, match=r"selection.parquet: no column 'fails_punsafe'; it has uid"):
        funnel(parts.selections, KEEP)
    with pytest.raises(ValueError, match=r"part-00000.parquet: no column 'similarity'; it has row"):
        parts.select(criteria({"column": "similarity", "min": 0.3}))
    with pytest.raises(ValueError, match="column 'caption' holds String, and keep compares it with 3"):
        parts.select(criteria({"column": "caption", "min": 3}))
    store.write_table(parts.scores[0], store.read_table(parts.scores[0]).head(1))
    with pytest.raises(ValueError, match=r"size.parquet: lacks 1 rows of .*run `snakemake score`"):
        parts.select()


def test_an_empty_part_is_an_empty_selection(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0)], [])
    assert parts.select().height == 1
    assert store.read_table(parts.selections[1]).schema == store.read_table(parts.selections[0]).schema
    assert funnel(parts.selections, KEEP)["rows"] == 1


# Criteria against plain Python

_numbers = st.integers(-3, 3) | st.floats(-3, 3, width=32)
_words = st.sampled_from(["", "a", "ab", "b", "Ab", "é"])


def _comparisons(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    lists = st.lists(values, min_size=1, max_size=3)
    named = {"equals": values, "in": lists, "not_in": lists}
    return st.one_of(*(st.fixed_dictionaries({name: each}) for name, each in named.items()))


_ranges = st.tuples(_numbers, _numbers).map(sorted).map(lambda pair: {"min": pair[0], "max": pair[1]})
_bounds = st.one_of(
    _ranges, st.builds(lambda n: {"min": n}, _numbers), st.builds(lambda n: {"max": n}, _numbers)
)
_cases = st.one_of(
    st.tuples(_comparisons(_numbers) | _bounds, st.lists(st.none() | st.integers(-3, 3)), st.just(pl.Int8)),
    st.tuples(
        _comparisons(_numbers) | _bounds,
        st.lists(st.none() | st.floats(-3, 3, width=32)),
        st.just(pl.Float32),
    ),
    st.tuples(_comparisons(_numbers) | _bounds, st.lists(st.none() | st.floats(-3, 3)), st.just(pl.Float64)),
    st.tuples(
        _comparisons(_words) | st.sampled_from([{"matches": "a"}, {"matches": "^b$"}]),
        st.lists(st.none() | _words),
        st.just(pl.String),
    ),
    st.tuples(_comparisons(st.booleans()), st.lists(st.none() | st.booleans()), st.just(pl.Boolean)),
)


def fails_in_python(comparison: dict[str, Any], value: Any) -> bool | None:
    if value is None:
        return None
    holds = {
        "min": lambda wanted: value >= wanted,
        "max": lambda wanted: value <= wanted,
        "equals": lambda wanted: value == wanted,
        "in": lambda wanted: value in wanted,
        "not_in": lambda wanted: value not in wanted,
        "matches": lambda wanted: re.search(wanted, value) is not None,
    }
    return not all(holds[name](wanted) for name, wanted in comparison.items())


@hypothesis_settings(max_examples=300, deadline=None)
@given(_cases)
def test_a_criterion_is_what_plain_python_makes_of_it(case: tuple[dict[str, Any], list[Any], Any]) -> None:
    comparison, values, dtype = case
    (criterion,) = criteria({"column": "x", **comparison})
    found = pl.DataFrame({"x": pl.Series(values, dtype=dtype)}).select(fails(criterion)).to_series()
    assert found.to_list() == [fails_in_python(comparison, value) for value in values]
    assert Criterion.model_validate(criterion.model_dump(mode="json")) == criterion


_score = st.none() | st.sampled_from([0.0, 0.5, 0.7, 1.0])
_rows = st.tuples(
    st.sampled_from(["ok", "ok", "ok", "http_404"]), _score, _score, st.integers(1, 200), st.integers(0, 3)
)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(_rows, min_size=1, max_size=30), st.integers(0, 30), st.permutations(KEEP))
def test_whatever_the_scores_every_row_has_one_fate(
    tmp_path: Path, drawn: list[tuple[Any, ...]], cut: int, keep: list[Criterion]
) -> None:
    samples = []
    for i, (status, pwatermark, punsafe, width, digest) in enumerate(drawn):
        known = {"pwatermark": pwatermark, "punsafe": punsafe}
        bytes_of = f"{digest or i + 10:064x}"
        samples.append(
            sample(i, width=width, sha256=bytes_of, **known) if status == "ok" else gone(i, status, **known)
        )
    parts = Parts(tmp_path, samples[:cut], samples[cut:])
    selection = parts.select(keep)
    counted = funnel(parts.selections, keep)
    assert selection["row"].to_list() == list(range(len(drawn)))
    assert counted["kept"] + sum(step["first_failure"] for step in counted["criteria"]) == len(drawn)
    assert sum(counted["status"].values()) == len(drawn)
    remaining = [len(drawn), *(step["remaining"] for step in counted["criteria"])]
    assert all(
        a - b == s["first_failure"]
        for (a, b), s in zip(pairwise(remaining), counted["criteria"], strict=True)
    )
    for row in selection.iter_rows(named=True):
        failing = [name for name in ("download", *(c.label for c in keep)) if row[f"fails_{name}"]]
        assert row["first_failure"] == (failing[0] if failing else None)
        assert row["kept"] == (not failing)
