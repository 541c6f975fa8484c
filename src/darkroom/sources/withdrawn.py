"""URLs that were withdrawn: a file beside the configuration, and the rows of a list that are empty for it.

`config/withdrawn/DATASET.txt` has a line for each: the SHA-256 of the URL, in hex, sorted. It is an input as the
list is, and goes with the configuration into Git: so it leads nobody to what was withdrawn, and yet says yes or no
to whoever asks of one. The row itself stays, without URL, caption and scores, as one that the list leaves empty:
all other rows keep their numbers and their parts, and only the withdrawn one's part changes.
"""

import hashlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.sources.base import SCHEME

if TYPE_CHECKING:
    import polars as pl

FOLDER, ENDING = "withdrawn", ".txt"
_HEAD = "# SHA-256 of each URL that was withdrawn from this dataset; `darkroom withdraw URL` adds one.\n"
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Most URLs are asked for as they stand.
_PLAIN = re.compile(
    r"https?://[a-z0-9.-]+/[A-Za-z0-9/%@!$&'()*+,;=~._-]*(\?[A-Za-z0-9/%@!$&'()*+,;=~._?-]+)?"
)


def withdrawn_path(dataset: str, config: str | Path = "config") -> Path:
    """The file with what was withdrawn from a dataset."""
    return Path(config) / FOLDER / f"{dataset}{ENDING}"


def read_withdrawn(dataset: str, config: str | Path = "config") -> frozenset[str]:
    """The digests of what was withdrawn from a dataset; none where there is no file.

    Raises:
        ValueError: a line is no digest; names file and line.
        OSError: the file cannot be read.
    """
    path = withdrawn_path(dataset, config)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return frozenset()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text in UTF-8 ({error.reason})") from None
    found = set()
    for number, line in enumerate(text.splitlines(), start=1):
        said = line.strip()
        if not said or said.startswith("#"):
            continue
        if not _DIGEST.fullmatch(said):
            raise ValueError(
                f"{path}: line {number} should be the SHA-256 of a URL, 64 of 0-9 and a-f; give"
                f" `darkroom withdraw URL`, which writes it"
            )
        found.add(said)
    return frozenset(found)


def write_withdrawn(dataset: str, digests: Iterable[str], config: str | Path = "config") -> Path:
    """Write the file anew, whole or not at all; returns its path."""
    from darkroom.store import replacing

    path = withdrawn_path(dataset, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_text(_HEAD + "".join(f"{digest}\n" for digest in sorted(digests)), encoding="utf-8")
    return path


def canonical(url: str) -> str:
    """What two URLs have in common that ask for the same: scheme and host in lower case, no fragment, quoted."""
    if _PLAIN.fullmatch(url) or url.startswith(SCHEME):
        return url
    from darkroom.download.policy import parse_url
    from darkroom.download.status import FetchError

    try:
        target = parse_url(url)
    except FetchError:
        return url.strip()
    return f"{target.scheme}://{target.host_header}{target.path}"


def digest_of(url: str) -> str:
    """What the file has of a URL."""
    return hashlib.sha256(canonical(url).encode("utf-8", "surrogatepass")).hexdigest()


def emptied(rows: "pl.DataFrame", withdrawn: Collection[str]) -> "pl.DataFrame":
    """Rows of a list, with nothing but the number in those whose URL was withdrawn."""
    if not withdrawn or rows.is_empty():
        return rows
    import polars as pl

    stays = pl.Series(
        [url is None or digest_of(url) not in withdrawn for url in rows["url"]], dtype=pl.Boolean
    )
    if stays.all():
        return rows
    others = [name for name in rows.columns if name != "row"]
    return rows.with_columns(pl.when(stays).then(pl.col(name)).alias(name) for name in others)
