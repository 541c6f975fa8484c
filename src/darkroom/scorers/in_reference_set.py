"""Pictures that look like one of a set that a training must not contain, such as a benchmark's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints

from darkroom.scorers import perceptual_hash
from darkroom.scorers.base import Part, Scorer
from darkroom.scorers.nearness import Nearness, hashes_of

if TYPE_CHECKING:
    import polars as pl

_SetName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][\w-]*$")]


class InReferenceSet(Nearness):
    """`in_reference_set`: the picture looks like one of the `sets`, which `reference_set` and `reference_picture`
    name."""

    sets: dict[_SetName, str] = Field(
        min_length=1,
        description="name of a set -> its pictures: a folder of them, or tars or Parquet tables with pictures in"
        " them (a file, a folder or a pattern); relative to the project's root, or starting with a variable of the"
        " environment: $NAME/...",
    )


def score(options: InReferenceSet, part: Part) -> "pl.DataFrame":
    """Null where there is no picture. Of several pictures of the sets that one is near to, the first is named, by
    the order of the sets in the options, and of the files."""
    import numpy as np
    import polars as pl

    from darkroom.components.onnx import num_threads
    from darkroom.scorers.hamming import first_near_of

    references = _references(options, part).filter(pl.col("phash_detail") >= options.min_detail)
    told: list[Any] = [None] * part.rows.height
    for place, hashed in perceptual_hash.hashed(part):
        told[place] = hashed
    columns = list(perceptual_hash.SPEC.columns)
    pictures = pl.DataFrame(
        {name: [row and row[at] for row in told] for at, name in enumerate(columns)},
        schema=perceptual_hash.schema(),
    ).with_columns(at=pl.int_range(pl.len()))
    judged = pictures.filter(pl.col("phash_detail") >= options.min_detail)
    first = first_near_of(hashes_of(references), hashes_of(judged), options.near, max(1, num_threads()))
    of = np.full(part.rows.height, -1, np.int64)
    of[judged["at"].to_numpy()] = first
    is_in = pl.Series(of >= 0)
    return pl.DataFrame(
        {
            "in_reference_set": pl.select(pl.when(part.rows["status"] == "ok").then(is_in)).to_series(),
            "reference_set": references["set"].gather(pl.Series(of).set(~is_in, None)),
            "reference_picture": references["picture"].gather(pl.Series(of).set(~is_in, None)),
        }
    )


def _references(options: InReferenceSet, part: Part) -> "pl.DataFrame":
    """The hashes of the sets' pictures, with `set` and `picture`; tells of each set for the manifest."""
    import polars as pl

    from darkroom.store import read_table, sha256_file

    tables = []
    for name in options.sets:
        table = read_table(part.references[name])
        failed = table.filter(pl.col("status") != "ok").group_by("status").len().sort("status")
        more = {"not_read": dict(failed.iter_rows())} if failed.height else {}
        part.tell_of(
            f"reference set {name}", sha256=sha256_file(part.references[name]), pictures=table.height, **more
        )
        tables.append(table.filter(pl.col("status") == "ok").with_columns(set=pl.lit(name)))
    return pl.concat(tables)


def sets_of(options: InReferenceSet) -> Mapping[str, str]:
    """Name of a set -> where its pictures lie."""
    return options.sets


SPEC = Scorer(
    name="in_reference_set",
    section=InReferenceSet,
    columns={"in_reference_set": "Boolean", "reference_set": "String", "reference_picture": "String"},
    reads="pixels",
    needs=(),
    score=score,
    references=sets_of,
)
