"""The funnel of a dataset, from the selections of its parts: ours, and polars' aggregates of the same files.

Both must count the same: rows kept, first failures, failures of each criterion and pair of criteria, unknown
values and every status.

    python speed/funnel.py
    python speed/funnel.py --size small
"""

from itertools import combinations
from pathlib import Path
from typing import Any

import race
from race import OURS, Race, Side, Sizes, Work
from score_select_bucket import KEEP, select, write_part


def prepare(folder: Path, sizes: Sizes) -> None:
    """The selections of every part."""
    for number in range(sizes["rows"] // sizes["a_part"]):
        table = folder / f"part-{number:05d}.parquet"
        write_part(table, sizes["a_part"], number * sizes["a_part"])
        select(table, folder)


def ours(folder: Path, sizes: Sizes) -> Work:
    from darkroom.config.keep import Criterion
    from darkroom.filter import funnel

    keep = [Criterion.model_validate(values) for values in KEEP]
    files = sorted(folder.glob("part-*.selection.parquet"))

    def counted() -> dict[str, Any]:
        return funnel(files, keep)

    def answer() -> list[Any]:
        found = counted()
        steps = [[step["first_failure"], step["fails"]] for step in found["criteria"]]
        joint = [pair["fails"] for pair in found["joint"]]
        unknown = [[of["rows"], of["kept"]] for of in found["unknown"].values()]
        return [found["rows"], found["kept"], steps, joint, unknown, found["status"]]

    return Work(counted, answer)


def polars(folder: Path, sizes: Sizes) -> Work:
    import polars as pl

    labels = ["download", *(values["column"] for values in KEEP)]

    def counted() -> list[Any]:
        rows = pl.scan_parquet(folder / "part-*.selection.parquet")
        first = {f"first {name}": (pl.col("first_failure") == name).sum() for name in labels}
        fails = {f"fails {name}": pl.col(f"fails_{name}").sum() for name in labels}
        both = {
            f"{a} and {b}": (pl.col(f"fails_{a}") & pl.col(f"fails_{b}")).sum()
            for a, b in combinations(labels, 2)
        }
        unknown = {f"unknown {name}": pl.col(f"unknown_{name}").sum() for name in labels[1:]}
        guessed = {f"kept {name}": (pl.col("kept") & pl.col(f"unknown_{name}")).sum() for name in labels[1:]}
        whole = rows.select(
            rows=pl.len(), kept=pl.col("kept").sum(), **first, **fails, **both, **unknown, **guessed
        )
        numbers, status = pl.collect_all([whole, rows.group_by("status").len().sort("status")])
        found = numbers.row(0, named=True)
        return [
            found["rows"],
            found["kept"],
            [[found[f"first {name}"], found[f"fails {name}"]] for name in labels],
            [found[name] for name in both],
            [[found[f"unknown {name}"], found[f"kept {name}"]] for name in labels[1:]],
            dict(status.rows()),
        ]

    return Work(counted, counted)


RACE = Race(
    title="funnel",
    told=lambda sizes: f"{sizes['rows']:,} rows in parts of {sizes['a_part']:,}",
    sizes={
        "smallest": {"rows": 4_000, "a_part": 1_000},
        "small": {"rows": 500_000, "a_part": 50_000},
        "large": {"rows": 500_000, "a_part": 50_000},
    },
    prepare=prepare,
    sides=(Side(OURS, ours), Side("polars aggregates", polars, 0.9)),
)

if __name__ == "__main__":
    race.main(RACE, __doc__)
