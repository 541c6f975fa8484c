"""The recaption stage of a dataset that keeps its captions: no model is asked."""

from pathlib import Path

import polars as pl

from darkroom.store import read_table, write_table


def keep_captions(table: str | Path, selection: str | Path, out: str | Path) -> dict[str, int]:
    """Write the captions of a part's kept pictures, the original one standing for the long and the short one.

    Of a picture with several captions the first is the original one, the longest the long one and the shortest the
    short one.

    Args:
        table: the part's table of the download stage (uid, row, caption, captions).
        selection: the part's table of the filter stage (uid, row, kept).
        out: Parquet file with uid, row, caption_original, caption_long and caption_short, sorted by uid.

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
    kinds = {
        "caption_original": original,
        "caption_long": several.list.get(lengths.list.arg_max()).fill_null(original),
        "caption_short": several.list.get(lengths.list.arg_min()).fill_null(original),
    }
    made = kept.join(told, on=["uid", "row"]).sort("uid", "row").select("uid", "row", **kinds)
    write_table(out, made, sort_by=None)
    empty = made.filter(pl.col("caption_original").str.strip_chars() == "").height
    return {"captioned": 0, "kept_original": made.height, "empty": empty}
