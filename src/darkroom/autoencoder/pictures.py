"""The pictures of an autoencoder: kept ones of a dataset, read out of its tars and cut to squares.

Which picture comes when, and where it is cut, are functions of seed, uid and epoch, so that a training that goes
on sees what it would have seen.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from darkroom.store import TarReader, read_table
from darkroom.store.pictures import decode_picture
from darkroom.train import random
from darkroom.train.held_out import Copies, first_of_copies, is_held_out
from darkroom.train.permute import permuted
from darkroom.train.plan import UInts, parse_uids

Ints = npt.NDArray[np.int64]
# Batches that are read at once, ahead of the training.
_NUM_AHEAD = 4
_COLUMNS = ("uid", "row", "width", "height", "offset", "size")


@dataclass(frozen=True)
class PictureFiles:
    """Of each part of a dataset: the download's table and tar, and the filter's table.

    copies: pairs of uids, see `train.held_out.hold_out`.
    """

    tables: Sequence[str | Path]
    tars: Sequence[str | Path]
    selections: Sequence[str | Path]
    copies: Copies = ()

    def __post_init__(self) -> None:
        if not len(self.tables) == len(self.tars) == len(self.selections) > 0:
            raise ValueError(
                f"{len(self.tables)} download tables, {len(self.tars)} tars and {len(self.selections)} tables of"
                " the filter; one of each for every part is needed"
            )


@dataclass(frozen=True)
class Batch:
    """Squares (B, 3, S, S) uint8 of pictures at `places` among all; `lost` are those that cannot be read."""

    pixels: npt.NDArray[np.uint8]
    places: Ints
    lost: Ints


class Pictures:
    """Some kept pictures of a dataset, sorted by uid.

    Args:
        files: where they lie.
        rows: uid, row, part, width, height, offset and size of each.
        crop_px: side of the squares.
    """

    def __init__(self, files: PictureFiles, rows: pl.DataFrame, crop_px: int) -> None:
        self._files, self._crop_px = files, crop_px
        self.rows = rows
        self.uids = parse_uids(rows["uid"].to_list())
        self._named: list[dict[str, Any]] = rows.to_dicts()

    def __len__(self) -> int:
        return len(self._named)

    def read(self, places: Ints, shares: npt.NDArray[np.float64], mirrored: npt.NDArray[np.bool_]) -> Batch:
        """Squares of the pictures at `places` (B,), in their order, without those that cannot be read.

        shares: (B,) in [0, 1]: where along the longer side the square lies, 0.5: in the middle.
        """
        found: list[npt.NDArray[np.uint8] | None] = []
        for place, share, mirror in zip(places.tolist(), shares.tolist(), mirrored.tolist(), strict=True):
            row = self._named[place]
            try:
                pixels = decode_picture(self._content(row), cut(row, self._crop_px, share))
            except ValueError:
                found.append(None)
                continue
            found.append(pixels[:, ::-1] if mirror else pixels)
        is_there = np.array([one is not None for one in found], bool)
        squares = np.zeros((int(is_there.sum()), self._crop_px, self._crop_px, 3), np.uint8)
        for place, one in enumerate(one for one in found if one is not None):
            squares[place] = one
        return Batch(np.ascontiguousarray(squares.transpose(0, 3, 1, 2)), places[is_there], places[~is_there])

    def middles(self, number: int, batch_size: int = 32) -> Iterator[Batch]:
        """The middles of the first `number` of them, in batches."""
        for start in range(0, min(number, len(self)), batch_size):
            places = np.arange(start, min(start + batch_size, number, len(self)), dtype=np.int64)
            yield self.read(places, np.full(len(places), 0.5), np.zeros(len(places), bool))

    def _content(self, row: dict[str, Any]) -> bytes:
        # Opened anew: a dataset may have more tars than a process may have open.
        with TarReader(self._files.tars[row["part"]]) as tar:
            return tar.read(row["offset"], row["size"])


def cut(row: dict[str, Any], crop_px: int, share: float) -> dict[str, Any]:
    """A row with the size at which its picture just covers the square, and with where this lies."""
    short = min(row["width"], row["height"])
    resized = [max(crop_px, (side * crop_px + short // 2) // short) for side in (row["width"], row["height"])]
    left, top = (round(share * (side - crop_px)) for side in resized)
    return {
        **row,
        **{"resized_width": resized[0], "resized_height": resized[1], "crop_left": left, "crop_top": top},
        **{"bucket_width": crop_px, "bucket_height": crop_px},
    }


def split(files: PictureFiles, share: float, crop_px: int) -> tuple[Pictures, Pictures, int]:
    """The pictures to learn from, those that are held out, and how many are too small for the square.

    Which are held out a picture's uid decides, or of copies the first one's, as in a run's `train.validation`.

    Raises:
        ValueError: no picture is held out, or none is left.
    """
    parts = []
    for index, (table, selection) in enumerate(zip(files.tables, files.selections, strict=True)):
        kept = read_table(selection, ["uid", "row", "kept"]).filter("kept").drop("kept")
        stored = read_table(table, list(_COLUMNS))
        parts.append(kept.join(stored, on=["uid", "row"]).with_columns(part=pl.lit(index)))
    every = pl.concat(parts).sort("uid", "row").unique("uid", keep="first", maintain_order=True)
    rows = every.filter(pl.min_horizontal("width", "height") >= crop_px)
    mask = is_held_out(parse_uids(rows["uid"].to_list()), share, first_of_copies(files.copies))
    if not 0 < mask.sum() < len(rows):
        what = "all" if len(rows) and mask.all() else "none"
        small = f" ({len(every) - len(rows)} more are smaller than crop_px {crop_px})"
        raise ValueError(
            f"held_out.share {share:g} holds out {what} of the {len(rows)} pictures{small}; write another share,"
            " or a smaller crop_px"
        )
    shown, out = (Pictures(files, rows.filter(pl.Series(mask == held)), crop_px) for held in (False, True))
    return shown, out, len(every) - len(rows)


@dataclass(frozen=True)
class Plan:
    """Which pictures make each batch: every epoch has all of them once, in an order of its own."""

    seed: int
    batch_size: int
    num_pictures: int

    def visits(self, step: int) -> tuple[Ints, Ints]:
        """Places and epochs (batch_size,) of the batch of `step`, from 0."""
        numbers = np.arange(step * self.batch_size, (step + 1) * self.batch_size, dtype=np.int64)
        epochs, within = np.divmod(numbers, self.num_pictures)
        keys = random.fold(random.mix_seed(self.seed, random.ORDER), epochs.astype(np.uint64))
        return permuted(keys, self.num_pictures, within), epochs


@dataclass(frozen=True)
class TrainingBatch:
    """The batch of a step, and the key (B,) of each picture's draw from its posterior."""

    step: int
    batch: Batch
    keys: UInts


def batches(pictures: Pictures, plan: Plan, first_step: int, num_steps: int) -> Iterator[TrainingBatch]:
    """The batches of the steps from `first_step` on, in their order; some are read ahead."""

    def make(step: int) -> TrainingBatch:
        places, epochs = plan.visits(step)
        drawn = random.uniforms(random.sample_keys(plan.seed, random.CROP, pictures.uids[places], epochs), 2)
        batch = pictures.read(places, drawn[:, 0], drawn[:, 1] < 0.5)
        kept = np.isin(places, batch.places)
        keys = random.sample_keys(plan.seed, random.POSTERIOR, pictures.uids[places], epochs)
        return TrainingBatch(step, batch, keys[kept])

    with ThreadPoolExecutor(_NUM_AHEAD, "darkroom-pictures") as ahead:
        steps = iter(range(first_step, num_steps))
        waiting = deque(ahead.submit(make, step) for step in islice(steps, _NUM_AHEAD))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(ahead.submit(make, step) for step in islice(steps, 1))
            yield made
