"""The list that a dataset is made from, made again and compared, and what else lies beside a run's stages."""

import os
import tempfile
from pathlib import Path

import polars as pl

from darkroom.config import Project
from darkroom.sources.table import list_columns, spec_of, write_urls
from darkroom.sources.withdrawn import read_withdrawn
from darkroom.store.found import NotPlain, described, digests, kind_of, shown

URLS = "urls.parquet"
# Where drivers lock a folder of results, and the features that metrics share, which are computed again where they
# are missing; nothing of a result.
_BESIDE = (".driver", "features")


def check_beside(folder: Path, stages: set[str]) -> tuple[list[str], set[str]]:
    """What lies beside the stages of a dataset, a cache or a run: what is wrong, and the plain files.

    The folder itself may be a link: clones share datasets so.
    """
    wrong, files = [], set()
    if not folder.is_dir():
        return [], set()
    for name in sorted(os.listdir(folder)):
        path, kind = folder / name, kind_of(folder / name)
        if kind == "file":
            files.add(name)
        elif kind is not None and name not in stages and not (name in _BESIDE and kind == "folder"):
            what = "a folder" if kind == "folder" else described(path)
            wrong.append(f"{shown(path)}: {what}, which is no stage's")
    return wrong, files


def check_list(project: Project, folder: Path, here: set[str]) -> tuple[list[str], list[str]]:
    """What is wrong with the dataset's list in `folder`, and what could not be checked.

    The source writes the list again, with whatever else it leaves beside it; of `here`, the plain files beside
    the dataset's stages, none may be another.
    """
    if not here:
        return [], []
    source, where = project.dataset.source, f"config/datasets/{project.dataset_name}.yaml"
    try:
        spec_of(source).pieces(source)
    except (OSError, ValueError) as error:
        return [], [f"{shown(folder / URLS)}: whether it is the source's list, which is not here ({error})"]
    with tempfile.TemporaryDirectory() as made:
        try:
            withdrawn = read_withdrawn(project.dataset_name)
            write_urls(source, Path(made) / URLS, list(list_columns(source)), withdrawn=withdrawn)
        except (OSError, ValueError) as error:
            return [f"{where}: {error}"], []
        again = {path.name for path in Path(made).iterdir()}
        wrong = [
            f"{shown(folder / name)}: no file of the dataset: neither a stage nor the source leaves it"
            for name in sorted(here - again)
        ]
        for name in sorted(again):
            if name in here:
                wrong += _compare(folder / name, Path(made) / name)
            else:
                wrong.append(f"{shown(folder / name)}: missing, though other files of the list are here")
    return wrong, []


def _compare(path: Path, again: Path) -> list[str]:
    """The same bytes, or the same rows: another version of a library may store a table differently."""
    try:
        if digests(path).sha256 == digests(again).sha256:
            return []
        here, right = pl.scan_parquet(path), pl.scan_parquet(again)
        if here.collect_schema() != right.collect_schema():
            return [f"{shown(path)}: has other columns than the source's list"]
        num_here, num_right = (int(table.select(pl.len()).collect().item()) for table in (here, right))
        if num_here != num_right:
            return [f"{shown(path)}: has {num_here:,} rows, and the source's list {num_right:,}"]
        rows = pl.concat(
            [
                table.select(pl.struct(pl.all()).alias(name))
                for name, table in (("here", here), ("right", right))
            ],
            how="horizontal",
        )
        unlike = rows.with_row_index("row").filter(pl.col("here").ne_missing(pl.col("right")))
        first = unlike.select("row").head(1).collect()["row"].to_list()
    except (NotPlain, OSError, pl.exceptions.PolarsError) as error:
        return [f"{shown(path)}: cannot be read ({error})"]
    return [f"{shown(path)}: is not what the source lists now: row {first[0]} differs"] if first else []
