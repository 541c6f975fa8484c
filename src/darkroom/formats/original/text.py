"""Text encoders: CLIP and T5 as transformers names them, OpenCLIP with queries, keys and values in one layer."""

import re
from collections.abc import Mapping
from typing import Any

from darkroom.formats.original.places import Place, PlaceOf, no_place

CLIP, OPEN_CLIP = "quick_gelu", "gelu"  # the activation by which they differ; files do not hold it

_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_OPEN_LAYER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_OPEN_OUTER = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_IN_PROJECTION = {f"self_attn.{x}_proj": i for i, x in enumerate("qkv")}


def check_activation(config: Mapping[str, Any], wanted: str, part: str) -> None:
    """Refuse a CLIP that whoever reads the file would compute with another activation.

    Raises:
        ValueError: says which it has, and which is read there.
    """
    found = config.get("hidden_act", CLIP)
    if found != wanted:
        raise ValueError(
            f"{part} has the activation {found}, and what reads a single file computes {wanted} there;"
            " the diffusers folder can hold it"
        )


def clip_places(config: Mapping[str, Any]) -> PlaceOf:
    """The places of the tensors of a CLIPTextModel, with projection or without: all under text_model."""

    def place_of(name: str) -> Place:
        is_outer = name.startswith(("text_model.", "text_projection."))
        return Place(name if is_outer else f"text_model.{name}")

    return place_of


def open_clip_places(config: Mapping[str, Any]) -> PlaceOf:
    """The same, as OpenCLIP names them; its projection is a matrix that is multiplied from the right."""

    def place_of(name: str) -> Place:
        if name == "text_projection.weight":
            return Place("text_projection", change="transposed")
        inner = name.removeprefix("text_model.")
        if inner in _OPEN_OUTER:
            return Place(_OPEN_OUTER[inner])
        found = _LAYER.fullmatch(inner)
        if found is not None:
            number, module, suffix = found.groups()
            if module in _IN_PROJECTION:
                place = f"transformer.resblocks.{number}.attn.in_proj_{suffix}"
                return Place(place, _IN_PROJECTION[module])
            if module in _OPEN_LAYER:
                return Place(f"transformer.resblocks.{number}.{_OPEN_LAYER[module]}.{suffix}")
        raise no_place(name, "OpenCLIP")

    return place_of


def t5_places(config: Mapping[str, Any]) -> PlaceOf:
    """T5's tensors have the names of transformers."""
    return Place
