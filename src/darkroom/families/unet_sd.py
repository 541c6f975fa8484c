"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022, arXiv 2112.10752): a UNet that attends to CLIP's tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from darkroom.families.base import (
    DiffusersSection,
    Family,
    PipelineComponents,
    PipelineEncoder,
    latent_channels,
    text_dims,
)

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.families.conditioning import Conditioning

NUM_TRAIN_TIMESTEPS = 1000


class UNetSection(DiffusersSection):
    """What diffusers' UNet2DConditionModel has in every family."""

    network_class: ClassVar = ("models/unets/unet_2d_condition.py", "UNet2DConditionModel")
    lora_targets: ClassVar = (
        *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
        *("conv1", "conv2", "conv_shortcut", "time_emb_proj"),
    )


class SDModel(UNetSection):
    """The UNet of Stable Diffusion 1.x and 2.x (UNet2DConditionModel)."""

    family: Literal["unet-sd"] = "unet-sd"


def needed(_: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """See `Family`."""
    return {**latent_channels(sizes), "cross_attention_dim": text_dims(sizes)[0]}


def build(section: SDModel, sizes: Mapping[str, Any], folder: Path | None) -> tuple[Any, None]:
    """See `Family`."""
    from diffusers import UNet2DConditionModel

    from darkroom.families.stock import build_network

    return build_network(UNet2DConditionModel, section, lambda given: needed(given, sizes), folder), None


def forward(
    network: Any, extension: None, noisy: "Tensor", timestep: "Tensor", given: "Conditioning"
) -> "Tensor":
    """See `Family`."""
    (text,) = given.text
    return network(noisy, timestep * NUM_TRAIN_TIMESTEPS, text, return_dict=False)[0]


def use_attention(network: Any, operator: str) -> None:
    """See `Family`."""
    from darkroom.families.attention import use_processors

    if operator == "sliced":
        from darkroom.families.attention import keep_upcasting

        network.set_attention_slice("max")
        keep_upcasting(network)
    else:
        use_processors(network, operator)


def pipeline(parts: PipelineComponents) -> Any:
    """See `Family`."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    from darkroom.families.stock import pipeline_components, without_shift

    named: Any = pipeline_components(parts) | {"vae": without_shift(parts.vae)}
    unsafe: Any = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(unet=parts.network, **named, **unsafe)


SPEC = Family(
    section=SDModel,
    title="Stable Diffusion 1.x and 2.x",
    joined="cross-attention",
    part="unet",
    pipelines=("StableDiffusionPipeline",),
    encoders=(PipelineEncoder("CLIP", -1, False),),
    objective="diffusion",
    attentions=("sdpa", "flash", "xformers", "sliced"),
    patch_size=lambda arguments: 1,
    needed=needed,
    build=build,
    forward=forward,
    use_attention=use_attention,
    pipeline=pipeline,
)
