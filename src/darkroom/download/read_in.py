"""The download of one part of a list of local files: read, checked and decoded as pictures of the web are."""

import io
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from darkroom.config.dataset import Download
from darkroom.download import status as words
from darkroom.download.decode import Decoder, Refused
from darkroom.download.stage import read_rows, work_folder
from darkroom.download.status import Failure
from darkroom.download.writer import Collector, write_part

CAPTION_ENDING = ".txt"
# A row's URL -> (folder below which it must lie, file).
PathOf = Callable[[str], tuple[Path, Path]]

_log = logging.getLogger(__name__)


def read_in_part(
    urls: str | Path,
    first_row: int,
    num_rows: int,
    settings: Download,
    tar: str | Path,
    table: str | Path,
    path_of: PathOf,
) -> dict[str, int | dict[str, int]]:
    """As `download.stage.download_part`, for rows whose URLs `path_of` turns into (folder, file).

    Only regular files below their folder are read; a link that leads outside ends as blocked_path. A row
    of a .txt file is a caption that lacks its picture. The same files give the same bytes.

    Returns:
        {"rows": n, "status": {status: n}}.
    """
    tar = Path(tar)
    rows, decoder = read_rows(urls, first_row, num_rows), Decoder(settings)
    with work_folder(tar) as folder, Collector(folder, len(rows), tar.stem) as collector:
        for place, row in enumerate(rows.iter_rows(named=True)):
            try:
                content = _read(row, path_of, settings.max_bytes)
            except Refused as refused:
                collector.outcomes[place] = Failure(refused.status, refused.error)
            else:
                picture, *_, message = decoder(io.BytesIO(content))
                collector.write(picture, str(place), None, {"error_message": message})
        if collector.failure is not None:
            raise collector.failure
        made = write_part(rows, collector.outcomes, collector, tar, table)
        collector.log_progress()
    counts = Counter(made["status"].to_list())
    _log.info("%s: %d rows, %d pictures", tar.stem, len(rows), counts[words.OK])
    return {"rows": len(rows), "status": dict(sorted(counts.items()))}


def _read(row: Mapping[str, Any], path_of: PathOf, max_bytes: int) -> bytes:
    """The bytes of a row's picture.

    Raises:
        Refused: no_picture, no_caption, blocked_path, unreadable_file or too_many_bytes.
    """
    root, path = path_of(row["url"])
    if path.suffix.lower() == CAPTION_ENDING:
        raise Refused(words.NO_PICTURE, "no picture stands beside this caption")
    if row["caption"] is None:
        wanted = path.with_suffix(CAPTION_ENDING).name
        raise Refused(words.NO_CAPTION, f"no {wanted} with words in UTF-8 stands beside it")
    if not path.resolve().is_relative_to(root.resolve()):
        raise Refused(words.BLOCKED_PATH, "the file lies outside the source's folder")
    try:
        # Neither a named pipe nor a device can make the job wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Refused(words.UNREADABLE_FILE, "it is no regular file")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise Refused(words.UNREADABLE_FILE, f"the file cannot be read ({error.strerror})") from error
    if len(content) > max_bytes:
        raise Refused(words.TOO_MANY_BYTES, f"the file is larger than max_bytes = {max_bytes}")
    return content
