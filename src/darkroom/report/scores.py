"""Scores on a page: how they are spread, where the thresholds lie, the pictures nearest to these, and clusters."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.ticker import MaxNLocator
from PIL import Image

from darkroom.config.keep import Criterion
from darkroom.filter.criteria import fails
from darkroom.report import pages
from darkroom.report.inline import jpeg_uri
from darkroom.score.pictures import Column, ScoredPictures
from darkroom.scorers.table import SCORERS

# Rows of a large dataset that its distributions are taken from.
MAX_ROWS = 1_000_000
NUM_SHOTS = 8  # pictures on either side of a threshold, and of a cluster
NUM_CLUSTERS = 6
_NUM_BINS = 60
_NUM_VALUES = 12  # of a text column
_ROOM = 0.04  # beyond a threshold at the end of an axis, of its length
_CLIPPED = 0.005  # share of the values at either end that the bins do not stretch to
_MAX_SIDE_PX = 192
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 210, 56, 740, 50, 182


def read_scores(scored: ScoredPictures, funnel: Mapping[str, Any]) -> dict[str, Any]:
    """Of every column that `keep` names, what the report shows; and clusters of those that look alike.

    Distributions and pictures are those of MAX_ROWS rows at most; what criteria drop is counted by the funnel.

    Args:
        scored: the dataset.
        funnel: the content of funnel.json.
    """
    all_columns = scored.columns()
    columns = [all_columns[name] for name in dict.fromkeys(of.column for of in scored.keep)]
    pictures = scored.read(columns, MAX_ROWS)
    dropped = {step["criterion"]: step["fails"] for step in funnel["criteria"]}
    cards = [score_card(scored, pictures, column) for column in columns]
    for card in cards:
        for of in card["criteria"]:
            of["fails"] = dropped[of["label"]]
    asked = dict.fromkeys(column.scorer for column in columns if column.scorer)
    clusters = [_clusters(scored, name) for name in asked if SCORERS[name].copy_of is not None]
    num_stored = funnel["rows"] - next(step["fails"] for step in funnel["criteria"])
    return {
        "cards": cards,
        "pictures": pictures.height,
        "is_sample": pictures.height < num_stored,
        "clusters": [found for found in clusters if found["number"]],
    }


def score_card(scored: ScoredPictures, pictures: pl.DataFrame, column: Column) -> dict[str, Any]:
    """What a page shows of a column; `pictures` as `ScoredPictures.read` gives them."""
    values = pictures[column.name]
    # What a list holds need not be finite, and has no place on an axis then.
    shown = values.filter(values.is_finite()) if values.dtype.is_float() else values.drop_nulls()
    keep = [criterion for criterion in scored.keep if criterion.column == column.name]
    return {
        "name": column.name,
        "scorer": column.scorer,
        "about": about(column.scorer),
        "known": pictures.height - values.null_count(),
        "unknown": values.null_count(),
        "chart": _histogram(shown, keep) if column.kind == "number" and len(shown) else None,
        "bars": _bars(pictures, column, keep) if column.kind != "number" else [],
        "criteria": [_criterion(scored, pictures, of) for of in keep],
    }


def about(scorer: str) -> str:
    """What a scorer says of a picture, in a sentence; nothing of a column of the list."""
    lines = (SCORERS[scorer].section.__doc__ or "").strip().splitlines() if scorer else []
    return lines[0].replace("`", "") if lines else ""


def picture(scored: ScoredPictures, part: int, offset: int, size: int, max_side_px: int) -> str:
    """A stored picture as a data URI; empty where it cannot be read."""
    try:
        return jpeg_uri(scored.jpeg(part, offset, size), max_side_px)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""


def _clusters(scored: ScoredPictures, scorer: str) -> dict[str, Any]:
    """The largest clusters of pictures that look alike: the one that the others name, then some of these."""
    copy_of = SCORERS[scorer].copy_of
    assert copy_of is not None
    files = scored.score_files(scorer)
    named = pl.scan_parquet(files).select("row", copy_of).filter(pl.col(copy_of).is_not_null()).collect()
    largest = named.group_by(copy_of).len().sort("len", copy_of, descending=[True, False])
    shown = {}
    for first, _ in largest.head(NUM_CLUSTERS).iter_rows():
        others = named.filter(pl.col(copy_of) == first)["row"].sort().head(NUM_SHOTS - 1).to_list()
        shown[first] = [first, *others]
    places = scored.places([row for rows in shown.values() for row in rows]) if shown else pl.DataFrame()
    by_row = {row["row"]: row for row in places.iter_rows(named=True)}
    clusters = [
        {
            "size": 1 + number,
            "shots": [_member(scored, by_row[row], row == first) for row in shown[first] if row in by_row],
        }
        for first, number in largest.head(NUM_CLUSTERS).iter_rows()
    ]
    return {
        "scorer": scorer,
        "number": largest.height,
        "pictures": named.height,
        "shown": clusters,
    }


def _member(scored: ScoredPictures, row: Mapping[str, Any], is_kept: bool) -> dict[str, Any]:
    sides = f"{row['original_width']} \N{MULTIPLICATION SIGN} {row['original_height']}"
    return {
        "uri": picture(scored, row["part"], row["offset"], row["size"], _MAX_SIDE_PX),
        "value": f"row {row['row']}",
        "caption": f"kept, {sides}" if is_kept else sides,
        "is_kept": is_kept,
    }


def _criterion(scored: ScoredPictures, pictures: pl.DataFrame, of: Criterion) -> dict[str, Any]:
    """A criterion in words, what it drops and keeps, and the pictures of either side nearest to its threshold."""
    # A value that is not known is on neither side: there is no distance to it.
    judged = pictures.with_columns(fails=fails(of)).filter(pl.col(of.column).is_not_null())
    bounds = [float(bound) for bound in (of.min, of.max) if bound is not None]
    away = [(pl.col(of.column).cast(pl.Float64) - bound).abs() for bound in bounds]
    # Uids are digests, so the first ones are a random choice where nothing is nearer than the rest.
    near = judged.with_columns(distance=pl.min_horizontal(away) if away else 0.0).sort("distance", "uid")
    sides = {"kept": near.filter(~pl.col("fails")), "dropped": near.filter("fails")}
    fate = "kept" if of.unknown == "keep" else "dropped"
    unknown = pictures.height - judged.height
    return {
        "label": of.label,
        "words": of.words,
        "num_kept": sides["kept"].height,
        "num_dropped": sides["dropped"].height,
        "unknown": f"{unknown:,} without a value are {fate}" if unknown else "",
        "near": "nearest to the threshold" if bounds else "a random few",
        "sides": [{"name": name, "shots": _shots(scored, rows, of.column)} for name, rows in sides.items()],
    }


def _shots(scored: ScoredPictures, rows: pl.DataFrame, column: str) -> list[dict[str, Any]]:
    shown = rows.head(NUM_SHOTS)
    captions = scored.captions(shown)
    return [
        {
            "uri": picture(scored, row["part"], row["offset"], row["size"], _MAX_SIDE_PX),
            "value": _value(row[column]),
            "caption": captions.get(row["uid"], "")[:80],
            "is_kept": False,
        }
        for row in shown.iter_rows(named=True)
    ]


def _axis(values: np.ndarray, bounds: list[float]) -> tuple[float, float, int]:
    """(begin, end, number of bars) of an axis with most values and the thresholds on it, with room beyond a
    threshold at its end where values lie there; no bar lies on both sides of the first threshold."""
    low, high = np.quantile(values, [_CLIPPED, 1 - _CLIPPED]).tolist()
    low, high = min([low, *bounds]), max([high, *bounds])
    if low == high:
        return low - 0.5, high + 0.5, _NUM_BINS
    if not bounds:
        return low, high, _NUM_BINS
    room = _ROOM * (high - low)
    low -= room * (low in bounds and (values < low).any())
    high += room * (high in bounds and (values > high).any())
    wide = (high - low) / _NUM_BINS
    low = bounds[0] - wide * math.ceil((bounds[0] - low) / wide)
    return low, low + wide * (_NUM_BINS + 1), _NUM_BINS + 1


def _histogram(values: pl.Series, keep: list[Criterion]) -> dict[str, Any]:
    """Bars of the values, those that a criterion drops in another colour, with the thresholds as lines.

    Values beyond the ends of the axis are counted in its outermost bars.
    """
    numbers = values.cast(pl.Float64).to_numpy()
    bounds = [(float(b), of) for of in keep for b in (of.min, of.max) if b is not None]
    low, high, num_bins = _axis(numbers, [bound for bound, _ in bounds])
    is_dropped = np.zeros(len(numbers), dtype=bool)
    for of in keep:
        wrong = pl.DataFrame({of.column: values}).select(fails(of)).to_series().fill_null(False)
        is_dropped |= wrong.to_numpy()
    clipped = np.clip(numbers, low, high)
    dropped, begins = np.histogram(clipped[is_dropped], num_bins, (low, high))
    kept, _ = np.histogram(clipped[~is_dropped], num_bins, (low, high))
    most = int((dropped + kept).max())

    def x(value: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low), 1)

    def tall(count: int) -> float:
        # By the root, so that the few pictures at a threshold are seen beside the many elsewhere.
        return round((_BOTTOM - _TOP) * (count / most) ** 0.5, 1)

    bars = []
    for place in np.flatnonzero(dropped + kept).tolist():
        left, whole = x(begins[place]), tall(int(dropped[place] + kept[place]))
        upper = round(whole * float(dropped[place]) / float(dropped[place] + kept[place]), 1)
        wide = round(x(begins[place + 1]) - left - 1, 1)
        parts = (("kept", _BOTTOM - whole + upper, whole - upper), ("dropped", _BOTTOM - whole, upper))
        bars += [
            {"side": side, "x": left, "y": round(y, 1), "width": wide, "height": round(height, 1)}
            for side, y, height in parts
            if height > 0
        ]
    return {
        "width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM,
        "bars": bars,
        "ticks_x": [
            {"at": x(v), "text": pages.short(v)}
            for v in map(float, MaxNLocator(6).tick_values(low, high)) if low <= v <= high
        ],
        "ticks_y": [
            {"at": round(_BOTTOM - tall(n), 1), "text": pages.number(n)} for n in {most // 4, most} - {0}
        ],
        "cuts": [
            {
                "at": x(bound),
                "text": f"{of.label} {pages.short(bound)}",
                "anchor": "end" if x(bound) > 600 else "start",
            }
            for bound, of in bounds
        ],
    }  # fmt: skip


def _bars(pictures: pl.DataFrame, column: Column, keep: list[Criterion]) -> list[dict[str, Any]]:
    """The most frequent values of a text or boolean column; a value that a criterion drops is marked."""
    known = pictures.filter(pl.col(column.name).is_not_null())
    wrong = [fails(of).fill_null(False) for of in keep]
    judged = known.with_columns(fails=pl.any_horizontal(wrong) if wrong else pl.lit(False))
    counts = judged.group_by(column.name).agg(pl.len().alias("number"), pl.col("fails").any())
    shown = counts.sort("number", column.name, descending=[True, False])
    rows = [
        {"value": _value(value), "number": number, "fails": wrong, "share": number / max(known.height, 1)}
        for value, number, wrong in shown.head(_NUM_VALUES).iter_rows()
    ]
    rest = shown[_NUM_VALUES:]["number"].sum()
    more = {"value": f"{shown.height - _NUM_VALUES} more", "number": rest, "fails": False}
    return [*rows, *([{**more, "share": rest / known.height}] if rest else [])]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return pages.short(value) if isinstance(value, int | float) else str(value)[:40]
