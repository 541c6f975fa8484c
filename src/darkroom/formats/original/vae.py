"""The autoencoder of latent diffusion as `ldm` names it: its decoder's blocks are counted from the picture."""

import re
from collections.abc import Mapping
from typing import Any

from darkroom.formats.original.places import Place, PlaceOf, no_place

_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_BLOCK = re.compile(
    r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_RESNET = re.compile(r"(encoder|decoder)\.mid_block\.resnets\.([01])\.(.+)")
_MIDDLE = re.compile(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)")
_OUTER = re.compile(
    r"((?:encoder|decoder)\.(?:conv_in|conv_out|conv_norm_out)|(?:post_)?quant_conv)\.(weight|bias)"
)


def vae_places(config: Mapping[str, Any]) -> PlaceOf:
    """The places of the tensors of an AutoencoderKL with this configuration."""
    last = len(config["up_block_types"]) - 1

    def place_of(name: str) -> Place:
        if found := _OUTER.fullmatch(name):
            return Place(name.replace("conv_norm_out", "norm_out"))
        if found := _RESNET.fullmatch(name):
            side, index, rest = found.groups()
            return Place(f"{side}.mid.block_{int(index) + 1}.{_shortcut(rest)}")
        if (found := _MIDDLE.fullmatch(name)) and found[2] in _ATTENTION:
            is_linear = found[2] != "group_norm" and found[3] == "weight"
            inner = f"{found[1]}.mid.attn_1.{_ATTENTION[found[2]]}.{found[3]}"
            return Place(inner, change="convolution" if is_linear else "")
        if found := _BLOCK.fullmatch(name):
            side, block, kind, index, rest = found.groups()
            number = int(block) if side == "encoder.down" else last - int(block)
            inner = f"block.{index}.{_shortcut(rest)}" if kind == "resnets" else f"{kind[:-3]}e.{rest}"
            return Place(f"{side}.{number}.{inner}")
        raise no_place(name, "an autoencoder")

    return place_of


def _shortcut(rest: str) -> str:
    return rest.replace("conv_shortcut", "nin_shortcut")
