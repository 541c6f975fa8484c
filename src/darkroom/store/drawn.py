"""Drawn pictures as they are stored: a tar a chunk in GenEval's layout, and a table that says where each lies.

Unpacked, the tars are `<00000>/metadata.jsonl` and `<00000>/samples/<0000>.png`, as GenEval's own scripts read.
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from darkroom.store import TarReader, read_table, sha256_file, sha256_json, write_table, write_tar

SCHEMA = {
    "model": pl.String,
    "prompt_index": pl.Int64,
    "tag": pl.String,
    "prompt": pl.String,
    "picture": pl.Int64,
    "seed": pl.Int64,
    "tar": pl.String,
    "path": pl.String,
    "offset": pl.Int64,
    "size": pl.Int64,
}
KEYS = ("model", "prompt_index", "picture")


def picture_path(index: int, picture: int) -> str:
    """Where picture number `picture` of prompt `index` lies in its chunk's tar."""
    return f"{index:05d}/samples/{picture:04d}.png"


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """The records of the draw stage's prompts.jsonl, which holds those that were drawn."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def write_chunk(
    model: str, drawn: Iterator[tuple[int, dict[str, Any], list[int], np.ndarray]], tar: Path, table: Path
) -> int:
    """Write a chunk's tar and table; return how many pictures it holds.

    Args:
        model: "trained" or "untrained".
        drawn: (index of the prompt, its record, the seed of each picture, uint8 (pictures, height, width, 3)).
    """
    rows: list[dict[str, Any]] = []

    def members() -> Iterator[tuple[str, bytes]]:
        for index, record, seeds, pictures in drawn:
            yield f"{index:05d}/metadata.jsonl", (json.dumps(record) + "\n").encode()
            for k, (seed, picture) in enumerate(zip(seeds, pictures, strict=True)):
                buffer = io.BytesIO()
                Image.fromarray(picture).save(buffer, format="png")
                path = picture_path(index, k)
                told = {"model": model, "prompt_index": index, "tag": record["tag"]}
                told |= {"prompt": record["prompt"], "picture": k, "seed": seed}
                rows.append({**told, "tar": f"{model}/{tar.name}", "path": path})
                yield path, buffer.getvalue()

    spans = write_tar(tar, members())
    for row in rows:
        row["offset"], row["size"] = spans[row["path"]]
    write_table(table, pl.DataFrame(rows, schema=SCHEMA), sort_by=None)
    return len(rows)


@dataclass(frozen=True)
class Drawn:
    """The pictures of one model: its chunks' tables and tars, in order."""

    tables: Sequence[str | Path]
    tars: Sequence[str | Path]

    def __post_init__(self) -> None:
        if not len(self.tables) == len(self.tars) > 0:
            raise ValueError(
                f"{len(self.tables)} tables and {len(self.tars)} tars of chunks; one of each is needed"
            )

    def table(self) -> pl.DataFrame:
        """A row for each picture, by prompt and number: the columns of SCHEMA."""
        return pl.concat([read_table(path) for path in self.tables])

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        height, width, _ = next(self.pictures()).shape
        return width, height

    def pictures(self, span: slice = slice(None)) -> Iterator[np.ndarray]:
        """uint8 (height, width, 3), RGB, in the order of `table`; those of a span of rows."""
        for path, places in groupby(self._places[span], key=itemgetter(0)):
            with TarReader(path) as tar:
                for _, offset, size in places:
                    yield _decoded(tar.read(offset, size))

    def picture(self, place: int) -> np.ndarray:
        """The one of a row of `table`; on any thread."""
        path, offset, size = self._places[place]
        with TarReader(path) as tar:
            return _decoded(tar.read(offset, size))

    @property
    def sha256(self) -> str:
        """Of the files' bytes."""
        return sha256_json([sha256_file(path) for path in (*self.tables, *self.tars)])

    @cached_property
    def _places(self) -> list[tuple[str | Path, int, int]]:
        return [
            (path, offset, size)
            for table, path in zip(self.tables, self.tars, strict=True)
            for offset, size in read_table(table, ["offset", "size"]).iter_rows()
        ]


def _decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def drawn_by_model(tables: Sequence[str | Path], tars: Sequence[str | Path]) -> dict[str, Drawn]:
    """Model -> its pictures, from the files of all chunks: `<model>/<chunk>.parquet` and `.tar`, in order."""
    models = list(dict.fromkeys(Path(path).parent.name for path in tables))
    return {
        model: Drawn(*([p for p in paths if Path(p).parent.name == model] for paths in (tables, tars)))
        for model in models
    }
