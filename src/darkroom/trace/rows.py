"""The rows of all datasets that a uid, a URL or a picture is of."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.sources.base import SCHEME
from darkroom.sources.withdrawn import digest_of
from darkroom.store import TarReader, sha256_file

DATASETS = Path("results/datasets")
_UID = re.compile(r"[0-9a-f]{32}")
_SHORT = 16  # hex digits of a digest that a person is shown


@dataclass(frozen=True)
class Found:
    """A row of a download's table.

    Attributes:
        dataset: name.
        table: the part's table of the download stage.
        row: the table's columns.
        how: how the row was recognised, where it was by a picture; else empty.
    """

    dataset: str
    table: Path
    row: dict[str, Any]
    how: str = ""

    @property
    def part(self) -> str:
        """The part's name."""
        return self.table.stem


def find(what: str, root: Path = Path()) -> list[Found]:
    """The rows that `what` means: a file with a picture, a uid, or a URL, in this order.

    Raises:
        ValueError: it is none of these.
        OSError: the file cannot be read.
    """
    if Path(what).is_file():
        return find_picture(Path(what), root)
    if _UID.fullmatch(what):
        return list(_rows(root, pl.col("uid") == what))
    if "://" in what or what.startswith(SCHEME):
        return find_urls({digest_of(what)}, root)
    raise ValueError(
        f"{what}: is no file here, no uid (32 of 0-9 and a-f) and no URL (http://..., or {SCHEME}...)"
    )


def find_urls(digests: Collection[str], root: Path = Path()) -> list[Found]:
    """The rows whose URL has one of these digests (`sources.withdrawn.digest_of`)."""
    found = []
    for dataset, path in tables(root):
        urls = pl.read_parquet(path, columns=["url"])["url"]
        places = [place for place, url in enumerate(urls) if url and digest_of(url) in digests]
        if places:
            rows = pl.read_parquet(path)[places]
            found += [Found(dataset, path, row) for row in rows.iter_rows(named=True)]
    return found


def find_digest(sha256: Collection[str], root: Path = Path()) -> list[Found]:
    """The rows with a picture whose bytes, as they were downloaded, have one of these digests."""
    return list(_rows(root, pl.col("sha256").is_in(list(sha256)) & (pl.col("status") == "ok")))


def find_picture(path: Path, root: Path = Path()) -> list[Found]:
    """The rows that a picture is of: its bytes are those that were downloaded, or those that were stored.

    Raises:
        OSError: it cannot be read.
    """
    digest, size = sha256_file(path), path.stat().st_size
    of_web = [
        Found(one.dataset, one.table, one.row, f"its bytes are those that were downloaded ({_stored(one)})")
        for one in _rows(root, pl.col("sha256") == digest)
    ]
    content = path.read_bytes()
    here = _rows(root, (pl.col("size") == size) & (pl.col("status") == "ok"))
    how = "it is the JPEG that was stored; the bytes that were downloaded are others, and were re-encoded"
    of_tars = [Found(one.dataset, one.table, one.row, how) for one in here if _jpeg(one) == content]
    return of_web + of_tars


def not_found(what: str) -> str:
    """What to say where `find` finds nothing."""
    if not Path(what).is_file():
        return f"{what}: no row of {DATASETS} has it"
    digest = sha256_file(what)
    return (
        f"{what}: nothing here was downloaded or stored with these bytes (SHA-256 {digest[:_SHORT]}...); a picture"
        " that was saved again, in another size or format, has others: try its URL"
    )


def tables(root: Path) -> Iterator[tuple[str, Path]]:
    """(dataset, table) of every part that was downloaded."""
    for path in sorted((root / DATASETS).glob("*/download/*.parquet")):
        yield path.parts[-3], path


def _rows(root: Path, where: pl.Expr) -> Iterator[Found]:
    for dataset, path in tables(root):
        for row in pl.scan_parquet(path).filter(where).collect().iter_rows(named=True):
            yield Found(dataset, path, row)


def _stored(found: Found) -> str:
    row = found.row
    if row["status"] != "ok":
        return f"which were refused: {row['status']}"
    sizes = f"{row['original_width']}x{row['original_height']}", f"{row['width']}x{row['height']}"
    return "stored re-encoded as a JPEG of " + (
        sizes[1] if sizes[0] == sizes[1] else " from ".join(sizes[::-1])
    )


def _jpeg(found: Found) -> bytes:
    """The bytes in the tar; none where it is not there."""
    try:
        with TarReader(found.table.with_suffix(".tar")) as tar:
            return tar.read(found.row["offset"], found.row["size"])
    except (OSError, ValueError):
        return b""
