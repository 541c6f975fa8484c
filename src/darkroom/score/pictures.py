"""The pictures of a dataset with what is known of them: columns of the list and of scorers, captions, pixels."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow.parquet as pq

from darkroom.config.keep import Criterion, Scorers
from darkroom.scorers.table import SCORERS
from darkroom.settings.columns import Kind
from darkroom.store import TarReader, read_table, round_of

_STORED = ("uid", "row", "offset", "size")


class Column(NamedTuple):
    """A column that judges pictures: its name, the scorer that makes it (empty: the list's), and its kind."""

    name: str
    scorer: str
    kind: Kind


class ScoredPictures:
    """A dataset's parts, their tables, tars and scores, as they lie in its folder.

    Attributes:
        name: the dataset's.
        keep, scorers: of its configuration.
        parts: names of the parts that were downloaded, those of rounds of retries last.
    """

    def __init__(
        self,
        name: str,
        folder: str | Path,
        parts: Sequence[str],
        keep: Sequence[Criterion],
        scorers: Scorers,
    ) -> None:
        self.name, self.keep, self.scorers = name, tuple(keep), scorers
        self.parts = sorted(parts, key=lambda part: (round_of(part), part))
        self._folder = Path(folder)

    def columns(self) -> dict[str, Column]:
        """The columns that judge a picture: those of scorers, then others that `keep` names."""
        made = self.scorers.columns()
        found = {name: Column(name, scorer, kind) for name, (scorer, kind) in made.items()}
        for criterion in self.keep:
            found.setdefault(criterion.column, Column(criterion.column, "", criterion.kind))
        return found

    def table(self, part: int) -> Path:
        """The download table of a part."""
        return self._folder / "download" / f"{self.parts[part]}.parquet"

    def read(self, columns: Sequence[Column], max_rows: int | None = None) -> pl.DataFrame:
        """Every stored picture once: uid, row, part (place in `parts`), offset, size, and the columns.

        Args:
            columns: those to read.
            max_rows: read no more parts, spread evenly over the dataset, than have about so many rows; None: all.

        Raises:
            ValueError: a file or a column is missing; says what makes it.
        """
        read = [self._read_part(part, columns) for part in self._spread(max_rows)]
        return pl.concat(read, how="vertical_relaxed").unique("uid", keep="first", maintain_order=True)

    def _spread(self, max_rows: int | None) -> list[int]:
        """Places of parts, the first among them."""
        if max_rows is None:
            return list(range(len(self.parts)))
        rows = max(1, pq.read_metadata(self.table(0)).num_rows)
        step = max(1, math.ceil(len(self.parts) * rows / max_rows))
        return list(range(0, len(self.parts), step))

    def _read_part(self, part: int, columns: Sequence[Column]) -> pl.DataFrame:
        own = [column.name for column in columns if not column.scorer]
        wanted = list(dict.fromkeys([*_STORED, *own]))
        rows = read_table(self.table(part), wanted, where=pl.col("status") == "ok")
        low, high = rows["row"].min() or 0, rows["row"].max() or 0
        for scorer in dict.fromkeys(column.scorer for column in columns if column.scorer):
            path = self._scores(part, scorer)
            if not path.exists():
                raise ValueError(f"{path}: missing; run `snakemake score` for a run on {self.name}")
            names = [column.name for column in columns if column.scorer == scorer]
            told = read_table(path, ["uid", "row", *names], where=pl.col("row").is_between(low, high))
            rows = rows.join(told, on=["uid", "row"], how="left")
        return rows.with_columns(part=pl.lit(part, pl.Int32))

    def _scores(self, part: int, scorer: str) -> Path:
        name = f"{self.parts[part]}."
        if SCORERS[scorer].reads == "dataset":
            number = round_of(self.parts[part])
            name = f"part-r{number:02d}." if number else ""
        return self._folder / "score" / f"{name}{scorer}.parquet"

    def score_files(self, scorer: str) -> list[Path]:
        """Every file of what a scorer says, once."""
        return list(dict.fromkeys(self._scores(part, scorer) for part in range(len(self.parts))))

    def places(self, rows: Sequence[int]) -> pl.DataFrame:
        """uid, row, part, offset, size, original_width and original_height of the stored pictures of some rows."""
        names = [*_STORED, "original_width", "original_height"]
        wanted = (pl.col("status") == "ok") & pl.col("row").is_in(list(rows))
        found = [
            read_table(self.table(part), names, where=wanted).with_columns(part=pl.lit(part, pl.Int32))
            for part in range(len(self.parts))
        ]
        return pl.concat(found, how="vertical_relaxed")

    def captions(self, rows: pl.DataFrame) -> dict[str, str]:
        """uid -> caption of the list, of rows as `read` gives them."""
        found: dict[str, str] = {}
        for part in rows["part"].unique().sort():
            uids = rows.filter(pl.col("part") == part)["uid"].to_list()
            told = read_table(self.table(part), ["uid", "caption"], where=pl.col("uid").is_in(uids))
            found |= {uid: caption or "" for uid, caption in told.iter_rows()}
        return found

    def jpeg(self, part: int, offset: int, size: int) -> bytes:
        """The bytes of a stored picture.

        Raises:
            OSError, ValueError: the tar is missing, or ends too early.
        """
        with TarReader(self.table(part).with_suffix(".tar")) as tar:
            return tar.read(offset, size)

    def uids(self) -> set[str]:
        """The uids of all rows."""
        tables = (read_table(self.table(part), ["uid"])["uid"] for part in range(len(self.parts)))
        return {uid for table in tables for uid in table if uid}
