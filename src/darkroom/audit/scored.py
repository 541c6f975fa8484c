"""The pictures of a dataset with what is known of them: columns of the list and of scorers, captions, pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from darkroom.config import load_dataset
from darkroom.scorers.table import SCORERS
from darkroom.settings.columns import Kind, kind_of
from darkroom.store import TarReader, read_manifest, read_table, round_of

_STORED = ("uid", "row", "offset", "size")


class Column(NamedTuple):
    """A column that can be audited: its name, the scorer that makes it (empty: the list's), and its kind."""

    name: str
    scorer: str
    kind: Kind


class Scored:
    """A dataset as it lies in results/datasets: its parts, their tables, tars and scores.

    Attributes:
        name: the dataset's.
        config: its configuration.
        parts: names of the parts that were downloaded, those of rounds of retries last.
    """

    def __init__(self, name: str, root: str | Path = ".") -> None:
        """Find a dataset that was downloaded.

        Raises:
            ConfigError: there is no such dataset, or its configuration is wrong.
            ValueError: it was not downloaded.
        """
        self.name = name
        self.config = load_dataset(name, root, "DATASET")
        self._folder = Path(root) / "results/datasets" / name
        manifest = self._folder / "download/manifest.json"
        if not manifest.exists():
            raise ValueError(f"{manifest}: missing; run `snakemake download` for a run on {name}")
        names = [path.removesuffix(".json") for path in read_manifest(manifest)["parts"]]
        self.parts = sorted(names, key=lambda part: (round_of(part), part))

    def columns(self) -> dict[str, Column]:
        """The columns that judge a picture: those of scorers, then others that `keep` names."""
        made = self.config.scorers.columns()
        found = {name: Column(name, scorer, kind) for name, (scorer, kind) in made.items()}
        for criterion in self.config.keep:
            found.setdefault(criterion.column, Column(criterion.column, "", criterion.kind))
        return found

    def column(self, scorer: str = "", column: str = "") -> Column:
        """The column that a person means by a scorer, by a column, or by both.

        Raises:
            ValueError: there is none, or a scorer makes several; says which there are.
        """
        made, listed = self.columns(), self.config.scorers.listed()
        if scorer and scorer not in listed:
            hint = "" if scorer in SCORERS else f"; there are {', '.join(SCORERS)}"
            raise ValueError(
                f"--scorer {scorer}: the dataset {self.name} does not list it in `scorers`{hint}"
            )
        if column:
            found = made.get(column) or self._of_the_list(column)
            if scorer and found.scorer != scorer:
                own = ", ".join(SCORERS[scorer].columns)
                raise ValueError(f"--column {column}: the scorer {scorer} makes {own}")
        else:
            own_columns = [name for name in SCORERS[scorer].columns if made[name].kind != "text"]
            if scorer not in own_columns and len(own_columns) != 1:
                raise ValueError(f"--scorer {scorer}: makes {', '.join(own_columns)}; choose with --column")
            found = made[scorer if scorer in own_columns else own_columns[0]]
        if found.kind == "text":
            raise ValueError(f"--column {found.name}: holds text; only numbers and booleans have thresholds")
        return found

    def _of_the_list(self, name: str) -> Column:
        schema = pl.read_parquet_schema(self.table(0))
        if name not in schema:
            raise ValueError(
                f"--column {name}: neither a scorer that {self.name} lists nor its list has it; there are"
                f" {', '.join([*self.columns(), *(c for c in schema if c not in self.columns())])}"
            )
        if not (schema[name].is_numeric() or schema[name] in (pl.Boolean, pl.String)):
            raise ValueError(
                f"--column {name}: holds {schema[name]}; only numbers and booleans have thresholds"
            )
        return Column(name, "", kind_of(str(schema[name])))

    def table(self, part: int) -> Path:
        """The download table of a part."""
        return self._folder / "download" / f"{self.parts[part]}.parquet"

    def read(self, columns: Sequence[Column]) -> pl.DataFrame:
        """Every stored picture once: uid, row, part (place in `parts`), offset, size, and the columns.

        Raises:
            ValueError: a file or a column is missing; says what makes it.
        """
        parts = [self._read_part(part, columns) for part in range(len(self.parts))]
        return pl.concat(parts, how="vertical_relaxed").unique("uid", keep="first", maintain_order=True)

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
