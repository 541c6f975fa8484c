"""The download of one part of a URL list: img2dataset drives, our opener and decoder do the work."""

import importlib
import importlib.util
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from darkroom.config.dataset import Download
from darkroom.download import status as words
from darkroom.download.decode import Decoder
from darkroom.download.fetch import PictureOpener, installed
from darkroom.download.policy import parse_url
from darkroom.download.status import Failure, FetchError
from darkroom.download.writer import Collector, Stored, write_part

COLUMNS = {
    "row": pl.Int64,
    "url": pl.String,
    "caption": pl.String,
    "similarity": pl.Float64,
    "pwatermark": pl.Float64,
    "punsafe": pl.Float64,
}
"""Columns that a URL list must have; only `row` may not be null."""

_log = logging.getLogger(__name__)


def download_part(
    urls: str | Path,
    first_row: int,
    num_rows: int,
    settings: Download,
    tar: str | Path,
    table: str | Path,
    connect_to: Mapping[str, str] | None = None,
) -> dict[str, int | dict[str, int]]:
    """Fetch rows [first_row, first_row + num_rows) of `urls` into `tar` and `table`.

    The same answers of the servers give the same bytes of both files. One call at a time in a
    process, because the opener is installed under `urllib.request`. Memory is bounded by
    3 x num_threads bodies of at most max_bytes each, plus one picture of at most max_pixels, which
    costs up to 13 bytes a pixel while it is reduced (RGBA; measured).

    Args:
        urls: Parquet list with `COLUMNS`, its column `row` counting from 0.
        first_row: first row of the part.
        num_rows: rows of the part; the last part of a list may have fewer.
        settings: the `download` section.
        tar: WebDataset shard of the pictures that arrived (<uid>.jpg, .json, .txt).
        table: one row a row of the part, see `writer.SCHEMA`.
        connect_to: "host:port" -> "ip:port" instead of a look-up.

    Returns:
        {"rows": n, "status": {status: n}}.

    Raises:
        ValueError: the list lacks a column or rows, or its rows are not counted from 0.
        OSError: a file cannot be written.
    """
    tar = Path(tar)
    rows = read_rows(urls, first_row, num_rows)
    opener = PictureOpener(settings, connect_to)
    outcomes: dict[int, Stored | Failure] = dict(_settled(rows))
    todo = [i for i in range(len(rows)) if i not in outcomes]
    with (
        work_folder(tar) as folder,
        Collector(folder, len(todo), tar.stem) as collector,
        installed(opener),
    ):
        if todo:
            _run_img2dataset([rows["url"][i] for i in todo], settings, folder, collector)
        for key, i in enumerate(todo):
            outcomes[i] = collector.outcomes.get(key) or Failure(
                words.INTERNAL_ERROR, "img2dataset reported nothing about this row"
            )
        made = write_part(rows, outcomes, collector, tar, table)
        collector.log_progress()
    counts = Counter(made["status"].to_list())
    _log.info("%s: %d rows, %d pictures", tar.stem, len(rows), counts[words.OK])
    return {"rows": len(rows), "status": dict(sorted(counts.items()))}


def read_rows(urls: str | Path, first_row: int, num_rows: int) -> pl.DataFrame:
    """The part's rows of the list, with the types of `COLUMNS` and NaN as null."""
    if first_row < 0 or num_rows < 1:
        raise ValueError(f"first_row {first_row} and num_rows {num_rows} should be >= 0 and >= 1")
    everything = pl.scan_parquet(urls)
    _check_columns(urls, everything.collect_schema())
    total = everything.select(pl.len()).collect().item()
    if first_row >= max(total, 1):
        raise ValueError(f"{urls}: row {first_row} is past the end; the list has {total} rows")
    rows = everything.slice(first_row, num_rows).select(list(COLUMNS)).collect().cast(pl.Schema(COLUMNS))
    expected = pl.int_range(first_row, first_row + len(rows), eager=True)
    wrong = rows["row"].ne_missing(expected).arg_true()
    if len(wrong):
        line = wrong[0]
        raise ValueError(
            f"{urls}: line {expected[line]} has row {rows['row'][line]}; column 'row' should count from 0"
        )
    return rows.with_columns(pl.col(pl.Float64).fill_nan(None))


def _check_columns(urls: str | Path, schema: pl.Schema) -> None:
    for name, kind in COLUMNS.items():
        if name not in schema:
            raise ValueError(f"{urls}: no column {name!r}; it has {', '.join(schema.names())}")
        found = schema[name]
        fits = found == kind if kind == pl.String else found.is_numeric()
        if not fits and found != pl.Null:
            wanted = "text" if kind == pl.String else "numbers"
            raise ValueError(f"{urls}: column {name!r} holds {found}, it should hold {wanted}")


def _settled(rows: pl.DataFrame) -> Iterator[tuple[int, Failure]]:
    """The rows (by position) that end without a fetch: URLs we do not fetch, and repeated ones."""
    first: dict[str, int] = {}
    for i, url in enumerate(rows["url"]):
        url = url or ""
        if first.setdefault(url, i) != i:
            row = rows["row"][first[url]]
            yield i, Failure(words.DUPLICATE_URL, f"row {row} has the same URL")
            continue
        try:
            parse_url(url)
        except FetchError as error:
            yield i, error.failure


@contextmanager
def work_folder(tar: Path) -> Iterator[Path]:
    """A folder beside the output; one that a killed job left behind is removed first."""
    folder = tar.parent / f".{tar.name}.work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_img2dataset(urls: list[str], settings: Download, folder: Path, collector: Collector) -> None:
    """Have img2dataset fetch and decode `urls`; the outcomes arrive in `collector`."""
    shard = folder / "urls.arrow"
    with pa.OSFile(str(shard), "wb") as file:
        content = pa.table({"url": pa.array(urls, pa.string())})
        with pa.ipc.new_file(file, content.schema) as sink:
            sink.write_table(content)
    downloader = _downloader_class()(
        sample_writer_class=lambda *_: collector,
        resizer=Decoder(settings),
        thread_count=settings.num_threads,
        save_caption=False,
        extract_exif=False,
        output_folder=str(folder),
        column_list=["url"],
        timeout=settings.timeout_s,
        number_sample_per_shard=max(len(urls), 2),
        oom_shard_count=1,
        compute_hash=None,
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,  # the opener tries transient failures again, and only those
        user_agent_token=None,  # the opener sends its own headers
        disallowed_header_directives=None,  # the opener looks at them before it reads the body
    )
    downloader.download_shard((0, str(shard)))
    if collector.failure is not None:
        raise collector.failure


def _downloader_class() -> Any:
    """`img2dataset.downloader.Downloader`, without running img2dataset/__init__.py.

    That file imports every back-end it has: 5 s and 660 MB instead of 1 s and 90 MB, and one of
    them asks a package index for updates. The module we need imports none of that.
    """
    if "img2dataset" in sys.modules or "img2dataset.downloader" in sys.modules:
        return importlib.import_module("img2dataset.downloader").Downloader
    spec = importlib.util.find_spec("img2dataset")
    assert spec is not None, "img2dataset is a declared dependency"
    sys.modules["img2dataset"] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module("img2dataset.downloader").Downloader
    finally:
        del sys.modules["img2dataset"]  # another importer gets the whole package
