"""The accounts of a filter: every row of the list is kept or dropped exactly once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from darkroom import store
from darkroom.filter.criteria import CRITERIA, UNKNOWABLE


def funnel(selections: Sequence[str | Path]) -> dict[str, Any]:
    """Count what each criterion removes over all parts of a dataset.

    Args:
        selections: the selection tables of every part.

    Returns:
        rows, kept: the length of the list, and what is left of it.
        criteria: for each, in order, {criterion, first_failure: rows it is the first to remove,
            fails: rows that fail it whatever the others say, remaining: rows left after it}.
        joint: for each pair of criteria, {criteria: [a, b], fails: rows that fail both}.
        status: {download status: rows}.
        unknown: for each score a list may lack, {rows: pictures without it, kept: those kept}.

    Raises:
        ValueError: the parts do not hold every row 0 .. n-1 exactly once, or a row is counted twice.
    """
    columns = ["row", "kept", "first_failure", "status"]
    columns += [f"fails_{name}" for name in CRITERIA] + [f"unknown_{name}" for name in UNKNOWABLE]
    if not selections:
        raise ValueError("funnel: no selections; give the table of every part")
    rows = pl.concat([store.read_table(part, columns) for part in selections])
    _check_rows(rows["row"])
    first = Counter(rows["first_failure"].drop_nulls().to_list())
    criteria, remaining = [], rows.height
    for name in CRITERIA:
        remaining -= first[name]
        fails = int(rows[f"fails_{name}"].sum())
        criteria.append(
            {"criterion": name, "first_failure": first[name], "fails": fails, "remaining": remaining}
        )
    kept = int(rows["kept"].sum())
    if remaining != kept:
        raise ValueError(f"funnel: {kept} rows are kept, but {remaining} have no failure; select again")
    joint = [
        {"criteria": [a, b], "fails": rows.filter(f"fails_{a}", f"fails_{b}").height}
        for a, b in combinations(CRITERIA, 2)
    ]
    unknown = {
        name: {
            "rows": int(rows[f"unknown_{name}"].sum()),
            "kept": rows.filter("kept", f"unknown_{name}").height,
        }
        for name in UNKNOWABLE
    }
    status = dict(sorted(Counter(rows["status"].to_list()).items()))
    return {
        "rows": rows.height,
        "kept": kept,
        "criteria": criteria,
        "joint": joint,
        "status": status,
        "unknown": unknown,
    }


def write_funnel(counted: Mapping[str, Any], json: str | Path, csv: str | Path) -> None:
    """Write `funnel`'s answer as JSON, and its steps as CSV for plots, the first being the list."""
    store.write_json(json, dict(counted))
    whole = {"criterion": "list", "first_failure": 0, "fails": 0, "remaining": counted["rows"]}
    with store.replacing(csv) as beside:
        pl.DataFrame([whole, *counted["criteria"]]).write_csv(beside)


def _check_rows(rows: pl.Series) -> None:
    ordered = rows.sort()
    twice = ordered.filter(ordered.is_duplicated())
    if len(twice):
        raise ValueError(f"funnel: row {twice[0]} is in two parts; give each part once")
    missing = (ordered != pl.int_range(len(ordered), eager=True)).arg_true()
    if len(missing):
        raise ValueError(f"funnel: row {missing[0]} is in no part; give every part of the dataset")
