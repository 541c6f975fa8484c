"""The recaption stage of a dataset that keeps its captions: no model is asked."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from darkroom.settings.captions import ORIGINAL
from darkroom.store import read_table, write_table
from darkroom.store.captions import caption_column


def keep_captions(
    table: str | Path, selection: str | Path, out: str | Path, own: Sequence[str] = ()
) -> dict[str, int]:
    """Write the captions of a part's kept pictures: the original one, of a picture with several the first.

    Args:
        table: the part's table of the download stage (uid, row, caption, captions).
        selection: the part's table of the filter stage (uid, row, kept).
        out: Parquet file with uid, row, caption_original and a column for each of `own`, sorted by uid.
        own: which of a picture's several captions to keep besides, `longest` or `shortest`; of a picture with one
            it is that.

    Returns:
        captioned (by a model: none), kept_original, and how many of these are empty.

    Raises:
        ValueError: a kept picture is not in the table.
    """
    kept = read_table(selection, ["uid", "row", "kept"]).filter("kept").select("uid", "row")
    told = read_table(table, ["uid", "row", "caption", "captions"])
    missing = kept.join(told, on=["uid", "row"], how="anti")
    if missing.height:
        raise ValueError(f"{selection}: keeps {missing['uid'][0]}, which {table} has no picture of")
    original, several = pl.col("caption").fill_null(""), pl.col("captions")
    lengths = several.list.eval(pl.element().str.len_chars())
    places = {"longest": lengths.list.arg_max(), "shortest": lengths.list.arg_min()}
    texts = {ORIGINAL: original, **{name: several.list.get(places[name]).fill_null(original) for name in own}}
    columns = {caption_column(name): text for name, text in texts.items()}
    made = kept.join(told, on=["uid", "row"]).sort("uid", "row").select("uid", "row", **columns)
    write_table(out, made, sort_by=None)
    empty = made.filter(pl.col(caption_column(ORIGINAL)).str.strip_chars() == "").height
    return {"captioned": 0, "kept_original": made.height, "empty": empty}
