"""Download tables with rows of choice, and the score and filter stages over them in a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from darkroom import store
from darkroom.config.keep import Criterion
from darkroom.download.writer import table_schema
from darkroom.filter import select_part
from darkroom.score import score_dataset, score_part
from darkroom.scorers.table import SCORERS

# What the lists of these tests carry.
CARRIED = {"pwatermark": pl.Float64, "punsafe": pl.Float64}
LIST = {"row": pl.Int64, "url": pl.String, "caption": pl.String}


def criteria(*values: dict[str, Any]) -> tuple[Criterion, ...]:
    return tuple(Criterion.model_validate(each) for each in values)


# The demo's.
KEEP = criteria(
    {"column": "pwatermark", "max": 0.5},
    {"column": "punsafe", "max": 0.5},
    {"column": "min_side_px", "min": 64},
    {"column": "aspect_ratio", "max": 3.0},
    {"column": "duplicate", "equals": False},
)
LABELS = ("download", *(criterion.label for criterion in KEEP))


def sample(row: int, **changes: Any) -> dict[str, Any]:
    """A row of a download table that passes everything."""
    good = {
        "row": row,
        "uid": f"{(row * 7919) % 100_003:032x}",  # sorted by uid is not sorted by row
        "url": f"http://a.example/{row}",
        "caption": "a picture",
        "pwatermark": 0.1,
        "punsafe": 0.1,
        "status": "ok",
        "round": 0,
        "sha256": f"{row:064x}",
        "num_bytes": 100,
        "width": 128,
        "height": 96,
    }
    return {**good, **changes}


def gone(row: int, status: str = "http_404", **changes: Any) -> dict[str, Any]:
    return sample(row, status=status, error="no", sha256=None, width=None, height=None, **changes)


class Parts:
    """The stages over parts of samples, in a folder; `carried` are the list's columns."""

    def __init__(
        self, folder: Path, *parts: list[dict[str, Any]], carried: dict[str, Any] | None = None
    ) -> None:
        self.counts: dict[str, Any] = {}
        self.tables, self.scores, self.selections = [], [], []
        self.duplicates = folder / "duplicate.parquet"
        schema = table_schema(pl.DataFrame(schema={**LIST, **(CARRIED if carried is None else carried)}))
        for i, samples in enumerate(parts):
            name = store.part_name(i)
            rows = [{**dict.fromkeys(schema), **values} for values in samples]
            self.tables.append(folder / f"{name}.parquet")
            self.scores.append(folder / f"{name}.size.parquet")
            self.selections.append(folder / f"{name}.selection.parquet")
            store.write_table(self.tables[-1], pl.DataFrame(rows, schema=schema, orient="row"))
            self.counts[f"score {i}"] = score_part("size", {}, self.tables[-1], None, self.scores[-1]).counts
        self.counts["duplicates"] = score_dataset("duplicate", {}, self.tables, self.duplicates).counts

    def select(
        self, keep: Sequence[Criterion] = KEEP, more: Mapping[str | Path, Sequence[str]] | None = None
    ) -> pl.DataFrame:
        """All parts' selections in the order of the list; `more` are files of other scorers, and their columns."""
        size, duplicate = (tuple(SCORERS[name].columns) for name in ("size", "duplicate"))
        for i, selection in enumerate(self.selections):
            files = {self.scores[i]: size, self.duplicates: duplicate, **(more or {})}
            self.counts[f"select {i}"] = select_part(self.tables[i], files, keep, selection)
        return pl.concat([store.read_table(selection) for selection in self.selections]).sort("row")
