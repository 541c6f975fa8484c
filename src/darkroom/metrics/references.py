"""Real pictures to compare with: the first kept ones by uid, resized and cropped as training saw them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from darkroom.apportion import apportion
from darkroom.metrics.gaussians import Gaussian
from darkroom.store import TarReader, read_manifest, read_table
from darkroom.store.pictures import decode_picture

_PLACE = ["bucket_width", "bucket_height", "resized_width", "resized_height", "crop_left", "crop_top"]
# That pictures are read in.
_ORDER = ("part", "uid", "row")


class RealPictures(Protocol):
    """Pictures to compare with."""

    def pictures(self, number: int) -> Iterator[np.ndarray]:
        """The first `number`: uint8 (height, width, 3), RGB."""

    def called(self, number: int) -> Sequence[str]:
        """What these are called, in the same order."""


@dataclass(frozen=True)
class Statistics:
    """What is known of real pictures whose features somebody else computed; `sha256` of the file that tells it."""

    gaussian: Gaussian
    sha256: str


@dataclass(frozen=True)
class References:
    """Where real pictures come from: download tables, their tars and bucket tables, part by part.

    Where they are of several datasets, `owners` names each part's, and `samples` says how many samples of each a
    training saw: as many of the pictures are of each as that is of all samples.
    """

    tables: Sequence[str | Path]
    tars: Sequence[str | Path]
    buckets: Sequence[str | Path]
    owners: Sequence[str] = ()
    samples: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.tables) == len(self.tars) == len(self.buckets) > 0:
            raise ValueError(
                f"{len(self.tables)} download tables, {len(self.tars)} tars and {len(self.buckets)} bucket"
                " tables; one of each for every part is needed"
            )

    def pictures(self, number: int, span: slice = slice(None)) -> Iterator[np.ndarray]:
        """The first `number`, see `choose` and `read_references`; of these a span."""
        return read_references(self, choose(self, number).sort(*_ORDER)[span])

    def called(self, number: int) -> list[str]:
        """The uids of these."""
        uids: list[str] = choose(self, number).sort(*_ORDER)["uid"].to_list()
        return uids


def references_of(
    tables: Sequence[str | Path],
    tars: Sequence[str | Path],
    buckets: Sequence[str | Path],
    trained: str | Path | None = None,
) -> References:
    """The real pictures of files as rules name them, download tables in the folder of their dataset.

    Args:
        trained: of several datasets the training's manifest: of each as much as the training took of it.
    """
    samples = read_manifest(trained)["counts"]["visits_by_dataset"] if trained else {}
    owners = [Path(table).parent.parent.name for table in tables]
    return References(tables, tars, buckets, owners, samples)


def choose(references: References, number: int) -> pl.DataFrame:
    """The first `number` pictures by uid that have a bucket: uid, row, part, offset, size and their crop.

    Of several datasets the first of each, in the shares that the training had; fewer in all, where a dataset has
    not enough for its share.

    Raises:
        ValueError: fewer than two pictures have a bucket.
    """
    parts = []
    for index, (table, buckets) in enumerate(zip(references.tables, references.buckets, strict=True)):
        places = read_table(buckets, ["uid", "row", *_PLACE]).drop_nulls()
        stored = read_table(table, ["uid", "row", "width", "height", "offset", "size"])
        parts.append(places.join(stored, on=["uid", "row"]).with_columns(part=pl.lit(index)))
    chosen = pl.concat(_first(references, parts, number))
    if chosen.height < 2:
        raise ValueError(f"{chosen.height} reference pictures have a bucket; distances need two or more")
    return chosen


def _first(references: References, parts: Sequence[pl.DataFrame], number: int) -> list[pl.DataFrame]:
    """Of each dataset, the first pictures by uid."""
    if not references.samples:
        return [pl.concat(parts).sort("uid", "row").head(number)]
    of_each = [
        pl.concat(part for part, owner in zip(parts, references.owners, strict=True) if owner == name)
        for name in references.samples
    ]
    wishes = list(references.samples.values())
    enough = [of.height * sum(wishes) // wish for of, wish in zip(of_each, wishes, strict=True) if wish]
    numbers = apportion(min(number, *enough), wishes)
    return [of.sort("uid", "row").head(n) for of, n in zip(of_each, numbers, strict=True)]


def read_references(references: References, chosen: pl.DataFrame) -> Iterator[np.ndarray]:
    """The chosen pictures, uint8 (bucket_height, bucket_width, 3), part by part and by uid in each."""
    for (part,), rows in chosen.sort(*_ORDER).group_by(["part"], maintain_order=True):
        with TarReader(references.tars[int(str(part))]) as tar:
            for row in rows.iter_rows(named=True):
                yield decode_picture(tar.read(row["offset"], row["size"]), row)
