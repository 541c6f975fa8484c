"""What the labels say, as lines for a terminal, as a table and as a page."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darkroom.audit.estimate import AtThreshold, Rate, threshold_for
from darkroom.audit.labels import Labels
from darkroom.audit.pages import render, share, whole
from darkroom.audit.sample import Audit
from darkroom.config.keep import Criterion
from darkroom.report.pages import short
from darkroom.report.scores import about
from darkroom.store import replacing

_SHOWN = 20  # thresholds on a terminal
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 330, 60, 730, 70, 300


class Result:
    """Estimates at every threshold, and which of these are worth a name.

    Attributes:
        marks: threshold -> why it is marked.
    """

    def __init__(
        self,
        audit: Audit,
        labels: Labels,
        estimates: Sequence[AtThreshold],
        wanted: float,
        keep: Sequence[Criterion],
    ) -> None:
        self.audit, self.labels, self.estimates, self.wanted = audit, labels, list(estimates), wanted
        self.by_value, self.by_low = threshold_for(self.estimates, wanted)
        self.bounds = _bounds(audit.column, keep)
        self.in_use = [(of, self._beyond(bound, above)) for of, bound, above in self.bounds]
        self.marks: dict[float, str] = {}
        named = [
            (self.by_value, f"precision {wanted:g}"),
            (self.by_low, f"precision {wanted:g} by the interval"),
        ]
        named += [(found, f"keep: {of.label}") for of, found in self.in_use]
        for found, why in named:
            if found is not None:
                before = self.marks.get(found.threshold)
                self.marks[found.threshold] = f"{before}, {why}" if before else why

    def _beyond(self, bound: float, above: bool) -> AtThreshold | None:
        """The first threshold that finds what `keep` parts from the rest: above `bound`, or from it on."""
        found = (e for e in self.estimates if (e.threshold > bound if above else e.threshold >= bound))
        return next(found, None)

    def write_csv(self, path: Path) -> None:
        """Write a row a threshold: threshold, pictures, labelled, and both rates with low and high."""
        rows = [
            {
                "threshold": each.threshold,
                "pictures": each.pictures,
                "labelled": each.labelled,
                **_named("precision", each.precision),
                **_named("recall", each.recall),
            }
            for each in self.estimates
        ]
        with replacing(path) as beside:
            pl.DataFrame(rows, infer_schema_length=None).write_csv(beside)

    def write_page(self, path: Path) -> None:
        """Write the page with the curves and the whole table."""
        rows = [{"at": each, "mark": self.marks.get(each.threshold, "")} for each in self.estimates]
        page = render(
            "precision.html",
            audit=self.audit,
            about=about(self.audit.scorer),
            facts=self._facts(),
            counts=self.labels.lines(),
            strata=self._strata(),
            rows=rows,
            chart=self._chart(),
        )
        with replacing(path) as beside:
            beside.write_text(page, encoding="utf-8")

    def lines(self) -> list[str]:
        """The counts, up to 20 thresholds with those that are marked, and what is wanted, for a terminal."""
        told = [f"{self.audit.column} of {self.audit.dataset}: {self.audit.pictures:,} pictures with a value"]
        told += [*self.labels.lines(), ""]
        told += ["| threshold | finds | precision | recall | |", "|---|---|---|---|---|"]
        spread = np.linspace(0, len(self.estimates) - 1, min(_SHOWN, len(self.estimates))).round()
        chosen = {int(place) for place in spread}
        for place, each in enumerate(self.estimates):
            mark = self.marks.get(each.threshold, "")
            if place in chosen or mark:
                rates = f"{_told(each.precision)} | {_told(each.recall)}"
                told.append(f"| {short(each.threshold)} | {each.pictures:,} | {rates} | {mark} |")
        return [*told, "", *self._answers()]

    def _answers(self) -> list[str]:
        told = []
        for found, how in ((self.by_value, "by the estimate"), (self.by_low, "by the interval's lower end")):
            if found is None:
                told.append(f"precision {self.wanted:g} {how}: no threshold has it")
            else:
                told.append(
                    f"precision {self.wanted:g} {how}: threshold {found.threshold!r}; pictures found:"
                    f" {found.pictures:,}; precision {_told(found.precision)}, recall {_told(found.recall)}"
                )
        told += [
            f"keep {of.label}: no labelled score lies beyond it" for of, found in self.in_use if not found
        ]
        return told

    def _facts(self) -> list[dict[str, str]]:
        facts = []
        for found, how in ((self.by_value, "by the estimate"), (self.by_low, "by the interval's lower end")):
            text = f"lowest threshold with a precision of {self.wanted:g} {how}"
            if found is not None:
                recall = f", recall {share(found.recall.value)}" if found.recall else ""
                text += f"; pictures found: {whole(found.pictures)}{recall}"
            facts.append({"value": short(found.threshold) if found else "none", "text": text})
        for of, found in self.in_use:
            value = share(found.precision.value) if found else "unknown"
            facts.append({"value": value, "text": f"precision beyond the threshold in use: {of.words}"})
        facts.append({"value": whole(self.labels.counts["labelled"]), "text": "labelled yes or no, of "
                      f"{whole(self.audit.rows.height)} drawn from {whole(self.audit.pictures)}"})  # fmt: skip
        return facts

    def _strata(self) -> list[dict[str, Any]]:
        answered = self.audit.rows.filter(pl.col("uid").is_in(list(self.labels.of)))
        told = []
        for number, stratum in enumerate(self.audit.strata):
            answers = [self.labels.of[uid] for uid in answered.filter(pl.col("stratum") == number)["uid"]]
            told.append({**vars(stratum), "labelled": len(answers), "yes": sum(answers)})
        return told

    def _chart(self) -> dict[str, Any]:
        thresholds = [each.threshold for each in self.estimates]
        low, high = thresholds[0], thresholds[-1]
        wide = (high - low) or 1.0

        def x(value: float) -> float:
            return round(_LEFT + (_RIGHT - _LEFT) * (value - low) / wide, 1)

        def y(rate: float) -> float:
            return round(_BOTTOM - (_BOTTOM - _TOP) * rate, 1)

        lines = []
        for name in ("recall", "precision"):
            rates = [(each.threshold, getattr(each, name)) for each in self.estimates]
            known = [(at, rate) for at, rate in rates if rate is not None]
            upper = _steps([(x(at), y(rate.high)) for at, rate in known])
            lower = _steps([(x(at), y(rate.low)) for at, rate in known])
            line = _steps([(x(at), y(rate.value)) for at, rate in known])
            lines.append({"name": name, "points": _points(line), "band": _points([*upper, *lower[::-1]])})
        cuts = [(bound, f"keep {of.label}") for of, bound, _ in self.bounds]
        cuts += [(self.by_value.threshold, f"precision {self.wanted:g}")] if self.by_value else []
        return {
            "width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM,
            "ticks_x": [{"at": x(v), "text": short(v)} for v in np.linspace(low, high, 6).tolist()],
            "ticks_y": [{"at": y(v), "text": f"{100 * v:.0f} %"} for v in (0.0, 0.25, 0.5, 0.75, 1.0)],
            "lines": lines,
            "cuts": [
                {"at": x(at), "text": text, "anchor": "end" if at > low + 0.8 * wide else "start"}
                for at, text in cuts if low <= at <= high
            ],
        }  # fmt: skip


def _bounds(column: str, keep: Sequence[Criterion]) -> list[tuple[Criterion, float, bool]]:
    """(criterion, bound, whether what lies above it is parted off, else from it on) of those on a column."""
    found = []
    for of in keep:
        if of.column == column and of.min is not None:
            found.append((of, float(of.min), False))
        if of.column == column and of.max is not None:
            found.append((of, float(of.max), True))
    return found


def _named(name: str, rate: Rate | None) -> dict[str, float | None]:
    values = (rate.value, rate.low, rate.high) if rate else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of a stair: a threshold between two scores finds what the higher one finds."""
    corners = [(before[0], after[1]) for before, after in pairwise(points)]
    pairs = zip(points, [*corners, None], strict=True)
    return [corner for pair in pairs for corner in pair if corner is not None]


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _told(rate: Rate | None) -> str:
    return f"{rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f})" if rate else "unknown"
