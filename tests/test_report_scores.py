"""What the report shows of scores: distributions, pictures nearest to thresholds, clusters; no more is read."""

from pathlib import Path

import polars as pl
import pytest
from audit_inputs import NUM_ROWS, ROWS_PER_PART, pwatermark, write_project

from darkroom import store
from darkroom.config.keep import Criterion, Scorers
from darkroom.report import scores
from darkroom.report.scores import NUM_SHOTS, read_scores
from darkroom.score.pictures import ScoredPictures
from darkroom.scorers.near_duplicate import SPEC as NEAR

KEEP = [
    {"column": "pwatermark", "max": 0.5},
    {"column": "min_side_px", "min": 64},
    {"column": "near_duplicate", "equals": False},
]
PARTS = ["part-00000", "part-00001", "part-00002", "part-r01-00000"]
STORED = NUM_ROWS
# Row -> the row that it looks like.
COPIES = {10: 3, 80: 3, 149: 3, 20: 7, 5: 60}
FUNNEL = {
    "rows": NUM_ROWS,
    "criteria": [
        {"criterion": name, "fails": fails}
        for name, fails in (("download", 0), ("pwatermark", 31), ("min_side_px", 1), ("near_duplicate", 5))
    ],
}


@pytest.fixture
def scored(tmp_path: Path) -> ScoredPictures:
    write_project(tmp_path)
    folder = tmp_path / "results/datasets/demo"
    for files, ending in ((PARTS[:3], ""), (PARTS[3:], "part-r01.")):
        rows = pl.concat(
            [store.read_table(folder / f"download/{name}.parquet", ["uid", "row"]) for name in files]
        )
        of = pl.Series([COPIES.get(row) for row in rows["row"]], dtype=pl.Int64)
        told = rows.with_columns(near_duplicate=of.is_not_null(), near_duplicate_of=of)
        store.write_table(folder / f"score/{ending}near_duplicate.parquet", told, sort_by="row")
    listed = Scorers.model_validate({"size": {}, "perceptual_hash": {}, "near_duplicate": {}})
    keep = [Criterion.model_validate(values) for values in KEEP]
    return ScoredPictures("demo", folder, PARTS[::-1], keep, listed)


def test_columns_of_criteria_are_shown_with_the_pictures_nearest_to_their_thresholds(
    scored: ScoredPictures,
) -> None:
    found = read_scores(scored, FUNNEL)
    assert [card["name"] for card in found["cards"]] == ["pwatermark", "min_side_px", "near_duplicate"]
    assert found["pictures"] == STORED and not found["is_sample"]
    (criterion,) = found["cards"][0]["criteria"]
    assert criterion["fails"] == 31
    kept, dropped = (side["shots"] for side in criterion["sides"])
    values = [value for row in range(NUM_ROWS) if (value := pwatermark(row)) is not None]
    nearest = sorted(v for v in values if v > 0.5)[:NUM_SHOTS]
    assert [shot["value"] for shot in dropped] == [f"{value:.4g}" for value in nearest]
    assert [shot["value"] for shot in kept] == [f"{v:.4g}" for v in sorted(values, reverse=True) if v <= 0.5][
        :NUM_SHOTS
    ]
    chart = found["cards"][0]["chart"]
    (cut,) = chart["cuts"]
    dropped_bars = [bar for bar in chart["bars"] if bar["side"] == "dropped"]
    kept_bars = [bar for bar in chart["bars"] if bar["side"] == "kept"]
    # No bar is on both sides; between two is a pixel.
    assert min(bar["x"] for bar in dropped_bars) >= cut["at"] - 0.1
    assert max(bar["x"] + bar["width"] for bar in kept_bars) <= cut["at"] + 0.1


def test_values_beyond_a_threshold_at_the_end_of_the_axis_lie_beyond_it(scored: ScoredPictures) -> None:
    scored.keep = (Criterion(column="pwatermark", max=0.995),)
    pictures = scored.read([scored.columns()["pwatermark"]])
    pictures = pictures.with_columns(pwatermark=pl.when(pl.col("row") == 1).then(2.0).otherwise(0.5))
    card = scores.score_card(scored, pictures, scored.columns()["pwatermark"])
    (cut,), bars = card["chart"]["cuts"], card["chart"]["bars"]
    (dropped,) = [bar for bar in bars if bar["side"] == "dropped"]
    assert dropped["x"] + dropped["width"] > cut["at"] > max(b["x"] for b in bars if b["side"] == "kept")


def test_the_largest_clusters_begin_with_the_picture_that_is_kept(scored: ScoredPictures) -> None:
    (found,) = read_scores(scored, FUNNEL)["clusters"]
    assert (found["scorer"], found["number"], found["pictures"]) == (NEAR.name, 3, 5)
    told = [[shot["value"] for shot in cluster["shots"]] for cluster in found["shown"]]
    assert told == [["row 3", "row 10", "row 80", "row 149"], ["row 7", "row 20"], ["row 60", "row 5"]]
    assert [cluster["size"] for cluster in found["shown"]] == [4, 2, 2]
    assert [shot["is_kept"] for shot in found["shown"][0]["shots"]] == [True, False, False, False]
    assert all(shot["uri"].startswith("data:image/jpeg") for shot in found["shown"][0]["shots"])


def test_of_a_large_dataset_parts_spread_over_it_are_read_and_only_the_pictures_that_are_shown(
    scored: ScoredPictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "MAX_ROWS", 2 * ROWS_PER_PART)
    read: list[Path] = []
    plain = ScoredPictures.jpeg
    monkeypatch.setattr(
        ScoredPictures, "jpeg", lambda self, part, *span: (read.append(part), plain(self, part, *span))[1]
    )
    found = read_scores(scored, FUNNEL)
    # Of four parts the first, which lacks a picture, and the third.
    assert found["is_sample"] and found["pictures"] == ROWS_PER_PART - 1 + NUM_ROWS - 2 * ROWS_PER_PART
    criteria = [of for card in found["cards"] for of in card["criteria"]]
    shots = [shot for of in criteria for side in of["sides"] for shot in side["shots"]]
    members = [s for group in found["clusters"] for cluster in group["shown"] for s in cluster["shots"]]
    assert len(read) == len(shots) + len(members) <= 2 * NUM_SHOTS * len(KEEP) + len(members)
    assert set(read[: len(shots)]) <= {0, 2}
