"""Sets of pictures that a training must not contain: tables of their hashes, made once for all parts."""

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from darkroom import store
from darkroom.score.stage import score_part
from darkroom.scorers import perceptual_hash
from darkroom.settings.download import Download
from darkroom.sources.base import Part, SourceSection
from darkroom.sources.pictures_at import pictures_at
from darkroom.sources.table import download_from, spec_of, write_urls

_ROWS_AT_A_TIME = 4096
# Nobody is trained on these: what their owners say of that matters not to what they are compared with.
_READING = Download(obey_marks=False)


def state_of(text: str) -> str:
    """What changes when the pictures of a set do: digest of the names, sizes and times of its files.

    Args:
        text: a folder of pictures, or tars or Parquet tables: a file, a folder or a pattern.

    Raises:
        ValueError: there are none.
    """
    pieces = spec_of(pictures_at(text)).pieces(pictures_at(text))
    stamps = {
        f"{piece.name}/{name}": stamp and list(stamp)[:2]
        for piece in pieces
        for name, stamp in piece.stamps.items()
    }
    return store.sha256_json(stamps)


def write_references(text: str, out: str | Path, num_decoders: int = 1) -> dict[str, int]:
    """Hash the pictures of a set.

    Args:
        text: as in `state_of`.
        out: a table with a row a picture, in the order of their names: picture (the URL that a dataset made of the
            same files would have), status, and the columns of `perceptual_hash`, null where the status is not ok.
        num_decoders: processes that decode; the table does not depend on it.

    Returns:
        status -> how many of its pictures have it.

    Raises:
        ValueError: there are none, or none of them can be read.
    """
    source = pictures_at(text)
    with TemporaryDirectory(dir=Path(out).parent, prefix=".references.") as name:
        folder = Path(name)
        num = write_urls(source, folder / "urls.parquet", [])
        chunks = [(first, min(_ROWS_AT_A_TIME, num - first)) for first in range(0, num, _ROWS_AT_A_TIME)]
        table = pl.concat([_hashed(source, folder, *chunk, num_decoders) for chunk in chunks])
    if not (table["status"] == "ok").any():
        said = ", ".join(
            f"{status} {n}" for status, n in table["status"].value_counts().sort("status").iter_rows()
        )
        raise ValueError(f"{text}: none of its pictures can be read ({said}); name the pictures of a set")
    store.write_table(out, table, sort_by=None)
    return dict(table.group_by("status").len().sort("status").iter_rows())


def _hashed(source: SourceSection, folder: Path, first: int, num: int, num_decoders: int) -> pl.DataFrame:
    tar, table, out = (folder / name for name in ("part.tar", "part.parquet", "hashes.parquet"))
    download_from(
        source, Part(folder / "urls.parquet", first, num, _READING, tar, table, num_decoders=num_decoders)
    )
    score_part(perceptual_hash.SPEC.name, {}, table, tar, out)
    rows = store.read_table(table, ["row", "url", "status"]).sort("row")
    hashes = store.read_table(out, ["row", *perceptual_hash.SPEC.columns])
    joined = rows.join(hashes, on="row", how="left", maintain_order="left", validate="1:1")
    return joined.select(pl.col("url").alias("picture"), "status", *perceptual_hash.SPEC.columns)
