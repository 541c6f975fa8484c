"""The UNet of Stable Diffusion 1.x, 2.x and XL as `ldm` and `sgm` name it: UNetModel of openaimodel.py.

Its blocks are numbered through, each resnet, attention and change of size being layer 0, 1 or 2 of one.
"""

import re
from collections.abc import Mapping
from typing import Any

from darkroom.formats.original.places import Place, PlaceOf, no_place

_OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.([01])\.(.+)")


def unet_places(config: Mapping[str, Any]) -> PlaceOf:
    """The places of the tensors of a UNet2DConditionModel with this configuration.

    Raises:
        ValueError: blocks that the original UNet has not.
    """
    layers = config.get("layers_per_block", 2)
    depths = {layers} if isinstance(layers, int) else set(layers)
    known = {
        "CrossAttnDownBlock2D",
        "DownBlock2D",
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "UNetMidBlock2DCrossAttn",
    }
    types = [*config["down_block_types"], *config["up_block_types"], config.get("mid_block_type")]
    other = sorted({str(name) for name in types} - known)
    if len(depths) != 1 or other:
        wrong = f"blocks {', '.join(other)}" if other else f"layers_per_block {layers}"
        raise ValueError(
            f"the original layout of a UNet knows no {wrong}; it knows {', '.join(sorted(known))}"
        )
    (depth,) = depths
    has_attention = ["Attn" in name for name in config["up_block_types"]]

    def place_of(name: str) -> Place:
        module, _, last = name.rpartition(".")
        if module in _OUTER:
            return Place(f"{_OUTER[module]}.{last}")
        if found := _MIDDLE.fullmatch(name):
            kind, index, rest = found.groups()
            number = 1 if kind == "attentions" else 2 * int(index)
            return Place(f"middle_block.{number}.{_inner(kind, rest, name)}")
        if found := _BLOCK.fullmatch(name):
            side, block, kind, index, rest = found.groups()
            is_down = side == "down"
            first = int(block) * (depth + 1) + is_down
            if kind == "downsamplers":
                return Place(f"input_blocks.{first + depth}.0.op.{_suffix(rest, name)}")
            if kind == "upsamplers":
                layer = 2 if has_attention[int(block)] else 1
                return Place(f"output_blocks.{first + depth}.{layer}.conv.{_suffix(rest, name)}")
            blocks = "input_blocks" if is_down else "output_blocks"
            layer = int(kind == "attentions")
            return Place(f"{blocks}.{first + int(index)}.{layer}.{_inner(kind, rest, name)}")
        raise no_place(name, "a UNet")

    return place_of


def _inner(kind: str, rest: str, name: str) -> str:
    """The name of a tensor inside a resnet or an attention: attentions are named alike."""
    if kind == "attentions":
        return rest
    module, _, last = rest.rpartition(".")
    if module not in _RESNET:
        raise no_place(name, "a UNet")
    return f"{_RESNET[module]}.{last}"


def _suffix(rest: str, name: str) -> str:
    module, _, last = rest.partition(".")
    if module != "conv":
        raise no_place(name, "a UNet")
    return last
