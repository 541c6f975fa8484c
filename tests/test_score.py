"""Scores: every row has its values, a scorer keeps to what it says, and numbers that are none are counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from filter_inputs import Parts, gone, sample

from darkroom import score, store
from darkroom.config.dataset import Dataset
from darkroom.scorers.base import Part
from darkroom.scorers.table import SCORERS


def test_sizes_are_of_the_stored_picture_and_unknown_without_one(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0, width=300, height=100), gone(1), sample(2)])
    scores = store.read_table(parts.scores[0]).sort("row")
    assert scores.columns == ["uid", "row", "min_side_px", "aspect_ratio"]
    assert scores["min_side_px"].to_list() == [100, None, 96]
    assert scores["aspect_ratio"].to_list() == [3.0, None, pytest.approx(128 / 96)]
    assert parts.counts["score 0"] == {"size": {"rows": 3}}


def test_the_smallest_row_is_the_original_of_identical_bytes_over_all_parts(tmp_path: Path) -> None:
    one, two = "1" * 64, "2" * 64
    first = [sample(0), sample(1, sha256=one), sample(2, sha256=two)]
    second = [
        sample(3, sha256=one),
        sample(4, sha256=two),
        sample(5, sha256=one),
        gone(6),
        sample(7, status="not_an_image", sha256=one, width=None, height=None),
    ]
    # A refused body with the same bytes, before all of them, is nobody's original.
    parts = Parts(tmp_path, second, [sample(8, status="not_an_image", sha256=two), *first])
    copies = store.read_table(parts.duplicates)
    assert copies["row"].to_list() == list(range(9))
    assert copies["first_row"].to_list() == [None, None, None, 1, 2, 1, None, None, None]
    assert copies["duplicate"].to_list() == [False] * 3 + [True] * 3 + [None] * 3
    assert copies.filter("duplicate")["uid"].to_list() == [second[i]["uid"] for i in (0, 1, 2)]


def test_a_scorer_that_gives_other_columns_or_rows_than_it_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, size = Parts(tmp_path, [sample(0), sample(1)]), SCORERS["size"]
    for wrong in (lambda table: table.rename({"aspect_ratio": "ratio"}), lambda table: table.head(1)):
        spec = replace(size, score=lambda options, part, wrong=wrong: wrong(size.score(options, part)))
        monkeypatch.setitem(SCORERS, "size", spec)
        with pytest.raises(ValueError, match=r"the scorer size gives [12] rows of .*; it should give 2 of"):
            score.score_part("size", {}, parts.tables[0], None, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_values_that_are_not_finite_are_null_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wild(options: object, part: object) -> pl.DataFrame:
        made = SCORERS_SIZE.score(options, part)
        return made.with_columns(aspect_ratio=pl.Series([float("nan"), float("-inf"), 1.0]))

    SCORERS_SIZE = SCORERS["size"]
    parts = Parts(tmp_path, [sample(0), sample(1), sample(2)])
    monkeypatch.setitem(SCORERS, "size", replace(SCORERS_SIZE, score=wild))
    counts = score.score_part("size", {}, parts.tables[0], None, tmp_path / "out.parquet").counts
    assert counts == {"size": {"rows": 3, "unknown": {"aspect_ratio": 2}, "not_finite": {"aspect_ratio": 2}}}
    assert store.read_table(tmp_path / "out.parquet")["aspect_ratio"].null_count() == 2


def test_a_table_without_a_column_that_a_scorer_needs_is_a_clear_error(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0)])
    store.write_table(parts.tables[0], store.read_table(parts.tables[0]).drop("width"))
    with pytest.raises(ValueError, match=r"part-00000.parquet: no column 'width'; it has row"):
        score.score_part("size", {}, parts.tables[0], None, tmp_path / "out.parquet")


def test_an_empty_part_has_an_empty_file_with_the_same_columns(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0)], [])
    assert store.read_table(parts.scores[1]).schema == store.read_table(parts.scores[0]).schema
    assert store.read_table(parts.duplicates).height == 1


def test_files_that_a_scorer_made_with_other_options_are_not_gathered(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0)], [sample(1)])
    manifests = []
    for scores, digest in zip([*parts.scores, parts.duplicates], "sod", strict=True):
        manifests.append(scores.with_suffix(".json"))
        store.write_part_manifest(manifests[-1], [scores], {"size": {"rows": 1}}, digest)
    with pytest.raises(ValueError, match=r"part-00001.size.json: made with other options than size has now"):
        score.gather(tmp_path / "manifest.json", manifests, {"size": "s", "duplicate": "d"}, {}, {})
    store.write_part_manifest(manifests[1], [parts.scores[1]], {"size": {"rows": 1}}, "s")
    body = score.gather(tmp_path / "manifest.json", manifests, {"size": "s", "duplicate": "d"}, {}, {})
    assert body["counts"] == {"size": {"rows": 3}}
    assert set(body["files"]) == {path.name for path in (*manifests, *parts.scores, parts.duplicates)}
    assert store.check_stage(tmp_path / "manifest.json").absent == []


def test_parts_that_unlike_models_judged_are_not_gathered(tmp_path: Path) -> None:
    parts = Parts(tmp_path, [sample(0)], [sample(1)])
    manifests = [scores.with_suffix(".json") for scores in parts.scores]

    def judged(*models: str) -> None:
        for path, scores, sha256 in zip(manifests, parts.scores, models, strict=True):
            store.write_part_manifest(path, [scores], {}, "s", {"clip": {"sha256": sha256, "side_px": 64}})

    judged("one", "one")
    body = score.gather(tmp_path / "manifest.json", manifests, {"size": "s"}, {}, {})
    assert body["judges"] == {"size": {"clip": {"sha256": "one", "side_px": 64}}}
    assert store.check_stage(tmp_path / "manifest.json").body == body
    judged("one", "two")
    match = r"part-00001.size.json: size judged .*part-00000.size.json \(clip.sha256 was 'one' and is 'two'\)"
    with pytest.raises(ValueError, match=match):
        score.gather(tmp_path / "manifest.json", manifests, {"size": "s"}, {}, {})


def longest_of_parts(options: object, part: Part) -> pl.DataFrame:
    """`first_row`: of all pictures up to the end of a row's part, the one with the longest short side."""
    ends = np.repeat(np.cumsum(part.lengths), part.lengths)
    longest = [part.rows[:end].sort("min_side_px", "row")["row"][-1] for end in ends]
    schema = {"duplicate": pl.Boolean, "first_row": pl.Int64}
    return pl.DataFrame({"duplicate": [None] * len(ends), "first_row": longest}, schema)


def test_a_scorer_that_comes_after_another_sees_its_columns_and_which_rows_are_of_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [sample(0, width=70), sample(1, width=80), gone(2)]
    parts = Parts(tmp_path, first, [sample(3, width=75)], [sample(4, width=90)])
    spec = replace(SCORERS["duplicate"], after=("size",), score=longest_of_parts)
    monkeypatch.setitem(SCORERS, "duplicate", spec)
    out = tmp_path / "out.parquet"
    score.score_dataset("duplicate", {}, parts.tables, out, scores=parts.scores[::-1])
    assert store.read_table(out)["first_row"].to_list() == [1, 1, 1, 1, 4]
    # Of a round of retries its own rows are told, with those before them in sight.
    score.score_dataset("duplicate", {}, parts.tables[1:2], out, parts.tables[:1], parts.scores)
    assert store.read_table(out).select("row", "first_row").rows() == [(3, 1)]
    with pytest.raises(ValueError, match=r"duplicate comes after size; give part-00002.size.parquet too"):
        score.score_dataset("duplicate", {}, parts.tables, out, scores=parts.scores[:2])
    store.write_table(parts.scores[0], store.read_table(parts.scores[0]).filter(pl.col("row") != 1))
    with pytest.raises(ValueError, match=r"part-00000.size.parquet: lacks 1 rows of .*part-00000.parquet"):
        score.score_dataset("duplicate", {}, parts.tables, out, scores=parts.scores)


def test_a_scorer_is_refused_without_the_one_that_it_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORERS, "duplicate", replace(SCORERS["duplicate"], after=("size",)))
    values = {"description": "x", "source": {"kind": "list", "path": "list.parquet"}, "recaption": None}
    Dataset.model_validate({**values, "scorers": {"duplicate": {}, "size": {}}, "keep": []})
    with pytest.raises(ValueError, match="duplicate works on what size says; list size too"):
        Dataset.model_validate({**values, "scorers": {"duplicate": {}}, "keep": []})
