"""Pictures that a CLIP finds like one that is kept already, over the whole dataset: crops too."""

from typing import TYPE_CHECKING

from pydantic import Field

from darkroom.scorers import clip_embedding
from darkroom.scorers.base import Part, Scorer
from darkroom.scorers.kept_first import NEEDS, in_order, told_of
from darkroom.settings.base import Section

if TYPE_CHECKING:
    import polars as pl


class ClipDuplicate(Section):
    """`clip_duplicate`: a CLIP finds the picture like one that is kept; `clip_duplicate_of` is that one's row."""

    min_cosine: float = Field(
        0.95,
        gt=0,
        le=1,
        description="of the CLIP embeddings of two pictures that count as near; what it means, the CLIP decides",
    )


def score(options: ClipDuplicate, part: Part) -> "pl.DataFrame":
    """By the rule of `kept_first`."""
    import numpy as np
    import polars as pl

    from darkroom.scorers.cosines import first_alike

    judged = in_order(part, pl.col("clip_embedding").is_not_null(), "clip_embedding")
    data = judged["clip_embedding"].str.decode("base64")
    lengths = data.bin.size().unique().to_list()
    if len(lengths) > 1:
        raise ValueError(
            f"clip_embedding: embeddings of {len(lengths)} lengths; remove the scores of clip_embedding, and run"
            " `snakemake score`"
        )
    width = lengths[0] // 2 if lengths else 1
    vectors = np.frombuffer(b"".join(data), "<i2").reshape(-1, width)
    return told_of(part, judged, first_alike(vectors, options.min_cosine), "clip_duplicate")


SPEC = Scorer(
    name="clip_duplicate",
    section=ClipDuplicate,
    columns={"clip_duplicate": "Boolean", "clip_duplicate_of": "Int64"},
    reads="dataset",
    needs=NEEDS,
    score=score,
    after=(clip_embedding.SPEC.name,),
    copy_of="clip_duplicate_of",
)
