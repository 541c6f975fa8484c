"""What a CLIP makes of a picture, stored, for scorers of the whole dataset."""

import base64
from typing import TYPE_CHECKING

from darkroom.scorers.base import Part, Scorer
from darkroom.scorers.clip_embeddings import WithClip, embedded, load

if TYPE_CHECKING:
    import polars as pl


class ClipEmbedding(WithClip):
    """`clip_embedding`: the picture's CLIP embedding, rounded; for `clip_duplicate`."""


def score(options: ClipEmbedding, part: Part) -> "pl.DataFrame":
    """Base64 of little-endian int16, the unit vector times 2048; null where there is no picture."""
    import polars as pl

    from darkroom.scorers.cosines import rounded

    found: list[str | None] = [None] * part.rows.height
    for places, values in embedded(options, part, load(options, part)):
        for place, vector in zip(places, rounded(values.numpy()), strict=True):
            found[place] = base64.b64encode(vector.astype("<i2").tobytes()).decode()
    return pl.DataFrame({"clip_embedding": found}, schema={"clip_embedding": pl.String})


SPEC = Scorer(
    name="clip_embedding",
    section=ClipEmbedding,
    columns={"clip_embedding": "String"},
    reads="pixels",
    needs=(),
    score=score,
)
