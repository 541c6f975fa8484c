"""How well a picture pleases people, as linear heads on CLIP embeddings predict it."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from darkroom.components.base import ComponentOf
from darkroom.scorers.base import Part, Scorer
from darkroom.scorers.clip_embeddings import WithClip, embedded, load

if TYPE_CHECKING:
    import polars as pl

_DECIMALS = 4


class Aesthetic(WithClip):
    """`aesthetic`: how well a picture pleases, about 1 to 10, by a linear head on CLIP embeddings."""

    head: Annotated[str, ComponentOf("aesthetic_head")] = Field(
        description="name of an aesthetic_head in config/components.yaml, one trained on this CLIP"
    )


def score(options: Aesthetic, part: Part) -> "pl.DataFrame":
    """Null where there is no picture."""
    import polars as pl

    from darkroom.components.aesthetic_head import load_head, predicted

    clip, layers = load(options, part), load_head(part.components[options.head])
    part.tell_of(options.head, layers=[list(weight.shape) for weight, _ in layers])
    found: list[float | None] = [None] * part.rows.height
    for places, vectors in embedded(options, part, clip):
        values = predicted(layers, vectors, options.head, options.clip)
        for place, value in zip(places, values.tolist(), strict=True):
            found[place] = round(value, _DECIMALS)
    return pl.DataFrame({"aesthetic": found}, schema={"aesthetic": pl.Float32})


SPEC = Scorer(
    name="aesthetic",
    section=Aesthetic,
    columns={"aesthetic": "Float32"},
    reads="pixels",
    needs=(),
    score=score,
    version=2,
)
