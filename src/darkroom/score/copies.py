"""Which pictures scorers found to be copies of which: the pairs of uids that a training keeps on one side."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from darkroom.scorers.table import SCORERS
from darkroom.store import read_table


def pairs_of_copies(files: Sequence[str | Path]) -> list[tuple[str, str]]:
    """(uid of a copy, uid of what it is a copy of), by the scorers that tell, in the order of the rows.

    Args:
        files: scores of one dataset by scorers with `copy_of`, of the list and of all rounds of retries.

    Raises:
        ValueError: a row that a copy names is in none of the files.
    """
    by_scorer: dict[str, list[pl.DataFrame]] = {}
    for path in files:
        scorer = Path(path).stem.rpartition(".")[2]
        copy_of = SCORERS[scorer].copy_of
        assert copy_of is not None, "rules ask for scorers that tell of copies"
        table = read_table(path, ["uid", "row", copy_of]).rename({copy_of: "of"})
        by_scorer.setdefault(scorer, []).append(table)
    pairs: list[tuple[str, str]] = []
    for scorer, tables in by_scorer.items():
        rows = pl.concat(tables)
        copies = rows.filter(pl.col("of").is_not_null())
        named = rows.select(of="row", first="uid").filter(pl.col("of").is_in(copies["of"].unique().implode()))
        found = copies.join(named, on="of", how="left", validate="m:1").sort("row")
        for row in found.filter(pl.col("first").is_null()).head(1).iter_rows(named=True):
            raise ValueError(
                f"{scorer}: row {row['row']} is a copy of row {row['of']}, which has no score; remove its files"
                " and run `snakemake score`"
            )
        pairs += found.select("uid", "first").iter_rows()
    return pairs
