"""Where a dataset's URLs come from: the demo world, or a Parquet list as LAION publishes them."""

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from darkroom.config.dataset import DemoSource, ListSource
from darkroom.store import write_table

# What a list may carry besides URL and alt-text, under the names that published lists use.
CARRIED = {"similarity": pl.Float64, "pwatermark": pl.Float64, "punsafe": pl.Float64, "width": pl.Int64, "height": pl.Int64}


def count_rows(source: DemoSource | ListSource) -> int:
    """How many URLs a source has, without reading them.

    Raises:
        ValueError: the list does not exist or is not Parquet; names it.
    """
    if isinstance(source, DemoSource):
        from darkroom.demo.world import count_rows as count_demo_rows

        return count_demo_rows(source)
    if not Path(source.path).exists():
        raise ValueError(f"source.path: no file {source.path}; it should be a Parquet list of URLs")
    return int(pq.read_metadata(source.path).num_rows)


def write_urls(source: ListSource, out: str | Path) -> None:
    """Write the list in darkroom's columns: row, url, caption and what of CARRIED it has.

    Column names are matched whatever their case; what a list lacks is null.

    Raises:
        ValueError: the URL or caption column is missing; names the file and what it has.
    """
    table = pl.read_parquet(source.path)
    for key in ("url_column", "caption_column"):
        name = getattr(source, key)
        if name not in table.columns:
            raise ValueError(f"{source.path}: no column {name!r} (source.{key}); it has {', '.join(table.columns)}")
    lower = {column.lower(): column for column in table.columns}
    carried = [
        (pl.col(lower[name]).cast(kind, strict=False) if name in lower else pl.lit(None, kind)).alias(name)
        for name, kind in CARRIED.items()
    ]
    rows = table.select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
        pl.col(source.url_column).cast(pl.String).alias("url"),
        pl.col(source.caption_column).cast(pl.String).alias("caption"),
        *carried,
    )
    write_table(out, rows, sort_by="row")
