"""Adapters alone, as diffusers' `load_lora_weights` reads them."""

from pathlib import Path
from typing import Any

from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

from darkroom.formats.tensors import sort_metadata
from darkroom.models.denoiser import Denoiser
from darkroom.models.lora import has_lora, lora_config, lora_state

LORA_FILE = "pytorch_lora_weights.safetensors"


def save_lora(denoiser: Denoiser, folder: Path) -> None:
    """Write a network's adapters as LORA_FILE, which diffusers' `load_lora_weights` adds to the base model.

    Without adapters nothing is written.
    """
    network, part = denoiser.network, denoiser.family.part
    if not has_lora(network):
        return
    # All transformers' adapters are written as SD3's are; not every family's pipeline is one of diffusers'.
    writer: Any = StableDiffusionPipeline if part == "unet" else StableDiffusion3Pipeline
    written = {
        f"{part}_lora_layers": lora_state(network),
        f"{part}_lora_adapter_metadata": lora_config(network),
    }
    writer.save_lora_weights(folder, **written)
    sort_metadata(folder / LORA_FILE)
