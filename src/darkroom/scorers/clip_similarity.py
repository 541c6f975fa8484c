"""How well a picture fits its caption: the cosine of their CLIP embeddings.

This is what LAION's lists call similarity, in the CLIP that the options name: thresholds of one CLIP (0.28 and 0.3
are usual for ViT-B/32 and ViT-L/14) mean nothing for another.
"""

from typing import TYPE_CHECKING

from darkroom.scorers.base import Part, Scorer
from darkroom.scorers.clip_embeddings import WithClip, embedded, load

if TYPE_CHECKING:
    import polars as pl

# Rounded, so that the kind of processor seldom matters.
_DECIMALS = 5


class ClipSimilarity(WithClip):
    """`clip_similarity`: the cosine of the CLIP embeddings of picture and caption, -1 to 1."""


def score(options: ClipSimilarity, part: Part) -> "pl.DataFrame":
    """Null where there is no picture, or no caption.

    Pictures without a caption are embedded too, so that the batches are those of other scorers on the CLIP.
    """
    import polars as pl

    captions = part.rows["caption"].to_list()
    found: list[float | None] = [None] * len(captions)
    clip = load(options, part)
    for places, images in embedded(options, part, clip):
        told = [at for at, place in enumerate(places) if captions[place]]
        if not told:
            continue
        texts = clip.encode_texts([captions[places[at]] for at in told], pad_whole=False)
        for at, cosine in zip(told, (images[told] * texts).sum(dim=1).tolist(), strict=True):
            found[places[at]] = round(cosine, _DECIMALS)
    return pl.DataFrame({"clip_similarity": found}, schema={"clip_similarity": pl.Float32})


SPEC = Scorer(
    name="clip_similarity",
    section=ClipSimilarity,
    columns={"clip_similarity": "Float32"},
    reads="pixels",
    needs=("caption",),
    score=score,
    version=4,
)
