"""A comparison of runs as a table: for the terminal and READMEs, and for papers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darkroom.evaluate.scores import score_names
from darkroom.metrics.base import Metric
from darkroom.metrics.table import METRICS

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


@dataclass(frozen=True)
class Cell:
    """A number as text, and the ends of its 95 % interval, or none."""

    value: str
    interval: tuple[str, str] | None = None

    def __str__(self) -> str:
        return self.value + (f" ({' to '.join(self.interval)})" if self.interval else "")


@dataclass(frozen=True)
class Row:
    """A score of every run, and every run's minus the first's."""

    label: str
    direction: str
    scores: list[Cell]
    differences: list[Cell]


def comparison_rows(compared: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """What `compare` found, a row a score."""
    first = next(iter(compared["scores"].values()))
    rows = []
    for name, metric in METRICS.items():
        if name in first and metric.is_nested:
            inner = {
                part: {run: scores[name] for run, scores in runs.items()} for part, runs in compared.items()
            }
            rows += [
                _row(label, metric, key, inner) for key, label in score_names(metric, first[name]).items()
            ]
        elif name in first:
            rows.append(_row(metric.label, metric, name, compared))
    return rows


def comparison_header(runs: Sequence[str]) -> list[str]:
    """What the columns behind the label are called."""
    first, *others = runs
    return [*runs, *(f"{run} - {first}" if len(others) > 1 else "difference" for run in others)]


def comparison_markdown(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """A table in Markdown, with 95 % intervals of the differences where there are any."""
    columns = ["", *comparison_header(list(compared["scores"]))]
    lines = [f"| {' | '.join(columns)} |".replace("|  |", "| |"), "|---" * len(columns) + "|"]
    for row in comparison_rows(compared):
        cells = [row.label, *(cell.value for cell in row.scores), *map(str, row.differences)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def comparison_latex(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """A tabular for the package booktabs: scores with their intervals, an arrow for the better direction."""
    runs = list(compared["scores"])
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(runs)}}}",
        r"\toprule",
        " & ".join(["", *map(_escaped, runs)]) + r" \\",
        r"\midrule",
    ]
    for row in comparison_rows(compared):
        arrow = r"$\uparrow$" if row.direction == "higher" else r"$\downarrow$"
        cells = [_latex_cell(cell) for cell in row.scores]
        lines.append(" & ".join([f"{_escaped(row.label)} {arrow}", *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _row(label: str, metric: Metric, key: str, compared: Mapping[str, Mapping[str, Any]]) -> Row:
    scores = [score_cell(metric, key, scores) for scores in compared["scores"].values()]
    gaps = [score_cell(metric, key, gap, "+") for gap in compared["differences"].values()]
    return Row(label, metric.direction, scores, gaps)


def score_cell(metric: Metric, key: str, scores: Mapping[str, float], sign: str = "") -> Cell:
    """One of a metric's scores as text; a dash where it is not there."""

    def text(name: str) -> str:
        return f"{scores[name]:{sign}.{metric.digits}f}"

    if key not in scores:
        return Cell("-", None)
    bounds = (f"{key}_low", f"{key}_high")
    return Cell(text(key), (text(bounds[0]), text(bounds[1])) if bounds[0] in scores else None)


def _latex_cell(cell: Cell) -> str:
    interval = rf" {{\small ({cell.interval[0]}--{cell.interval[1]})}}" if cell.interval else ""
    return f"${cell.value}${interval}"


def _escaped(text: str) -> str:
    return re.sub(r"[\\~^&%$#_{}]", lambda found: _LATEX.get(found[0], "\\" + found[0]), text)
