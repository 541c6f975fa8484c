"""The transformers of Stable Diffusion 3 and FLUX.1 as published: queries, keys and values are one layer."""

import re
from collections.abc import Mapping
from typing import Any

from darkroom.formats.original.places import Place, PlaceOf, no_place

_BLOCK = re.compile(r"(single_)?transformer_blocks\.(\d+)\.(.+)")

_SD3_OUTER = {
    "pos_embed.proj": "x_embedder.proj",
    "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_SD3_BLOCK = {
    **{f"attn.to_{x}": ("x_block.attn.qkv", i) for i, x in enumerate("qkv")},
    **{f"attn.add_{x}_proj": ("context_block.attn.qkv", i) for i, x in enumerate("qkv")},
    **{f"attn2.to_{x}": ("x_block.attn2.qkv", i) for i, x in enumerate("qkv")},
    **{f"{attn}.norm_{x}": (f"x_block.{attn}.ln_{x}", 0) for attn in ("attn", "attn2") for x in "qk"},
    **{f"attn.norm_added_{x}": (f"context_block.attn.ln_{x}", 0) for x in "qk"},
    **{f"{attn}.to_out.0": (f"x_block.{attn}.proj", 0) for attn in ("attn", "attn2")},
    "attn.to_add_out": ("context_block.attn.proj", 0),
    "norm1.linear": ("x_block.adaLN_modulation.1", 0),
    "norm1_context.linear": ("context_block.adaLN_modulation.1", 0),
    "ff.net.0.proj": ("x_block.mlp.fc1", 0),
    "ff.net.2": ("x_block.mlp.fc2", 0),
    "ff_context.net.0.proj": ("context_block.mlp.fc1", 0),
    "ff_context.net.2": ("context_block.mlp.fc2", 0),
}

_FLUX_OUTER = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    **{
        f"time_text_embed.{here}_embedder.linear_{i + 1}": f"{there}_in.{layer}_layer"
        for here, there in (("timestep", "time"), ("text", "vector"), ("guidance", "guidance"))
        for i, layer in enumerate(("in", "out"))
    },
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_FLUX_BLOCK = {
    "norm1.linear": ("img_mod.lin", 0),
    "norm1_context.linear": ("txt_mod.lin", 0),
    **{f"attn.to_{x}": ("img_attn.qkv", i) for i, x in enumerate("qkv")},
    **{f"attn.add_{x}_proj": ("txt_attn.qkv", i) for i, x in enumerate("qkv")},
    **{f"attn.norm_{x[0]}": (f"img_attn.norm.{x}_norm", 0) for x in ("query", "key")},
    **{f"attn.norm_added_{x[0]}": (f"txt_attn.norm.{x}_norm", 0) for x in ("query", "key")},
    "attn.to_out.0": ("img_attn.proj", 0),
    "attn.to_add_out": ("txt_attn.proj", 0),
    "ff.net.0.proj": ("img_mlp.0", 0),
    "ff.net.2": ("img_mlp.2", 0),
    "ff_context.net.0.proj": ("txt_mlp.0", 0),
    "ff_context.net.2": ("txt_mlp.2", 0),
}
_FLUX_SINGLE = {
    "norm.linear": ("modulation.lin", 0),
    **{name: ("linear1", i) for i, name in enumerate(("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"))},
    **{f"attn.norm_{x[0]}": (f"norm.{x}_norm", 0) for x in ("query", "key")},
    "proj_out": ("linear2", 0),
}


def sd3_places(config: Mapping[str, Any]) -> PlaceOf:
    """The places of the tensors of a SD3Transformer2DModel with this configuration.

    diffusers' AdaLayerNormContinuous has scale before shift, the original the other way round: after the last
    block, and in the last block's text.
    """
    last = str(config["num_layers"] - 1)

    def place_of(name: str) -> Place:
        if name == "pos_embed.pos_embed":
            return Place("pos_embed")
        module, _, suffix = name.rpartition(".")
        if module in _SD3_OUTER:
            return Place(
                f"{_SD3_OUTER[module]}.{suffix}", change="halves" if module == "norm_out.linear" else ""
            )
        found = _BLOCK.fullmatch(module)
        if found is None or found[1] or found[3] not in _SD3_BLOCK:
            raise no_place(name, "Stable Diffusion 3")
        inner, order = _SD3_BLOCK[found[3]]
        is_swapped = found[2] == last and found[3] == "norm1_context.linear"
        return Place(f"joint_blocks.{found[2]}.{inner}.{suffix}", order, "halves" if is_swapped else "")

    return place_of


def flux_places(config: Mapping[str, Any]) -> PlaceOf:
    """The places of the tensors of a FluxTransformer2DModel; see `sd3_places` for the halves."""

    def place_of(name: str) -> Place:
        module, _, suffix = name.rpartition(".")
        if module in _FLUX_OUTER:
            is_swapped = module == "norm_out.linear"
            return Place(f"{_FLUX_OUTER[module]}.{suffix}", change="halves" if is_swapped else "")
        found = _BLOCK.fullmatch(module)
        table = _FLUX_SINGLE if found and found[1] else _FLUX_BLOCK
        if found is None or found[3] not in table:
            raise no_place(name, "FLUX.1")
        inner, order = table[found[3]]
        blocks = "single_blocks" if found[1] else "double_blocks"
        return Place(f"{blocks}.{found[2]}.{inner}.{'scale' if inner.endswith('_norm') else suffix}", order)

    return place_of
