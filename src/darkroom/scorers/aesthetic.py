"""How well a picture pleases people, as linear heads on CLIP embeddings predict it.

LAION published two kinds: one linear layer (aesthetic-predictor, for ViT-B/32, B/16 and L/14) and several without
anything between them (improved-aesthetic-predictor, for ViT-L/14), whose dropouts do nothing when they predict.
Both take the unit vector of the picture. A head means nothing for another CLIP than the one it was trained on.
"""

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from darkroom.components.base import Component, ComponentOf
from darkroom.scorers.base import Part, Scorer
from darkroom.scorers.clip_embeddings import WithClip, embedded, load

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

_DECIMALS = 4
# `weight`, or `layers.0.weight`, ... in order.
_WEIGHT = re.compile(r"(?:(?:layers\.)?(\d+)\.)?weight")


class Aesthetic(WithClip):
    """`aesthetic`: how well a picture pleases, about 1 to 10, by a linear head on CLIP embeddings."""

    head: Annotated[str, ComponentOf("aesthetic_head")] = Field(
        description="name of an aesthetic_head in config/components.yaml, one trained on this CLIP"
    )


def score(options: Aesthetic, part: Part) -> "pl.DataFrame":
    """Null where there is no picture."""
    import polars as pl

    clip, layers = load(options, part), load_head(part.components[options.head])
    part.tell_of(options.head, layers=[list(weight.shape) for weight, _ in layers])
    found: list[float | None] = [None] * part.rows.height
    for places, values in embedded(options, part, clip):
        for weight, bias in layers:
            if weight.shape[1] != values.shape[1]:
                raise ValueError(
                    f"the head {options.head} takes {weight.shape[1]} dimensions and the CLIP {options.clip} gives"
                    f" {values.shape[1]}; name the CLIP that the head was trained on"
                )
            values = values @ weight.T + bias
        for place, value in zip(places, values[:, 0].tolist(), strict=True):
            found[place] = round(value, _DECIMALS)
    return pl.DataFrame({"aesthetic": found}, schema={"aesthetic": pl.Float32})


def load_head(component: Component) -> "list[tuple[Tensor, Tensor]]":
    """(weight (out, in), bias (out,)) of each layer, in order, from the component's model.safetensors.

    Raises:
        ValueError: it holds something else than linear layers that end in one number.
    """
    from darkroom.components.files import WEIGHTS, component_folder, read_weights, require_file

    folder = component_folder(component, "aesthetic_head")
    require_file(folder, WEIGHTS, f"an aesthetic head's {WEIGHTS}")
    tensors = read_weights(folder)
    numbered = sorted((int(found[1] or 0), name) for name in tensors if (found := _WEIGHT.fullmatch(name)))
    pairs = [(name, name.removesuffix("weight") + "bias") for _, name in numbered]
    layers = [(tensors[weight], tensors[bias]) for weight, bias in pairs if bias in tensors]
    fits = all(first[0].shape[0] == second[0].shape[1] for first, second in pairwise(layers))
    if not layers or 2 * len(layers) != len(tensors) or not fits or layers[-1][0].shape[0] != 1:
        raise ValueError(
            f"{folder / WEIGHTS}: holds {', '.join(sorted(tensors))}; an aesthetic head is linear layers, each a"
            " weight and a bias, that end in one number"
        )
    return layers


SPEC = Scorer(
    name="aesthetic",
    section=Aesthetic,
    columns={"aesthetic": "Float32"},
    reads="pixels",
    needs=(),
    score=score,
    version=2,
)
