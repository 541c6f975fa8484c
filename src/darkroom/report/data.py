"""What the report says of the data: the funnel, captions before and after, buckets."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.recaption.gated import gate_counts
from darkroom.report.inline import jpeg_uri
from darkroom.settings.captions import ORIGINAL
from darkroom.store import TarReader, read_table
from darkroom.store.captions import DROPPED, caption_column, names_in

_THUMBNAIL_PX = 192

Judge = Callable[[pl.DataFrame], pl.DataFrame | None]


def read_json(path: Path) -> dict[str, Any]:
    """The content of a stage's JSON file."""
    body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return body


def read_funnel(path: Path) -> dict[str, Any]:
    """Steps, download statuses and joint failures, from the filter's funnel.json."""
    body = read_json(path)
    rows, meaning = max(body["rows"], 1), body["meaning"]
    steps = [{"name": "listed", "remaining": body["rows"], "share": 1.0, "removed": 0, "fails": 0}]
    steps += [
        {
            "name": meaning[entry["criterion"]],
            "remaining": entry["remaining"],
            "share": entry["remaining"] / rows,
            "removed": entry["first_failure"],
            "fails": entry["fails"],
        }
        for entry in body["criteria"]
    ]
    joint = [
        {"first": meaning[a], "second": meaning[b], "fails": entry["fails"]}
        for entry in body.get("joint", [])
        for a, b in [entry["criteria"]]
        if entry["fails"]
    ]
    statuses = sorted(body.get("status", {}).items(), key=lambda item: (item[0] != "ok", -item[1], item[0]))
    most = max((n for name, n in statuses if name != "ok"), default=1)
    return {
        "rows": body["rows"],
        "kept": body["kept"],
        "steps": steps,
        "joint": sorted(joint, key=lambda pair: -pair["fails"]),
        "statuses": [
            {"name": name, "number": n, "share": 0.0 if name == "ok" else n / most} for name, n in statuses
        ],
        "unknown": [{"name": meaning[name], **counts} for name, counts in body.get("unknown", {}).items()],
    }


def read_buckets(path: Path) -> dict[str, Any]:
    """Pictures by bucket with what fills no batch, from the bucket stage's buckets.json."""
    body = read_json(path)
    counts = body["pictures_by_bucket"]
    most = max([*counts.values(), 1])
    rows = []
    for name, number in counts.items():
        width, height = (int(side) for side in name.split("x"))
        rows.append(
            {
                "name": f"{width} \N{MULTIPLICATION SIGN} {height}",
                "ratio": width / height,
                # The frame in the table: the bucket's shape, 26 px at the longer side.
                "frame": (26 * width / max(width, height), 26 * height / max(width, height)),
                "number": number,
                "share": number / most,
                "leftover": body.get("num_leftover", {}).get(name),
                "repeated": body.get("num_repeated", {}).get(name),
            }
        )
    return {
        "rows": sorted(rows, key=lambda row: row["ratio"]),
        "bucketed": body["num_bucketed"],
        "dropped": body.get("num_dropped", {}),
        "mean_cropped_share": body.get("mean_cropped_share"),
        "has_batches": "num_leftover" in body,
        "batch_size": body.get("global_batch_size"),
    }


def read_captions(
    captions: Sequence[Path],
    tables: Sequence[Path],
    tars: Sequence[Path],
    judge: Judge | None,
    num_examples: int,
    rewritten: Sequence[Path] = (),
) -> dict[str, Any]:
    """Shares of right captions by name, and pictures with their captions before and after.

    Args:
        captions, tables, tars: the recaption and download parts in their order.
        judge: what the source knows of its pictures, see `sources.base.Truth`.
        num_examples: pictures that are shown.
        rewritten: the rewrite parts in the same order, where there are any.
    """
    stored = pl.concat(
        read_table(path, ["uid", "row", "offset", "size"]).with_columns(part=pl.lit(index))
        for index, path in enumerate(tables)
    )
    all_captions = pl.concat([read_table(path) for path in captions], how="diagonal")
    of_stages = [all_captions]
    if rewritten:
        of_stages.append(pl.concat([read_table(path) for path in rewritten], how="diagonal"))
        # What both tables have, as the model's name, is the first one's.
        all_captions = all_captions.join(of_stages[1], on=["uid", "row"], how="left", suffix=".rewrite")
    names = names_in(all_captions.columns)
    generated = [name for name in names if f"{name}_flags" in of_stages[0].columns]
    # The uid sorts by chance, so the first pictures are a fair sample of all.
    told = all_captions.join(stored, on=["uid", "row"]).sort("uid", "row")
    judged = judge(told) if judge else None
    told = _unjudged(told, names) if judged is None else told.hstack(judged)
    shown = _choose(told, names, num_examples)
    return {
        "number": told.height,
        "generated": [_title(name) for name in generated],
        "gates": _gates(of_stages),
        "rewritten": _rewritten(of_stages[1]) if rewritten else None,
        "summary": [_summary(told, name) for name in names],
        "judged": told.filter(pl.any_horizontal(_right(name).is_not_null() for name in names)).height,
        "model": told["model"][0] if "model" in told.columns and told.height else None,
        "examples": _examples(shown, names, tars),
    }


def _rewritten(captions: pl.DataFrame) -> dict[str, Any]:
    """Who wrote captions of captions, and how these ended."""
    ends = []
    for name in names_in(captions.columns):
        numbers = captions[f"{name}_finish_reason"].value_counts().sort(f"{name}_finish_reason")
        ends.append(
            f"{_title(name)}: {', '.join(f'{why} {number:,}' for why, number in numbers.iter_rows())}"
        )
    return {"model": captions["model"][0] if captions.height else None, "ends": "; ".join(ends)}


def _gates(of_stages: Sequence[pl.DataFrame]) -> dict[str, Any] | None:
    """How captions came through the gates of recaption and of rewrite, for the page; None where there are none."""
    told = [
        (
            gate_counts(captions, [n for n in names_in(captions.columns) if n != ORIGINAL]),
            " (rewritten)" * number,
        )
        for number, captions in enumerate(of_stages)
        if DROPPED in captions.columns
    ]
    if not told:
        return None
    rows = [row for counts, _ in told for row in _rows_of_gates(counts)]
    dropped = {f"{gate}{of}": n for counts, of in told for gate, n in counts["dropped"].items()}
    return {"rows": rows, "kept": told[-1][0]["kept"], "dropped": dropped}


def _rows_of_gates(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name in counts["passed"]:
        passed = dict(counts["passed"][name])
        at_once, _ = passed.pop("at_once", 0), passed.pop("not_asked", 0)
        by_fallback = sum(number for how, number in passed.items() if how.startswith("by_fallback"))
        failed = [f"{gate} {number}" for gate, number in counts["not_passed"][name].items()]
        retried = sum(passed.values()) - by_fallback
        rows.append({
            "name": _title(name), "at_once": at_once, "retried": retried, "by_fallback": by_fallback,
            "failed": sum(counts["not_passed"][name].values()), "gates": ", ".join(failed),
        })  # fmt: skip
    return rows


def after_gates(funnel: dict[str, Any], gates: Mapping[str, Any]) -> dict[str, Any]:
    """The funnel of `read_funnel`, with a step more for each gate that pictures fell to for their captions."""
    steps, remaining = list(funnel["steps"]), funnel["kept"]
    for gate, number in gates["dropped"].items():
        remaining -= number
        name, share = f"a caption does not pass {gate}", remaining / max(funnel["rows"], 1)
        steps.append(
            {"name": name, "remaining": remaining, "share": share, "removed": number, "fails": number}
        )
    return {**funnel, "steps": steps, "kept": remaining}


def _title(name: str) -> str:
    """What the page calls a caption."""
    return "Alt-text" if name == ORIGINAL else f"{name.replace('_', ' ').capitalize()} caption"


def _right(name: str) -> pl.Expr:
    return pl.col(f"{name}_right")


def _unjudged(told: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Captions of which nothing is known."""
    right = {f"{name}_right": pl.lit(None, pl.Boolean) for name in names}
    return told.with_columns(sort=pl.lit(None, pl.String), **right)


def _summary(told: pl.DataFrame, name: str) -> dict[str, Any]:
    if f"{name}_flags" in told.columns:
        # Of pictures that were dropped before, nobody rewrites captions.
        told = told.filter(pl.col(f"{name}_flags").is_not_null())
    texts = told[caption_column(name)].fill_null("")
    words = texts.str.split(" ").list.eval(pl.element() != "").list.sum()
    result = {
        "name": _title(name),
        "right": told[f"{name}_right"].mean(),
        "words": words.mean(),
        "empty": int((texts.str.strip_chars() == "").sum()),
        "truncated": None,
        "flagged": None,
    }
    if f"{name}_finish_reason" in told.columns:
        # "length" is what generation libraries call a caption that ran into max_new_tokens.
        result["truncated"] = told.filter(pl.col(f"{name}_finish_reason") == "length").height
    if f"{name}_flags" in told.columns:
        result["flagged"] = told.filter(pl.col(f"{name}_flags").list.len() > 0).height
    return result


def _choose(told: pl.DataFrame, names: Sequence[str], number: int) -> pl.DataFrame:
    """The first pictures by uid: one of every rare sort, one whose caption went wrong, most of the main sort."""
    sorts = told["sort"].drop_nulls().value_counts().sort("count", "sort", descending=[True, False])["sort"]
    if sorts.is_empty():
        return told.head(number)
    rare = [told.filter(pl.col("sort") == sort).head(1) for sort in sorts[1:].sort()]
    generated = [name for name in names if name != ORIGINAL] or names
    wrong = told.filter(pl.any_horizontal(~_right(name) for name in generated)).head(1)
    plain = told.filter(pl.col("sort") == sorts[0]).head(number)
    chosen = pl.concat([*rare, wrong, plain]).unique("row", maintain_order=True).head(number)
    return chosen.sort("uid", "row")


def _not_passed(gate: str | None) -> list[str]:
    return [] if gate is None else [f"does not pass {gate}"]


def _examples(shown: pl.DataFrame, names: Sequence[str], tars: Sequence[Path]) -> list[dict[str, Any]]:
    examples = []
    for row in shown.iter_rows(named=True):
        with TarReader(tars[row["part"]]) as tar:
            uri = jpeg_uri(tar.read(row["offset"], row["size"]), _THUMBNAIL_PX)
        texts = [
            {
                "name": _title(name),
                "text": row[caption_column(name)] or "",
                "right": row[f"{name}_right"],
                "flags": ", ".join(
                    [*(row.get(f"{name}_flags") or []), *_not_passed(row.get(f"{name}_gate"))]
                ),
            }
            for name in names
            if row.get(f"{name}_flags", ()) is not None
        ]
        examples.append({"uri": uri, "uid": row["uid"], "texts": texts})
    return examples
