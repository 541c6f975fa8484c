"""Adapters alone, as diffusers' `load_lora_weights` reads them."""

from pathlib import Path
from typing import Any

from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from safetensors.torch import save_file

from darkroom.formats.lora_files import DORA_FILE, LORA_FILE
from darkroom.formats.tensors import sort_metadata
from darkroom.models.denoiser import Denoiser
from darkroom.models.lora import dora_norm_ratios, has_lora, lora_config, lora_state


def save_lora(denoiser: Denoiser, folder: Path) -> None:
    """Write a network's adapters as LORA_FILE, which diffusers' `load_lora_weights` adds to the base model.

    Without adapters nothing is written. Beside those of DoRA comes DORA_FILE, see `models.lora.dora_norm_ratios`:
    the form that ComfyUI reads depends on the base's weights, which the folder has no more.
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
    if ratios := dora_norm_ratios(network):
        save_file(ratios, folder / DORA_FILE)
