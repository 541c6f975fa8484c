"""The accounts of a filter: every row of the list is kept or dropped exactly once."""

from collections import Counter
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
    rows = _last_rounds(pl.concat([store.read_table(part, columns) for part in selections]))
    _check_rows(rows["row"])
    first = Counter(rows["first_failure"].drop_nulls().to_list())
    criteria, remaining = [], rows.height
    for name in labels:
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
        for a, b in combinations(labels, 2)
    ]
    unknown = {
        name: {
            "rows": int(rows[f"unknown_{name}"].sum()),
            "kept": rows.filter("kept", f"unknown_{name}").height,
        }
        for name in labels[1:]
    }
    status = dict(sorted(Counter(rows["status"].to_list()).items()))
    return {
        "rows": rows.height,
        "kept": kept,
        "criteria": criteria,
        "meaning": {DOWNLOAD: "not downloaded", **{criterion.label: criterion.words for criterion in keep}},
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


def _last_rounds(rows: pl.DataFrame) -> pl.DataFrame:
    """Of rows that were fetched again, how they ended last."""
    is_last = pl.col("row").is_last_distinct()
    # A row that was not to be fetched again stands twice by mistake, and stays for the check.
    return rows.filter(is_last | ~is_transient_in("status"))


def _check_rows(rows: pl.Series) -> None:
    ordered = rows.sort()
    twice = ordered.filter(ordered.is_duplicated())
    if len(twice):
        raise ValueError(f"funnel: row {twice[0]} is in two parts; give each part once")
    missing = (ordered != pl.int_range(len(ordered), eager=True)).arg_true()
    if len(missing):
        raise ValueError(f"funnel: row {missing[0]} is in no part; give every part of the dataset")
