"""A dataset with scores in a project of its own, for the tests of `darkroom audit`."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from doc_pages import ROOT
from filter_inputs import CARRIED, LIST, gone, sample
from PIL import Image
from report_inputs import HOSTILE

from darkroom import store
from darkroom.download.writer import table_schema
from darkroom.score import score_dataset, score_part

ROWS_PER_PART, NUM_ROWS = 60, 150
DAMAGED, WITHOUT_VALUE, MISSING = 31, 32, 33


def write_project(root: Path) -> Path:
    """The dataset demo, three parts, and one more of a round in which row 33 was fetched again.

    The caption of row 0 is hostile, row 31's picture is damaged, row 32 has no pwatermark. The scorer watermark is
    listed; its columns hold pwatermark, which rises with the row.
    """
    shutil.copytree(ROOT / "config", root / "config")
    config = root / "config/datasets/demo.yaml"
    values = yaml.safe_load(config.read_text())
    watermark = {"model": "of-a-test", "classes": ["yes"]}
    values["scorers"] = {"size": {}, "duplicate": {}, "watermark": watermark}
    # Of the demo's criteria those on its list's columns, and on columns that these scorers make.
    here = ("pwatermark", "punsafe", "min_side_px", "aspect_ratio", "duplicate", "watermark")
    values["keep"] = [of for of in values["keep"] if of["column"] in here]
    config.write_text(yaml.safe_dump(values))
    components = root / "config/components.yaml"
    named = {"of-a-test": {"kind": "image_classifier", "path": "$OF_A_TEST"}}
    components.write_text(yaml.safe_dump({**yaml.safe_load(components.read_text()), **named}))
    folder = root / "results/datasets/demo"
    parts = {
        store.part_name(i): list(range(start, min(start + ROWS_PER_PART, NUM_ROWS)))
        for i, start in enumerate(range(0, NUM_ROWS, ROWS_PER_PART))
    }
    for name, rows in parts.items():
        _write_part(folder, name, [_row(row) for row in rows])
    _write_part(folder, retried := store.retry_name(1, 0), [{**_row(MISSING, fetched=True), "round": 1}])
    tables = [folder / f"download/{name}.parquet" for name in parts]
    score_dataset("duplicate", {}, tables, folder / "score/duplicate.parquet")
    again = [folder / f"download/{retried}.parquet"]
    score_dataset("duplicate", {}, again, folder / "score/part-r01.duplicate.parquet", before=tables)
    manifests = []
    for name in (*parts, retried):
        manifests.append(folder / f"download/{name}.json")
        store.write_part_manifest(manifests[-1], [], {"rows": 1}, store.sha256_json({}))
    store.write_manifest(
        folder / "download/manifest.json", stage="download", params={}, part_manifests=manifests
    )
    return root


def pwatermark(row: int) -> float | None:
    """The value of a row: most are low."""
    return None if row == WITHOUT_VALUE else round((row / NUM_ROWS) ** 3, 6)


def _row(row: int, fetched: bool = False) -> dict[str, Any]:
    if row == MISSING and not fetched:
        return gone(row, "timeout")
    caption = HOSTILE if row == 0 else f"caption {row}"
    return sample(row, caption=caption, pwatermark=pwatermark(row), width=80, height=64)


def _write_part(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: row["uid"])
    stored = [row for row in rows if row["status"] == "ok"]
    spans = store.write_tar(
        folder / f"download/{name}.tar", [(row["uid"], _jpeg(row["row"])) for row in stored]
    )
    for row in stored:
        row["offset"], row["size"] = spans[row["uid"]]
    schema = table_schema(pl.DataFrame(schema={**LIST, **CARRIED}))
    table = pl.DataFrame([{**dict.fromkeys(schema), **row} for row in rows], schema=schema, orient="row")
    store.write_table(folder / f"download/{name}.parquet", table)
    score_part("size", {}, folder / f"download/{name}.parquet", None, folder / f"score/{name}.size.parquet")
    judged = table.select("uid", "row", watermark=pl.col("pwatermark").cast(pl.Float32))
    store.write_table(folder / f"score/{name}.watermark.parquet", judged)


def _jpeg(row: int) -> bytes:
    if row == DAMAGED:
        return b"\xff\xd8\xff no picture"
    buffer = io.BytesIO()
    Image.fromarray(np.full((64, 80, 3), row, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()
