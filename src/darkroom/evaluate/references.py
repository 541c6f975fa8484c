"""Real pictures to compare with: the first kept ones by uid, resized and cropped as training saw them."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from darkroom.store import TarReader, read_table

_PLACE = ["bucket_width", "bucket_height", "resized_width", "resized_height", "crop_left", "crop_top"]


@dataclass(frozen=True)
class References:
    """Where real pictures come from: download tables, their tars and bucket tables, part by part."""

    tables: Sequence[str | Path]
    tars: Sequence[str | Path]
    buckets: Sequence[str | Path]

    def __post_init__(self) -> None:
        if not len(self.tables) == len(self.tars) == len(self.buckets) > 0:
            raise ValueError(
                f"{len(self.tables)} download tables, {len(self.tars)} tars and {len(self.buckets)} bucket"
                " tables; one of each for every part is needed"
            )


def choose(references: References, number: int) -> pl.DataFrame:
    """The first `number` pictures by uid that have a bucket: uid, part, offset, size and their crop.

    Raises:
        ValueError: fewer than two pictures have a bucket.
    """
    parts = []
    for index, (table, buckets) in enumerate(zip(references.tables, references.buckets, strict=True)):
        places = read_table(buckets, ["uid", *_PLACE]).drop_nulls()
        stored = read_table(table, ["uid", "width", "height", "offset", "size"])
        parts.append(places.join(stored, on="uid").with_columns(part=pl.lit(index)))
    chosen = pl.concat(parts).sort("uid").head(number)
    if chosen.height < 2:
        raise ValueError(f"{chosen.height} reference pictures have a bucket; distances need two or more")
    return chosen


def read_references(references: References, chosen: pl.DataFrame) -> Iterator[np.ndarray]:
    """The chosen pictures, uint8 (bucket_height, bucket_width, 3), part by part and by uid in each."""
    for (part,), rows in chosen.sort("part", "uid").group_by(["part"], maintain_order=True):
        path = references.tars[int(str(part))]
        with TarReader(path) as tar:
            for row in rows.iter_rows(named=True):
                yield _crop(tar.read(row["offset"], row["size"]), row, f"{path}, {row['uid']}")


def _crop(content: bytes, row: dict, where: str) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        if picture.size != (row["width"], row["height"]):
            raise ValueError(f"{where}: is {picture.size}, its table says {(row['width'], row['height'])}")
        size = (row["resized_width"], row["resized_height"])
        left, top = row["crop_left"], row["crop_top"]
        box = (left, top, left + row["bucket_width"], top + row["bucket_height"])
        resized = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        return np.asarray(resized.crop(box))
