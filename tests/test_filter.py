"""The filter: thresholds apply late, the unknown is kept and counted, and every row is counted once."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from darkroom import store
from darkroom.config.dataset import Filter
from darkroom.download.writer import SCHEMA
from darkroom.filter import CRITERIA, find_duplicates, funnel, score_part, select_part, write_funnel

LIMITS = Filter(max_pwatermark=0.5, max_punsafe=0.5, min_side_px=64, max_aspect_ratio=3.0)


def sample(row: int, **changes: Any) -> dict[str, Any]:
    """A row of a download table that passes everything."""
    good = {
        "row": row,
        "uid": f"{(row * 7919) % 100_003:032x}",  # sorted by uid is not sorted by row
        "url": f"http://a.example/{row}",
        "caption": "a picture",
        "similarity": 0.3,
        "pwatermark": 0.1,
        "punsafe": 0.1,
        "status": "ok",
        "sha256": f"{row:064x}",
        "num_bytes": 100,
        "width": 128,
        "height": 96,
    }
    return {**dict.fromkeys(SCHEMA), **good, **changes}


def gone(row: int, status: str = "http_404", **changes: Any) -> dict[str, Any]:
    return sample(row, status=status, error="no", sha256=None, width=None, height=None, **changes)


class Parts:
    """The filter stage over parts of samples, in a folder."""

    def __init__(self, folder: Path, *parts: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.counts: dict[str, Any] = {}
        self.scores, self.selections = [], []
        self.duplicates = folder / "duplicates.parquet"
        for i, samples in enumerate(parts):
            name = store.part_name(i)
            store.write_table(folder / f"{name}.parquet", pl.DataFrame(samples, schema=SCHEMA, orient="row"))
            self.scores.append(folder / f"{name}.scores.parquet")
            self.selections.append(folder / f"{name}.selection.parquet")
            self.counts[f"score {i}"] = score_part(folder / f"{name}.parquet", self.scores[-1])
        self.counts["duplicates"] = find_duplicates(self.scores, self.duplicates)

    def select(self, limits: Filter = LIMITS) -> pl.DataFrame:
        """All parts' selections in the order of the list."""
        for i, (scores, selection) in enumerate(zip(self.scores, self.selections, strict=True)):
            self.counts[f"select {i}"] = select_part(scores, self.duplicates, limits, selection)
        return pl.concat([store.read_table(selection) for selection in self.selections]).sort("row")


def test_scores_hold_every_row_and_what_can_be_known_of_it(tmp_path: Path) -> None:
    rows = [sample(0, width=300, height=100), gone(1, punsafe=None), sample(2, pwatermark=None)]
    parts = Parts(tmp_path, rows)
    scores = store.read_table(parts.scores[0]).sort("row")
    assert scores.columns == [
        "uid", "row", "status", "pwatermark", "punsafe", "min_side_px", "aspect_ratio", "sha256",
    ]  # fmt: skip
    assert scores["min_side_px"].to_list() == [100, None, 96]
    assert scores["aspect_ratio"].to_list() == [3.0, None, pytest.approx(128 / 96)]
    assert parts.counts["score 0"] == {"rows": 3, "unknown": {"pwatermark": 1, "punsafe": 0}}


@pytest.mark.parametrize(
    ("bad", "criterion"),
    [
        (gone(0), "download"),
        (gone(0, status="timeout"), "download"),
        (sample(0, pwatermark=0.51), "pwatermark"),
        (sample(0, punsafe=1.0), "punsafe"),
        (sample(0, width=63), "min_side_px"),
        (sample(0, width=96, height=289), "max_aspect_ratio"),
        (sample(0, width=289, height=96), "max_aspect_ratio"),
    ],
)
def test_each_criterion_drops_what_fails_it_and_nothing_else(
    tmp_path: Path, bad: dict[str, Any], criterion: str
) -> None:
    selection = Parts(tmp_path, [bad, sample(1)]).select()
    assert selection["first_failure"].to_list() == [criterion, None]
    assert selection["kept"].to_list() == [False, True]
    for name in CRITERIA:
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
    assert selection["fails_max_aspect_ratio"].to_list() == [True, False, True]


def test_an_unknown_score_is_kept_and_counted_while_its_criterion_is_in_force(tmp_path: Path) -> None:
    rows = [
        sample(0, pwatermark=None),
        sample(1, pwatermark=None, punsafe=0.9),
        gone(2, pwatermark=None),
        sample(3),
    ]
    parts = Parts(tmp_path, rows)
    selection = parts.select()
    assert selection["kept"].to_list() == [True, False, False, True]
    assert parts.counts["select 0"]["kept_unknown"] == {"pwatermark": 1, "punsafe": 0}
    assert funnel(parts.selections)["unknown"]["pwatermark"] == {"rows": 2, "kept": 1}
    parts.select(LIMITS.model_copy(update={"max_pwatermark": None}))
    assert funnel(parts.selections)["unknown"]["pwatermark"] == {"rows": 0, "kept": 0}


def test_a_criterion_can_be_switched_off(tmp_path: Path) -> None:
    rows = [sample(0, pwatermark=1.0, punsafe=1.0), sample(1, sha256="a" * 64), sample(2, sha256="a" * 64)]
    off = LIMITS.model_copy(update={"max_pwatermark": None, "max_punsafe": None, "drop_duplicates": False})
    assert Parts(tmp_path, rows).select(off)["kept"].all()


def test_the_smallest_row_is_the_original_of_identical_bytes_over_all_parts(tmp_path: Path) -> None:
    one, two = "1" * 64, "2" * 64
    first = [sample(0), sample(1, sha256=one), sample(2, sha256=two, pwatermark=1.0)]
    second = [
        sample(3, sha256=one),
        sample(4, sha256=two),
        sample(5, sha256=one),
        gone(6),
        sample(7, status="not_an_image", sha256=one, width=None, height=None),
    ]
    parts = Parts(tmp_path, first, second)
    copies = store.read_table(parts.duplicates)
    assert copies.select("row", "first_row").rows() == [(3, 1), (4, 2), (5, 1)]
    assert copies["uid"].to_list() == [second[i]["uid"] for i in (0, 1, 2)]
    assert parts.counts["duplicates"] == {"rows": 8, "copies": 3, "copied": 2}
    selection = parts.select()
    # Row 4 stays a copy although its original falls to another criterion.
    assert selection["fails_duplicate"].to_list() == [False] * 3 + [True] * 3 + [False] * 2


def test_a_threshold_changes_the_selection_and_neither_scores_nor_duplicates(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(i, pwatermark=i / 10) for i in range(10)])
    before = [path.read_bytes() for path in (*parts.scores, parts.duplicates)]
    assert parts.select()["kept"].sum() == 6
    assert parts.select(LIMITS.model_copy(update={"max_pwatermark": 0.2}))["kept"].sum() == 3
    assert [path.read_bytes() for path in (*parts.scores, parts.duplicates)] == before


def test_the_funnel_adds_up_to_the_list(tmp_path: Path) -> None:
    first = [sample(0), gone(1), gone(2, status="timeout", pwatermark=0.9), sample(3, pwatermark=0.9)]
    second = [sample(4, pwatermark=0.9, punsafe=0.9), sample(5, width=8, height=90), sample(6)]
    parts = Parts(tmp_path, first, second)
    parts.select()
    counted = funnel(parts.selections[::-1])
    assert (counted["rows"], counted["kept"]) == (7, 2)
    steps = {step["criterion"]: step for step in counted["criteria"]}
    assert list(steps) == list(CRITERIA)
    assert steps["download"] == {"criterion": "download", "first_failure": 2, "fails": 2, "remaining": 5}
    assert steps["pwatermark"] == {"criterion": "pwatermark", "first_failure": 2, "fails": 3, "remaining": 3}
    assert steps["punsafe"]["first_failure"] == 0
    joint = {tuple(pair["criteria"]): pair["fails"] for pair in counted["joint"]}
    assert len(joint) == 15
    assert {pair: n for pair, n in joint.items() if n} == {
        ("download", "pwatermark"): 1,
        ("pwatermark", "punsafe"): 1,
        ("min_side_px", "max_aspect_ratio"): 1,
    }
    assert counted["status"] == {"http_404": 1, "ok": 5, "timeout": 1}
    assert parts.counts["select 1"] == {
        "rows": 3,
        "kept": 1,
        "dropped": {**dict.fromkeys(CRITERIA, 0), "pwatermark": 1, "min_side_px": 1},
        "kept_unknown": {"pwatermark": 0, "punsafe": 0},
    }


def test_the_funnel_is_written_as_json_and_as_a_table_for_plots(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0), gone(1)])
    parts.select()
    write_funnel(funnel(parts.selections), tmp_path / "funnel.json", tmp_path / "funnel.csv")
    assert json.loads((tmp_path / "funnel.json").read_text())["kept"] == 1
    lines = (tmp_path / "funnel.csv").read_text().splitlines()
    assert lines[:3] == ["criterion,first_failure,fails,remaining", "list,0,0,2", "download,1,1,1"]
    assert len(lines) == 2 + len(CRITERIA)


def test_rows_that_are_missing_or_counted_twice_are_an_error(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0), sample(1)], [sample(2)], [sample(3)])
    parts.select()
    with pytest.raises(ValueError, match="row 2 is in no part"):
        funnel([parts.selections[0], parts.selections[2]])
    with pytest.raises(ValueError, match="row 2 is in two parts"):
        funnel([*parts.selections, parts.selections[1]])
    with pytest.raises(ValueError, match="no selections"):
        funnel([])


def test_a_table_without_a_column_is_a_clear_error(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0)])
    store.write_table(parts.scores[0], store.read_table(parts.scores[0]).drop("punsafe"))
    with pytest.raises(ValueError, match=r"part-00000.scores.parquet: no column 'punsafe'; it has uid"):
        parts.select()


def test_an_empty_part_is_an_empty_selection(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0)], [])
    assert parts.select().height == 1
    assert store.read_table(parts.selections[1]).schema == store.read_table(parts.selections[0]).schema
    assert funnel(parts.selections)["rows"] == 1


_score = st.none() | st.sampled_from([0.0, 0.5, 0.7, 1.0])
_rows = st.tuples(
    st.sampled_from(["ok", "ok", "ok", "http_404"]), _score, _score, st.integers(1, 200), st.integers(0, 3)
)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(_rows, min_size=1, max_size=30), st.integers(0, 30), st.booleans())
def test_whatever_the_scores_every_row_has_one_fate(
    tmp_path: Path, drawn: list[tuple[Any, ...]], cut: int, drop_duplicates: bool
) -> None:
    samples = []
    for i, (status, pwatermark, punsafe, width, digest) in enumerate(drawn):
        known = {"pwatermark": pwatermark, "punsafe": punsafe}
        bytes_of = f"{digest or i + 10:064x}"
        samples.append(
            sample(i, width=width, sha256=bytes_of, **known) if status == "ok" else gone(i, status, **known)
        )
    parts = Parts(tmp_path, samples[:cut], samples[cut:])
    selection = parts.select(LIMITS.model_copy(update={"drop_duplicates": drop_duplicates}))
    counted = funnel(parts.selections)
    assert selection["row"].to_list() == list(range(len(drawn)))
    assert counted["kept"] + sum(step["first_failure"] for step in counted["criteria"]) == len(drawn)
    assert sum(counted["status"].values()) == len(drawn)
    remaining = [len(drawn), *(step["remaining"] for step in counted["criteria"])]
    assert all(
        a - b == s["first_failure"]
        for (a, b), s in zip(pairwise(remaining), counted["criteria"], strict=True)
    )
    for row in selection.iter_rows(named=True):
        failing = [name for name in CRITERIA if row[f"fails_{name}"]]
        assert row["first_failure"] == (failing[0] if failing else None)
        assert row["kept"] == (not failing)
