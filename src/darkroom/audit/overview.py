"""A page of all scores: how they are spread, where the thresholds lie, and the pictures nearest to these."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darkroom.audit.label_page import about, picture
from darkroom.audit.pages import render, short
from darkroom.audit.scored import Column, Scored
from darkroom.config.keep import Criterion
from darkroom.filter.criteria import fails
from darkroom.store import replacing

_NUM_BINS = 60
_NUM_SHOTS = 6  # pictures on either side of a threshold
_NUM_VALUES = 12  # of a text column
_CLIPPED = 0.005  # share of the values at either end that the bins do not stretch to
_MAX_SIDE_PX = 192
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 210, 56, 740, 50, 182


def write_overview(scored: Scored, out: Path) -> list[str]:
    """Write the page, and return a line a column: how many pictures have a value, and what its criterion drops.

    Each criterion is judged by itself, whatever the others say; the filter's funnel has them together.
    """
    columns = list(scored.columns().values())
    pictures = scored.read(columns)
    cards = [_card(scored, pictures, column) for column in columns]
    page = render("overview.html", dataset=scored.name, pictures=pictures.height, cards=cards)
    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8")
    return [line for card in cards for line in card["lines"]]


def _card(scored: Scored, pictures: pl.DataFrame, column: Column) -> dict[str, Any]:
    """What the page shows of a column."""
    values = pictures[column.name]
    # What a list holds need not be finite, and has no place on an axis then.
    shown = values.filter(values.is_finite()) if values.dtype.is_float() else values.drop_nulls()
    keep = [criterion for criterion in scored.config.keep if criterion.column == column.name]
    known = pictures.height - values.null_count()
    criteria = [_criterion(scored, pictures, of) for of in keep]
    lines = [f"{column.name}: {known:,} of {pictures.height:,} pictures have a value"]
    lines += [f"  {of['words']}: {of['num_dropped']:,} dropped, {of['num_kept']:,} kept" for of in criteria]
    return {
        "name": column.name,
        "scorer": column.scorer,
        "about": about(column.scorer),
        "known": known,
        "unknown": values.null_count(),
        "chart": _histogram(shown, keep) if column.kind == "number" and len(shown) else None,
        "bars": _bars(pictures, column, keep) if column.kind != "number" else [],
        "criteria": criteria,
        "lines": lines,
    }


def _criterion(scored: Scored, pictures: pl.DataFrame, of: Criterion) -> dict[str, Any]:
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


def _shots(scored: Scored, rows: pl.DataFrame, column: str) -> list[dict[str, str]]:
    shown = rows.head(_NUM_SHOTS)
    captions = scored.captions(shown)
    return [
        {
            "uri": picture(scored, row["part"], row["offset"], row["size"], _MAX_SIDE_PX),
            "value": _value(row[column]),
            "caption": captions.get(row["uid"], "")[:80],
        }
        for row in shown.iter_rows(named=True)
    ]


def _histogram(values: pl.Series, keep: list[Criterion]) -> dict[str, Any]:
    """Bars of the values, those that a criterion drops in another colour, with the thresholds as lines.

    Values beyond the ends of the axis are counted in its outermost bars.
    """
    numbers = values.cast(pl.Float64).to_numpy()
    bounds = [(float(b), of) for of in keep for b in (of.min, of.max) if b is not None]
    low, high = np.quantile(numbers, [_CLIPPED, 1 - _CLIPPED]).tolist()
    low, high = min([low, *(b for b, _ in bounds)]), max([high, *(b for b, _ in bounds)])
    if low == high:
        low, high = low - 0.5, high + 0.5
    is_dropped = np.zeros(len(numbers), dtype=bool)
    for of in keep:
        wrong = pl.DataFrame({of.column: values}).select(fails(of)).to_series().fill_null(False)
        is_dropped |= wrong.to_numpy()
    clipped = np.clip(numbers, low, high)
    dropped, begins = np.histogram(clipped[is_dropped], _NUM_BINS, (low, high))
    kept, _ = np.histogram(clipped[~is_dropped], _NUM_BINS, (low, high))
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
        "ticks_x": [{"at": x(v), "text": short(v)} for v in np.linspace(low, high, 6).tolist()],
        "ticks_y": [{"at": round(_BOTTOM - tall(n), 1), "text": f"{n:,}"} for n in {most // 4, most} - {0}],
        "cuts": [
            {"at": x(bound), "text": f"{of.label} {short(bound)}", "anchor": "end" if x(bound) > 600 else "start"}
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
    return short(value) if isinstance(value, int | float) else str(value)[:40]
