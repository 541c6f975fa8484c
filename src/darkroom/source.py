"""Where a dataset's pictures come from: the demo world, a Parquet list as LAION publishes them, or folders."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from darkroom.config.dataset import AnySource, DemoSource, Download, ListSource
from darkroom.config.paths import local_path
from darkroom.download import download_part
from darkroom.download.read_in import read_in_part
from darkroom.folders import FolderSource, count_folder_rows, folders_of, list_folders, path_of
from darkroom.store import write_table

_log = logging.getLogger(__name__)

# What a list may carry besides URL and alt-text, under the names that published lists use.
CARRIED = {
    "similarity": pl.Float64(),
    "pwatermark": pl.Float64(),
    "punsafe": pl.Float64(),
    "width": pl.Int64(),
    "height": pl.Int64(),
}


def count_rows(source: AnySource) -> int:
    """How many URLs a source has, without reading them.

    Raises:
        ValueError: the list does not exist or is not Parquet, or a folder is missing or does not hold what
            it should; names it.
    """
    if isinstance(source, DemoSource):
        from darkroom.demo.layout import count_rows as count_demo_rows

        return count_demo_rows(source)
    if isinstance(source, FolderSource):
        return count_folder_rows(source)
    try:
        path = local_path(source.path)
    except ValueError as error:
        raise ValueError(f"source.path: {error}") from None
    if not path.exists():
        raise ValueError(f"source.path: no file {source.path}; it should be a Parquet list of URLs")
    return int(pq.read_metadata(path).num_rows)


def write_urls(source: AnySource, out: str | Path) -> int:
    """Write the list in darkroom's columns and return its number of rows.

    Columns: row, url, caption and CARRIED; names are matched whatever their case, and what a list
    lacks is null. The demo world first writes the list itself, as LAION's are (`list.parquet`), and
    the truth about it (`truth.parquet`), beside `out`.

    Raises:
        ValueError: the URL or caption column is missing; names the file and what it has.
    """
    if isinstance(source, FolderSource):
        return _write_folder_list(source, out)
    if isinstance(source, DemoSource):
        source = _write_demo_list(source, Path(out).parent)
    table = pl.read_parquet(local_path(source.path))
    for key in ("url_column", "caption_column"):
        name = getattr(source, key)
        if name not in table.columns:
            raise ValueError(
                f"{source.path}: no column {name!r} (source.{key}); it has {', '.join(table.columns)}"
            )
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
    return len(rows)


def download_from(
    source: AnySource,
    urls: str | Path,
    first_row: int,
    num_rows: int,
    settings: Download,
    tar: str | Path,
    table: str | Path,
) -> dict[str, Any]:
    """Make one part's tar and table: fetched, or read from the source's folders. Returns the part's counts."""
    part = (urls, first_row, num_rows, settings, tar, table)
    if isinstance(source, FolderSource):
        folders = folders_of(source)
        return read_in_part(*part, path_of=lambda url: path_of(url, folders))
    with _web_of(source, settings) as connect_to:
        return download_part(*part, connect_to=connect_to)


@contextmanager
def _web_of(source: AnySource, settings: Download) -> Iterator[dict[str, str] | None]:
    """Yield where the list's hosts are to be reached: the demo brings its own web server, which ends
    with the block; any other list is on the real web (None)."""
    if not isinstance(source, DemoSource):
        yield None
        return
    from darkroom.demo.server import running_server

    with running_server(source, settings) as web:
        yield web


def _write_folder_list(source: FolderSource, out: str | Path) -> int:
    found = list_folders(source)
    if found.num_others:
        _log.info("urls: %d files are neither pictures nor captions, and are left out", found.num_others)
    rows = pl.DataFrame(found.rows, schema={"url": pl.String, "caption": pl.String}, orient="row")
    nothing = [pl.lit(None, kind).alias(name) for name, kind in CARRIED.items()]
    numbered = rows.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64), *nothing)
    write_table(out, numbered, sort_by="row")
    return len(numbered)


def _write_demo_list(source: DemoSource, folder: Path) -> ListSource:
    from darkroom.demo.world import DemoWorld, write_urls

    path = folder / "list.parquet"
    write_urls(DemoWorld(source), path, folder / "truth.parquet")
    names = {"url": "URL", "caption": "TEXT", "width": "WIDTH", "height": "HEIGHT"}
    write_table(path, pl.read_parquet(path).drop("row").rename(names), sort_by=None)
    return ListSource(kind="list", path=str(path), url_column="URL", caption_column="TEXT")
