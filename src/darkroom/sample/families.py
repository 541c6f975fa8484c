"""The pipeline of each family's trained network, for export and for drawing."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

from darkroom.config.run import TextEncoderUse
from darkroom.models.components import moved
from darkroom.models.context import ContextExtension
from darkroom.models.denoiser import Denoiser, MMDiTDenoiser, SD3Denoiser, SDDenoiser, SDXLDenoiser
from darkroom.models.lora import has_lora, lora_state, merged
from darkroom.models.text import TextEncoder
from darkroom.sample.export import make_pipeline, save_part
from darkroom.sample.sd3_context import SD3ContextPipeline

LORA_FILE = "pytorch_lora_weights.safetensors"


def make_family_pipeline(
    denoiser: Denoiser,
    vae: Any,
    text_encoders: Sequence[TextEncoder],
    uses: Sequence[TextEncoderUse],
    is_single: bool,
    scheduler: Any,
) -> Any:
    """A pipeline of components in memory; adapters are merged into a copy of the weights.

    Args:
        uses: how the text encoders are read.
        is_single: the run has `cache.text_encoder` instead of a list.
    Raises:
        ValueError: a VAE that the family's pipeline cannot decode with.
    """
    network = merged(denoiser.network).eval()
    if isinstance(denoiser, MMDiTDenoiser):
        readings = None if is_single else uses
        return make_pipeline(network, vae, text_encoders, readings, uses[0].max_tokens, scheduler)
    parts: dict[str, Any] = {"vae": vae, "scheduler": scheduler}
    for i, (encoder, use) in enumerate(zip(text_encoders, uses, strict=True)):
        ending = f"_{i + 1}" if i else ""
        tokenizer = copy.deepcopy(encoder.tokenizer)
        tokenizer.model_max_length = use.max_tokens
        has_pooled = use.pooled or isinstance(denoiser, SD3Denoiser)
        model = encoder.model if has_pooled else without_projection(encoder.model)
        parts |= {f"text_encoder{ending}": model, f"tokenizer{ending}": tokenizer}
    if isinstance(denoiser, SD3Denoiser):
        if denoiser.extension is None:
            return StableDiffusion3Pipeline(transformer=network, **parts)
        return SD3ContextPipeline(
            transformer=network,
            **parts,
            context=cast(ContextExtension, denoiser.extension),
            max_text_tokens=uses[-1].max_tokens,
        )
    parts["vae"] = without_shift(vae)
    if isinstance(denoiser, SDXLDenoiser):
        zeros = all(use.no_caption == "zeros" for use in uses)
        return StableDiffusionXLPipeline(
            unet=network, **parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False
        )
    assert isinstance(denoiser, SDDenoiser)
    unsafe: Any = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(unet=network, **parts, **unsafe)


def save_network(denoiser: Denoiser, folder: Path) -> None:
    """Write a network (and its extension) alone, in the folders that they have in a pipeline's."""
    is_unet = isinstance(denoiser, SDDenoiser | SDXLDenoiser)
    save_part(merged(denoiser.network), folder / ("unet" if is_unet else "transformer"))
    if denoiser.extension is not None:
        save_part(denoiser.extension, folder / "context")


def save_lora(denoiser: Denoiser, folder: Path) -> None:
    """Write a network's adapters as LORA_FILE, which diffusers' `load_lora_weights` adds to the base model.

    Without adapters nothing is written.
    """
    from diffusers.training_utils import _collate_lora_metadata

    network = denoiser.network
    if not has_lora(network):
        return
    part = "unet" if isinstance(denoiser, SDDenoiser | SDXLDenoiser) else "transformer"
    # MMDiTs have no pipeline in diffusers; SD3's way of writing adapters fits any transformer.
    writer: Any = StableDiffusionPipeline if part == "unet" else StableDiffusion3Pipeline
    writer.save_lora_weights(
        folder, **{f"{part}_lora_layers": lora_state(network)}, **_collate_lora_metadata({part: network})
    )
    assert (folder / LORA_FILE).is_file()


def without_projection(model: Any) -> Any:
    """A CLIP text tower as the plain CLIPTextModel that SD and SDXL's first encoder are."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    if not isinstance(model, CLIPTextModelWithProjection):
        return model
    plain = CLIPTextModel(model.config)
    state = model.state_dict()
    plain.load_state_dict(
        {name: state.get(f"text_model.{name}", state.get(name)) for name in plain.state_dict()}
    )
    plain = moved(plain.to(dtype=model.dtype), model.device)  # type: ignore[call-arg]
    return plain.eval().requires_grad_(False)


@torch.no_grad()
def without_shift(vae: Any) -> Any:
    """A copy of a VAE whose shift_factor is part of its weights: SD's and SDXL's pipelines know none.

    The cache's latents are (mean - shift) * scale. W (z + shift) + b = W z + (W shift + b) for the convolution of
    one pixel before the decoder, and the encoder's last one takes the shift off its means.

    Raises:
        ValueError: the VAE has a shift and not these convolutions.
    """
    shift = vae.config.shift_factor
    if not shift:
        return vae
    if vae.quant_conv is None or vae.post_quant_conv is None:
        raise ValueError(
            f"cache.vae: it has a shift_factor {shift} and no quant_conv, and the pipelines of unet-sd and"
            " unet-sdxl know no shift; take a VAE with shift_factor 0"
        )
    vae = copy.deepcopy(vae)
    vae.post_quant_conv.bias += shift * vae.post_quant_conv.weight.sum(dim=(1, 2, 3))
    vae.quant_conv.bias[: vae.config.latent_channels] -= shift
    vae.register_to_config(shift_factor=None)
    return vae
