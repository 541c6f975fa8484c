"""Pictures that look like one that is kept already, over the whole dataset: in another size, compressed again, or
mirrored."""

from typing import TYPE_CHECKING

from darkroom.scorers import perceptual_hash
from darkroom.scorers.base import Part, Scorer
from darkroom.scorers.kept_first import NEEDS, in_order, told_of
from darkroom.scorers.nearness import Nearness, hashes_of

if TYPE_CHECKING:
    import polars as pl


class NearDuplicate(Nearness):
    """`near_duplicate`: the picture looks like one that is kept, which `near_duplicate_of` names by its row."""


def score(options: NearDuplicate, part: Part) -> "pl.DataFrame":
    """By the rule of `kept_first`."""
    import polars as pl

    from darkroom.components.onnx import num_threads
    from darkroom.scorers.hamming import first_near

    is_judged = pl.col("phash_detail") >= options.min_detail
    judged = in_order(part, is_judged, *perceptual_hash.SPEC.columns)
    first = first_near(hashes_of(judged), options.near, max(1, num_threads()))
    return told_of(part, judged, first, "near_duplicate")


SPEC = Scorer(
    name="near_duplicate",
    section=NearDuplicate,
    columns={"near_duplicate": "Boolean", "near_duplicate_of": "Int64"},
    reads="dataset",
    needs=NEEDS,
    score=score,
    after=(perceptual_hash.SPEC.name,),
    copy_of="near_duplicate_of",
)
