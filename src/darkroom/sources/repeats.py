"""Rows that share a URL: the picture is got once, with the captions of all of them (in COCO five)."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from darkroom.download.writer import PLACE

# Of rows that share a URL; more is a list of something else than captions of one picture.
MAX_CAPTIONS = 100
# What a row has of the others with its URL: all captions of these, in the first one where they are several, and in
# the others the number of the first.
COLUMNS = {"captions": pl.List(pl.String()), "repeat_of": pl.Int64()}


_FIRST = ("url", "caption")
_MATTERS = pl.DataFrame(
    schema={"row": pl.Int64(), "url": pl.String(), "caption": pl.String(), "captions": COLUMNS["captions"]}
)


def whole(batch: pl.DataFrame) -> pl.DataFrame:
    """A batch with all columns of a list but the row's number, null where it lacks one."""
    missing = [pl.lit(None, kind).alias(name) for name, kind in COLUMNS.items() if name not in batch.columns]
    others = [name for name in batch.columns if name not in (*_FIRST, *COLUMNS)]
    return batch.with_columns(missing).select(*_FIRST, *COLUMNS, *others)


class SharedUrls:
    """Finds rows with one URL in a list that is too long for memory: 8 bytes a row, and what is repeated."""

    def __init__(self) -> None:
        self._hashes: list[npt.NDArray[np.uint64]] = []

    def watch(self, batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """The same batches, once they have been looked at."""
        for batch in batches:
            url = batch["url"].fill_null("")
            # Rows without a URL share none, nor do those that have a picture of their own whatever their URL.
            shares = url != ""
            if PLACE in batch.columns:
                shares &= batch[PLACE].is_null()
            rows = batch["row"].to_numpy().astype(np.uint64)
            self._hashes.append(np.where(shares.to_numpy(), url.hash().to_numpy(), rows))
            yield batch

    def find(self, rows: Callable[[], Iterable[pl.DataFrame]]) -> pl.DataFrame:
        """row, captions and repeat_of of the rows that share their URL; `rows` gives what was watched again."""
        hashes = np.concatenate([*self._hashes, np.empty(0, np.uint64)])
        ordered = np.sort(hashes)
        shared = np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]])
        del ordered
        alike = [_MATTERS]
        for batch in rows() if shared.any() else ():
            first = batch["row"][0] if len(batch) else 0
            own = batch.filter(pl.Series(shared[first : first + len(batch)], dtype=pl.Boolean))
            alike.append(own.select(_MATTERS.columns))
        return _shared(pl.concat(alike).filter(pl.col("url").fill_null("") != ""))


def _shared(alike: pl.DataFrame) -> pl.DataFrame:
    """Of rows whose URLs may be shared, those where they are."""
    own = pl.col("captions").fill_null(pl.concat_list("caption"))
    rows = alike.with_columns(own, first=pl.col("row").min().over("url"), num=pl.len().over("url"))
    rows = rows.filter(pl.col("num") > 1)
    told = pl.col("captions").explode()
    several = (
        rows.sort("row")
        .group_by("first")
        .agg(
            told.filter(told.fill_null("").str.strip_chars() != "")
            .unique(maintain_order=True)
            .head(MAX_CAPTIONS)
        )
    )
    several = several.with_columns(pl.when(pl.col("captions").list.len() > 1).then("captions"))
    repeat_of = pl.when(pl.col("row") != pl.col("first")).then("first").alias("repeat_of")
    found = rows.select("row", repeat_of).join(several, left_on="row", right_on="first", how="left")
    return found.select("row", "captions", "repeat_of").sort("row")


def with_shared(batches: Iterable[pl.DataFrame], shared: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Batches of rows, with what `SharedUrls.find` found out of them."""
    for batch in batches:
        first, last = (batch["row"][0], batch["row"][-1]) if len(batch) else (0, -1)
        found = shared.filter(pl.col("row").is_between(first, last)).with_columns(is_shared=True)
        joined = batch.join(found, on="row", how="left", suffix="_found", maintain_order="left")
        is_shared = pl.col("is_shared").fill_null(False)
        merged = [pl.when(is_shared).then(f"{name}_found").otherwise(name).alias(name) for name in COLUMNS]
        yield joined.with_columns(merged).select(batch.columns)
