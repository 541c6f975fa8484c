"""Adapters alone, as diffusers' `load_lora_weights` reads them."""

import json
from pathlib import Path
from typing import Any

from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

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
    _sort_metadata(folder / LORA_FILE)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file, in place: safetensors writes them in a random order."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        assert len(text) == length, path
        file.seek(8)
        file.write(text)
