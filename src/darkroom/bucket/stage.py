"""The bucket stage: tables in, tables out; no picture is opened."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.bucket.shapes import assign, make_buckets
from darkroom.config.bucket import Bucket
from darkroom.store import read_table, write_json, write_table
from darkroom.store.captions import dropped_pictures

PLACE = ["bucket_width", "bucket_height", "resized_width", "resized_height", "crop_left", "crop_top"]


def bucket_part(
    table: str | Path,
    selection: str | Path,
    settings: Bucket,
    out: str | Path,
    captions: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Give every kept picture of a part its bucket, or the reason why it has none.

    Reads uid, row, width and height of the download `table`, uid, kept of the `selection`, and of the tables
    `captions` which pictures gates dropped for their captions; writes uid, row, the six columns of `PLACE`
    (pixels, null where there is no bucket) and `dropped` (null, or why: "rejected_captions", or "too_small": the
    picture would have to be enlarged and `allow_upscale` is off).

    Returns counts: kept (pictures in), bucketed, dropped by reason, and pictures by bucket.

    Raises:
        ValueError: a kept picture is not in the table or has no dimensions.
    """
    joined = _kept(table, selection)
    sides = (joined["width"].to_numpy(), joined["height"].to_numpy())
    found = assign(*sides, make_buckets(settings), settings.rule)
    small = (
        pl.Series(found.scale_up)
        if not settings.allow_upscale
        else pl.repeat(False, joined.height, eager=True)
    )
    rejected = {uid for path in captions for uid in dropped_pictures(path)["uid"]}
    without = joined["uid"].is_in(list(rejected))
    outside = small | without
    out_table = joined.select("uid", "row").with_columns(
        *(
            pl.when(~outside).then(pl.Series(getattr(found, name))).cast(pl.Int32).alias(name)
            for name in PLACE
        ),
        pl.when(without)
        .then(pl.lit("rejected_captions"))
        .when(small)
        .then(pl.lit("too_small"))
        .otherwise(None)
        .alias("dropped"),
    )
    write_table(out, out_table)
    return {
        "kept": joined.height,
        "bucketed": joined.height - int(outside.sum()),
        "dropped": _dropped(out_table),
        "buckets": _by_bucket(out_table),
    }


def _kept(table: str | Path, selection: str | Path) -> pl.DataFrame:
    """uid, row, width and height of the kept pictures, sorted by uid."""
    pictures = read_table(table, ["uid", "row", "width", "height"])
    selected = read_table(selection, ["uid", "kept"])
    if selected["uid"].equals(pictures["uid"]):
        # Of one part both have the same rows in the same order, sorted by uid.
        joined = pictures.filter(selected["kept"])
    else:
        kept = selected.filter("kept").select("uid")
        joined = kept.join(pictures, on="uid", how="left").sort("uid")
    sized = pl.all_horizontal(pl.col("width") > 0, pl.col("height") > 0)  # null for an unknown uid
    wrong = joined.filter(~sized.fill_null(False))
    if wrong.height:
        raise ValueError(
            f"{selection}: keeps {wrong['uid'][0]}, which has no width and height in {table}; "
            "only pictures with status ok can be kept"
        )
    return joined


def summarise(
    parts: Sequence[str | Path],
    settings: Bucket,
    out: str | Path,
    global_batch_size: int | None = None,
) -> dict[str, Any]:
    """Account for the buckets of all parts in one JSON file, and return the counts in it.

    The file holds pictures by bucket (buckets that stay empty too), pictures dropped by reason, and
    `mean_cropped_share`, the share of the resized pictures' area that the crops lose. Given the
    `global_batch_size` of the training it adds, by bucket: `num_batches` in one pass; `num_leftover`,
    the pictures that fill no whole batch in that pass (training carries them into the next one); and
    `num_repeated`, how often a picture must come twice in one batch because its bucket is smaller
    than a batch.
    """
    if not parts:
        raise ValueError("summarise: no bucket tables were given")
    columns = ["uid", "row", *PLACE, "dropped"]
    table = pl.concat([read_table(part, columns) for part in parts])
    held = table.filter(pl.col("dropped").is_null())
    counts = dict.fromkeys(map(bucket_name, make_buckets(settings)), 0) | _by_bucket(held)
    area = (pl.col("bucket_width") * pl.col("bucket_height")).cast(pl.Float64)
    lost = held.select(1 - area / (pl.col("resized_width") * pl.col("resized_height"))).to_series()
    report: dict[str, Any] = {
        "num_pictures": table.height,
        "num_bucketed": held.height,
        "num_dropped": _dropped(table),
        "mean_cropped_share": round(float(lost.mean() or 0.0), 6),  # type: ignore[arg-type]
        "pictures_by_bucket": counts,
    }
    if global_batch_size is not None:
        size = global_batch_size
        report["global_batch_size"] = size
        report["num_batches"] = {name: n // size for name, n in counts.items()}
        report["num_leftover"] = {name: n % size for name, n in counts.items()}
        report["num_repeated"] = {name: size - n if 0 < n < size else 0 for name, n in counts.items()}
    write_json(out, report)
    return {
        "kept": table.height,
        "bucketed": held.height,
        "dropped": report["num_dropped"],
        "buckets": counts,
    }


def bucket_name(bucket: tuple[int, int]) -> str:
    """`64x48` for a bucket 64 pixels wide and 48 high."""
    return f"{bucket[0]}x{bucket[1]}"


def _dropped(table: pl.DataFrame) -> dict[str, int]:
    reasons = table["dropped"].drop_nulls().value_counts(sort=False).sort("dropped")
    return {"too_small": 0} | dict(reasons.iter_rows())


def _by_bucket(table: pl.DataFrame) -> dict[str, int]:
    sizes = ["bucket_width", "bucket_height"]
    groups = table.drop_nulls(sizes).group_by(sizes).len().sort(sizes)
    return {bucket_name((w, h)): n for w, h, n in groups.iter_rows()}
