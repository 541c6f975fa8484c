"""A part's table scored (size, copies), selected by six criteria and put into buckets: ours, and one polars query.

The query reads the same table once and writes the kept rows with their buckets. Ours goes through the stages,
which also write what every scorer says of every row, and why each row is not kept. Both must give the same kept
rows, buckets and crops.

    python speed/score_select_bucket.py
    python speed/score_select_bucket.py --size small
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import race
from race import OURS, Race, Side, Sizes, Work

KEPT = [
    "uid",
    "row",
    "bucket_width",
    "bucket_height",
    "resized_width",
    "resized_height",
    "crop_left",
    "crop_top",
]
KEEP: list[dict[str, Any]] = [
    {"column": "pwatermark", "max": 0.5},
    {"column": "punsafe", "max": 0.5},
    {"column": "min_side_px", "min": 256},
    {"column": "aspect_ratio", "max": 3.0},
    {"column": "duplicate", "equals": False},
]
RESOLUTION_PX = 512


def write_part(path: Path, num_rows: int, first_row: int = 0) -> None:
    """A download table: nine rows of ten have a picture, one of twenty of these is another's copy."""
    import polars as pl

    from darkroom.store import write_table

    random = np.random.default_rng(first_row)
    rows = np.arange(first_row, first_row + num_rows)
    stored = random.random(num_rows) < 0.9
    content = np.where(random.random(num_rows) < 0.05, rows - 1, rows)
    width, height = random.integers(200, 1025, (2, num_rows))
    digests = [hashlib.sha256(f"content {number}".encode()).hexdigest() for number in content]
    table = pl.DataFrame(
        {
            "uid": [hashlib.sha256(f"row {row}".encode()).hexdigest()[:32] for row in rows],
            "row": rows,
            "url": [f"https://pictures.example/some/folder/{row:09d}.jpg" for row in rows],
            "caption": [f"{row} a caption of about as many words as those of the web have" for row in rows],
            "pwatermark": random.random(num_rows, np.float32),
            "punsafe": random.random(num_rows, np.float32) / 1.8,
            "status": np.where(stored, "ok", np.where(rows % 3, "http_404", "timeout")),
            "round": pl.repeat(0, num_rows, dtype=pl.Int32, eager=True),
            "sha256": digests,
            "width": pl.Series(width, dtype=pl.Int32),
            "height": pl.Series(height, dtype=pl.Int32),
        }
    )
    no_picture = pl.col("status") != "ok"
    gone = [pl.when(~no_picture).then(name).alias(name) for name in ("sha256", "width", "height")]
    write_table(path, table.with_columns(gone))


def select(table: Path, folder: Path) -> Path:
    """Score and select a part; where its selection is."""
    from darkroom.config.keep import Criterion
    from darkroom.filter import select_part
    from darkroom.score import score_dataset, score_part
    from darkroom.scorers.table import SCORERS

    files = {name: folder / f"{table.stem}.{name}.parquet" for name in ("size", "duplicate")}
    score_part("size", {}, table, None, files["size"])
    score_dataset("duplicate", {}, [table], files["duplicate"])
    columns: dict[str | Path, list[str]] = {path: list(SCORERS[name].columns) for name, path in files.items()}
    keep = [Criterion.model_validate(values) for values in KEEP]
    select_part(table, columns, keep, folder / f"{table.stem}.selection.parquet")
    return folder / f"{table.stem}.selection.parquet"


def ours(folder: Path, sizes: Sizes) -> Work:
    import polars as pl

    from darkroom.bucket import bucket_part
    from darkroom.config.bucket import Bucket

    def run() -> None:
        selection = select(folder / "part.parquet", folder)
        settings = Bucket(resolution_px=RESOLUTION_PX)
        bucket_part(folder / "part.parquet", selection, settings, folder / "buckets.parquet")

    def answer() -> list[Any]:
        run()
        return digest(pl.read_parquet(folder / "buckets.parquet"))

    return Work(run, answer)


def polars(folder: Path, sizes: Sizes) -> Work:
    import polars as pl

    from darkroom.bucket import make_buckets
    from darkroom.config.bucket import Bucket

    buckets = np.array(make_buckets(Bucket(resolution_px=RESOLUTION_PX)))
    logs = np.log(buckets[:, 0] / buckets[:, 1])
    edges = pl.Series((logs[1:] + logs[:-1]) / 2)
    wide, high = (pl.lit(pl.Series(side)) for side in buckets.T)
    w, h, bw, bh = (
        pl.col(name).cast(pl.Int64) for name in ("width", "height", "bucket_width", "bucket_height")
    )
    is_tall = bw * h >= bh * w

    def run() -> None:
        shorter, longer = pl.min_horizontal("width", "height"), pl.max_horizontal("width", "height")
        stored = pl.scan_parquet(folder / "part.parquet").filter(pl.col("status") == "ok")
        kept = stored.filter(
            ~(pl.col("pwatermark") > 0.5),
            ~(pl.col("punsafe") > 0.5),
            shorter >= 256,
            longer / shorter <= 3.0,
            pl.col("row").min().over("sha256") == pl.col("row"),
        )
        chosen = kept.with_columns(
            place=pl.lit(edges).search_sorted((pl.col("width") / pl.col("height")).log(), side="left")
        )
        placed = chosen.with_columns(bucket_width=wide.gather("place"), bucket_height=high.gather("place"))
        sized = placed.with_columns(
            resized_width=pl.when(is_tall).then(bw).otherwise((2 * w * bh + h) // (2 * h)),
            resized_height=pl.when(is_tall).then((2 * h * bw + w) // (2 * w)).otherwise(bh),
            small=pl.when(is_tall).then(bw > w).otherwise(bh > h),
        ).filter(~pl.col("small"))
        cropped = sized.with_columns(
            crop_left=(pl.col("resized_width") - bw) // 2, crop_top=(pl.col("resized_height") - bh) // 2
        )
        cropped.select(KEPT).sink_parquet(folder / "query.parquet", compression="zstd")

    def answer() -> list[Any]:
        run()
        return digest(pl.read_parquet(folder / "query.parquet"))

    return Work(run, answer)


def digest(buckets: Any) -> list[Any]:
    """Of the rows that have a bucket, whatever their order and the width of their integers."""
    import polars as pl

    rows = buckets.filter(pl.col("bucket_width").is_not_null()).select(KEPT).sort("row")
    return [len(rows), hashlib.sha256(rows.write_csv().encode()).hexdigest()]


RACE = Race(
    title="score + select + bucket",
    told=lambda sizes: f"a part of {sizes['rows']:,} rows",
    sizes={"smallest": {"rows": 2_000}, "small": {"rows": 500_000}, "large": {"rows": 500_000}},
    prepare=lambda folder, sizes: write_part(folder / "part.parquet", sizes["rows"]),
    sides=(Side(OURS, ours), Side("one polars query", polars, 0.7)),
)

if __name__ == "__main__":
    race.main(RACE, __doc__)
