"""Stable Diffusion XL (Podell et al. 2023, arXiv 2307.01952): a UNet that is told sizes and crops.

Both encoders' channels stand side by side; the second's pooled embedding and the sizes are added to the timestep.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from darkroom.families.base import (
    Family,
    PipelineComponents,
    PipelineEncoder,
    latent_channels,
    text_dims,
)
from darkroom.families.unet_sd import NUM_TRAIN_TIMESTEPS, UNetSection, use_attention

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.families.conditioning import Conditioning

NUM_TIME_IDS = 6
DEFAULT_TIME_EMBED_DIM = 256


class SDXLModel(UNetSection):
    """The UNet of Stable Diffusion XL, with its size and crop conditioning."""

    family: Literal["unet-sdxl"] = "unet-sdxl"


def needed(given: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """See `Family`."""
    time_dim = given.get("addition_time_embed_dim") or DEFAULT_TIME_EMBED_DIM
    return {
        **latent_channels(sizes),
        "cross_attention_dim": sum(text_dims(sizes)),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": time_dim,
        "projection_class_embeddings_input_dim": sizes["pooled_dim"] + NUM_TIME_IDS * time_dim,
    }


def build(section: SDXLModel, sizes: Mapping[str, Any], folder: Path | None) -> tuple[Any, None]:
    """See `Family`."""
    from diffusers import UNet2DConditionModel

    from darkroom.families.stock import build_network

    return build_network(UNet2DConditionModel, section, lambda given: needed(given, sizes), folder), None


def forward(
    network: Any, extension: None, noisy: "Tensor", timestep: "Tensor", given: "Conditioning"
) -> "Tensor":
    """See `Family`."""
    import torch

    added = {"text_embeds": given.pooled, "time_ids": given.time_ids}
    text = torch.cat(given.text, dim=-1)
    return network(noisy, timestep * NUM_TRAIN_TIMESTEPS, text, added_cond_kwargs=added, return_dict=False)[0]


def pipeline(parts: PipelineComponents) -> Any:
    """See `Family`."""
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

    from darkroom.families.stock import pipeline_components, without_shift

    named: Any = pipeline_components(parts) | {"vae": without_shift(parts.vae)}
    zeros = all(use.no_caption == "zeros" for use in parts.uses)
    return StableDiffusionXLPipeline(
        unet=parts.network, **named, force_zeros_for_empty_prompt=zeros, add_watermarker=False
    )


SPEC = Family(
    section=SDXLModel,
    title="Stable Diffusion XL",
    joined="channels side by side; the second's pooled embedding with sizes and crop",
    part="unet",
    pipelines=("StableDiffusionXLPipeline",),
    encoders=(PipelineEncoder("CLIP-L", -2, False), PipelineEncoder("OpenCLIP-G", -2, True)),
    nulls="alike",
    objective="diffusion",
    attentions=("sdpa", "flash", "xformers", "sliced"),
    has_sizes=True,
    patch_size=lambda arguments: 1,
    needed=needed,
    build=build,
    forward=forward,
    use_attention=use_attention,
    pipeline=pipeline,
)
