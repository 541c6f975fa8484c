"""The recaption stage: the kept pictures of one part, captioned in the order of their uids."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.captioners.base import CaptionerSection
from darkroom.captioners.scratch import forget, scratch_folder
from darkroom.captioners.table import CAPTIONERS
from darkroom.components.base import Component
from darkroom.config.gates import CaptionGates
from darkroom.recaption.asking import caption_all
from darkroom.recaption.gated import gate_counts
from darkroom.recaption.subjects import PartPictures
from darkroom.recaption.written import captions_table, counted
from darkroom.settings.captions import ORIGINAL
from darkroom.store import TarReader, read_table, write_table
from darkroom.store.captions import caption_column


def recaption_part(
    table: str | Path,
    tar: str | Path,
    selection: str | Path,
    settings: CaptionerSection,
    components: Mapping[str, Component],
    out: str | Path,
    gates: CaptionGates | None = None,
    keep_scratch: bool = False,
) -> dict[str, Any]:
    """Caption the kept pictures of a part and write `out`, one row each, sorted by uid.

    The alt-text is carried along as `caption_original` and is never part of a request. Pictures are captioned
    in the order of (uid, row), so the same inputs give the same file. A flagged caption is kept.

    Args:
        table: the part's table of the download stage (uid, row, caption, width, height, offset, size).
        tar: its pictures.
        selection: the part's table of the filter stage (uid, row, kept).
        settings: the captions with their prompts, and how they are decoded.
        components: those that the settings and the gates name.
        out: Parquet file with the columns of `captions_schema`, and where the captions come from: model,
            model_path, model_sha256, model_revision, NAME_prompt_sha256, decoding (JSON) and library; of fallbacks
            model.1 and so on, null where they were not asked.
        gates: what the captions must be; None: anything.
        keep_scratch: leave what the captioner kept beside `out` to the caller, who calls `forget`.

    Returns:
        captioned, for each caption tokens and how many texts have each flag, what the gates did (`gate_counts`),
        and the captioners' own counts.

    Raises:
        ValueError: a picture cannot be read or captioned; names its uid. Nothing is written then.
    """
    rows, requests = _kept_rows(table, selection), settings.asked()
    with TarReader(tar) as reader:
        pictures = PartPictures(rows, reader, str(tar), scratch_folder(out))
        asked = caption_all(pictures, settings, components, gates, CAPTIONERS)
    keys = [{"uid": row["uid"], "row": row["row"], caption_column(ORIGINAL): row["caption"]} for row in rows]
    made = captions_table(keys, asked, requests, gates, carried=(ORIGINAL,))
    write_table(out, made, sort_by=None)
    counts = {"captioned": len(made), **counted(made, requests)}
    counts |= {**(gate_counts(made, requests) if gates else {}), **asked.counts}
    if not keep_scratch:
        forget(out, counts)
    return counts


def _kept_rows(table: str | Path, selection: str | Path) -> list[dict[str, Any]]:
    """The kept rows with where their picture lies, sorted by (uid, row); joined on the row and the uid."""
    columns = ["uid", "row", "caption", "width", "height", "offset", "size"]
    kept = read_table(selection, ["uid", "row", "kept"]).filter(pl.col("kept"))
    found = kept.join(read_table(table, columns), on=["uid", "row"], how="left", validate="1:1")
    for row in found.filter(pl.col("offset").is_null()).head(1).iter_rows(named=True):
        raise ValueError(
            f"{selection}: keeps {row['uid']} (row {row['row']}), which {table} has no picture of"
        )
    return found.sort("uid", "row").to_dicts()
