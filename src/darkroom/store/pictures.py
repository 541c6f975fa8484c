"""Pictures of a part, read by offset out of its tar, resized and cropped to their buckets."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image, UnidentifiedImageError

from darkroom.store import TarReader

Row = dict[str, Any]


@dataclass(frozen=True)
class PictureBatch:
    """Pictures of one bucket: rows of the part's table, and pixels (B, H, W, 3) uint8."""

    bucket: tuple[int, int]
    rows: list[int]
    pixels: npt.NDArray[np.uint8]


def decode_picture(content: bytes, row: Row) -> npt.NDArray[np.uint8]:
    """One JPEG, resized to cover its bucket and cropped to it: (bucket_height, bucket_width, 3) RGB.

    Raises:
        ValueError: it is no JPEG, has other sides than the table says, or is damaged; names the uid.
    """
    size = (row["width"], row["height"])
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if image.size != size:
                raise ValueError(
                    f"picture {row['uid']}: the JPEG is {image.size[0]}x{image.size[1]}, "
                    f"the table says {size[0]}x{size[1]}; make the download part again"
                )
            resized = (row["resized_width"], row["resized_height"])
            # The decoder may halve a picture that stays at least twice as large as needed.
            image.draft(None, (2 * resized[0], 2 * resized[1]))
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"picture {row['uid']}: the tar holds no whole JPEG of it ({error})") from error
    if rgb.size != resized:
        rgb = rgb.resize(resized, Image.Resampling.LANCZOS)
    left, top = row["crop_left"], row["crop_top"]
    return np.asarray(rgb.crop((left, top, left + row["bucket_width"], top + row["bucket_height"])))


def picture_batches(pictures: pl.DataFrame, tar: str | Path, batch_size: int) -> Iterator[PictureBatch]:
    """All pictures of a part by bucket, in the table's order; the next batch is read ahead.

    `pictures` has uid, width, height, offset, size and the columns of the bucket table.
    """
    rows = list(pictures.iter_rows(named=True))
    by_bucket: dict[tuple[int, int], list[int]] = {}
    for number, row in enumerate(rows):
        by_bucket.setdefault((row["bucket_width"], row["bucket_height"]), []).append(number)
    chunks = [
        (bucket, numbers[start : start + batch_size])
        for bucket, numbers in sorted(by_bucket.items())
        for start in range(0, len(numbers), batch_size)
    ]
    with TarReader(tar) as reader, ThreadPoolExecutor(1) as ahead:

        def read(bucket: tuple[int, int], numbers: list[int]) -> PictureBatch:
            found = [rows[n] for n in numbers]
            pixels = [decode_picture(reader.read(row["offset"], row["size"]), row) for row in found]
            return PictureBatch(bucket, numbers, np.stack(pixels))

        waiting = [ahead.submit(read, *chunk) for chunk in chunks[:2]]
        for number in range(len(chunks)):
            batch = waiting.pop(0).result()
            if number + 2 < len(chunks):
                waiting.append(ahead.submit(read, *chunks[number + 2]))
            yield batch
