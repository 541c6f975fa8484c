"""The download of one part of a list of local files: read, checked and decoded as pictures of the web are."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.download import status as words
from darkroom.download.decoders import Decoders, Picture
from darkroom.download.stage import NO_URL, part_counts, read_rows, work_folder
from darkroom.download.status import Failure, Refused
from darkroom.download.writer import Collector, Spool, Stored, write_part
from darkroom.settings.download import Download

# (a row, max_bytes) -> the bytes of its picture. Raises Refused with the status that it ends with.
ReadRow = Callable[[Mapping[str, Any], int], bytes]

_log = logging.getLogger(__name__)


def download_local_part(
    urls: str | Path,
    first_row: int,
    num_rows: int,
    settings: Download,
    tar: str | Path,
    table: str | Path,
    read: ReadRow,
    rows_sha256: str | None = None,
    num_decoders: int = 1,
) -> dict[str, int | dict[str, int]]:
    """As `download.stage.download_part`, for rows whose pictures `read` reads. The same files give the same bytes.

    Returns: as there.
    """
    tar = Path(tar)
    rows, not_finite = read_rows(urls, first_row, num_rows, rows_sha256)
    with (
        work_folder(tar) as folder,
        Spool(folder) as spool,
        Decoders(settings, num_decoders) as decoders,
        ThreadPoolExecutor(num_decoders) as threads,
    ):
        collector, writing = Collector(spool, len(rows), tar.stem), threading.Lock()

        def read_in(place: int, row: Mapping[str, Any]) -> None:
            found = _picture(row, read, settings, decoders)
            with writing:
                collector.keep(place, found)

        started = [
            threads.submit(read_in, place, row) for place, row in enumerate(rows.iter_rows(named=True))
        ]
        try:
            for one in started:
                one.result()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
        if collector.failure is not None:
            raise collector.failure
        rows = _once_each(rows, collector.outcomes)
        made = write_part(rows, collector.outcomes, collector, tar, table)
        collector.log_progress()
    counts = Counter(made["status"].to_list())
    _log.info("%s: %d rows, %d pictures", tar.stem, len(rows), counts[words.OK])
    return part_counts(made, not_finite)


def _picture(
    row: Mapping[str, Any], read: ReadRow, settings: Download, decoders: Decoders
) -> Picture | Failure:
    """A row's picture, or why there is none."""
    if not row["url"]:
        return NO_URL
    try:
        content = read(row, settings.max_bytes)
    except Refused as refused:
        return Failure(refused.status, refused.error)
    return decoders.decode([content])


def _once_each(rows: pl.DataFrame, outcomes: dict[int, Stored | Failure]) -> pl.DataFrame:
    """Keep of pictures with the same URL and bytes the first, with the captions of all of them."""
    first: dict[tuple[str, str], int] = {}
    captions: dict[int, list[str]] = {}
    for place, row in enumerate(rows.iter_rows(named=True)):
        found = outcomes[place]
        if isinstance(found, Failure):
            continue
        picture = found.picture
        same = first.setdefault((row["url"], picture.sha256), place)
        told = captions.setdefault(same, [])
        told += [text for text in row.get("captions") or [row["caption"]] if text and text not in told]
        if same != place:
            error = f"row {rows['row'][same]} has the same URL and bytes, and keeps this row's caption"
            outcomes[place] = Failure(words.DUPLICATE_URL, error, picture.sha256, picture.num_bytes)
    several = [told if len(told := captions.get(place, [])) > 1 else None for place in range(len(rows))]
    return rows.with_columns(pl.Series("captions", several, pl.List(pl.String)))
