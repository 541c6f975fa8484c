"""The accounts of a filter: every row of the list is kept or dropped exactly once."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from darkroom import store
from darkroom.config.keep import DOWNLOAD, Criterion
from darkroom.download.rounds import is_transient_in


def funnel(selections: Sequence[str | Path], keep: Sequence[Criterion]) -> dict[str, Any]:
    """Count what each criterion removes over all parts of a dataset.

    Args:
        selections: the selection tables of every part, those of later rounds of retries last.
        keep: the criteria that they were made with, in order.

    Returns:
        rows, kept: the length of the list, and what is left of it.
        criteria: for each, in order, {criterion, first_failure: rows it is the first to remove,
            fails: rows that fail it whatever the others say, remaining: rows left after it}.
        meaning: for each, in order, when a row fails it.
        joint: for each pair of criteria, {criteria: [a, b], fails: rows that fail both}.
        status: {download status: rows}.
        unknown: for each but the first, {rows: pictures whose value is not known, kept: those kept}.

    Raises:
        ValueError: the parts do not hold every row 0 .. n-1 exactly once, or a row is counted twice; or they
            were made with other criteria.
    """
    labels = [DOWNLOAD, *(criterion.label for criterion in keep)]
    columns = ["row", "kept", "first_failure", "status"]
    columns += [f"fails_{label}" for label in labels] + [f"unknown_{label}" for label in labels[1:]]
    if not selections:
        raise ValueError("funnel: no selections; give the table of every part")
    rows = _each_once(pl.concat([store.read_table(part, columns) for part in selections]))
    number, status = _numbers(rows, labels)
    criteria, remaining = [], rows.height
    for name in labels:
        remaining -= number[f"first {name}"]
        counts = {"first_failure": number[f"first {name}"], "fails": number[f"fails {name}"]}
        criteria.append({"criterion": name, **counts, "remaining": remaining})
    if remaining != number["kept"]:
        raise ValueError(
            f"funnel: {number['kept']} rows are kept, but {remaining} have no failure; select again"
        )
    return {
        "rows": rows.height,
        "kept": number["kept"],
        "criteria": criteria,
        "meaning": {DOWNLOAD: "not downloaded", **{criterion.label: criterion.words for criterion in keep}},
        "joint": [{"criteria": [a, b], "fails": number[f"both {a} {b}"]} for a, b in combinations(labels, 2)],
        "status": status,
        "unknown": {
            name: {"rows": number[f"unknown {name}"], "kept": number[f"guessed {name}"]}
            for name in labels[1:]
        },
    }


def _numbers(rows: pl.DataFrame, labels: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """What is counted of all rows, in one pass over each column; and rows by status."""
    fails = {name: pl.col(f"fails_{name}") for name in labels}
    unknown = {name: pl.col(f"unknown_{name}") for name in labels[1:]}
    counted = rows.select(
        kept=pl.col("kept").sum(),
        **{f"first {name}": (pl.col("first_failure") == name).sum() for name in labels},
        **{f"fails {name}": column.sum() for name, column in fails.items()},
        **{f"both {a} {b}": (fails[a] & fails[b]).sum() for a, b in combinations(labels, 2)},
        **{f"unknown {name}": column.sum() for name, column in unknown.items()},
        **{f"guessed {name}": (pl.col("kept") & column).sum() for name, column in unknown.items()},
    )
    status = rows.group_by("status").len().sort("status")
    return counted.row(0, named=True), dict(status.iter_rows())


def write_funnel(counted: Mapping[str, Any], json: str | Path, csv: str | Path) -> None:
    """Write `funnel`'s answer as JSON, and its steps as CSV for plots, the first being the list."""
    store.write_json(json, dict(counted))
    whole = {"criterion": "list", "first_failure": 0, "fails": 0, "remaining": counted["rows"]}
    with store.replacing(csv) as beside:
        pl.DataFrame([whole, *counted["criteria"]]).write_csv(beside)


def refuse_empty(counted: Mapping[str, Any]) -> None:
    """Refuse a selection that keeps nothing: every later stage would succeed on nothing.

    Raises:
        ValueError: names the criterion that dropped the last row, and what each dropped.
    """
    if counted["kept"]:
        return
    if not counted["rows"]:
        raise ValueError("filter: the list has no rows")
    last = next(step for step in counted["criteria"] if not step["remaining"])
    name = last["criterion"]
    dropped = ", ".join(
        f"{s['criterion']} {s['first_failure']:,}" for s in counted["criteria"] if s["first_failure"]
    )
    raise ValueError(
        f"filter: nothing is kept of {counted['rows']:,} rows; the last {last['first_failure']:,} fell to {name!r}"
        f" ({counted['meaning'][name]}); dropped by each: {dropped}"
    )


def _each_once(rows: pl.DataFrame) -> pl.DataFrame:
    """The list's rows, of those that were fetched again how they ended last."""
    if _place_of_gap(rows["row"].sort()) is None:
        return rows
    is_last = pl.col("row").is_last_distinct()
    # A row that was not to be fetched again stands twice by mistake, and stays for the check.
    rows = rows.filter(is_last | ~is_transient_in("status"))
    ordered = rows["row"].sort()
    twice = ordered.filter(ordered.is_duplicated())
    if len(twice):
        raise ValueError(f"funnel: row {twice[0]} is in two parts; give each part once")
    missing = _place_of_gap(ordered)
    if missing is not None:
        raise ValueError(f"funnel: row {missing} is in no part; give every part of the dataset")
    return rows


def _place_of_gap(ordered: pl.Series) -> int | None:
    """Where sorted rows are not 0, 1, 2, ... first."""
    return (ordered != pl.int_range(len(ordered), eager=True)).arg_true().first()  # type: ignore[return-value]
