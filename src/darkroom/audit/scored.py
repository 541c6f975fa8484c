"""The dataset that is audited, and which of its columns a person means."""

from pathlib import Path

import polars as pl

from darkroom.config import load_dataset
from darkroom.score.pictures import Column, ScoredPictures
from darkroom.scorers.table import SCORERS
from darkroom.settings.columns import kind_of
from darkroom.store import read_manifest


class Scored(ScoredPictures):
    """A dataset as it lies in results/datasets, by its name."""

    def __init__(self, name: str, root: str | Path = ".") -> None:
        """Find a dataset that was downloaded.

        Raises:
            ConfigError: there is no such dataset, or its configuration is wrong.
            ValueError: it was not downloaded.
        """
        config = load_dataset(name, root, "DATASET")
        folder = Path(root) / "results/datasets" / name
        manifest = folder / "download/manifest.json"
        if not manifest.exists():
            raise ValueError(f"{manifest}: missing; run `snakemake download` for a run on {name}")
        parts = [path.removesuffix(".json") for path in read_manifest(manifest)["parts"]]
        super().__init__(name, folder, parts, config.keep, config.scorers)

    def column(self, scorer: str = "", column: str = "") -> Column:
        """The column that a person means by a scorer, by a column, or by both.

        Raises:
            ValueError: there is none, or a scorer makes several; says which there are.
        """
        made, listed = self.columns(), self.scorers.listed()
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
