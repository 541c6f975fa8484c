"""VAEs: pictures to latents and back."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from darkroom.components.base import Component
from darkroom.components.files import component_folder, require_file

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL


def load_vae(component: Component, dtype: torch.dtype = torch.float32) -> "AutoencoderKL":
    """The diffusers AutoencoderKL in a component's folder, for inference.

    Raises:
        ValueError: it is none, or lacks weights.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    folder = _vae_folder(component)
    vae, loading = AutoencoderKL.from_pretrained(
        str(folder), torch_dtype=dtype, use_safetensors=True, output_loading_info=True
    )
    if loading["missing_keys"]:  # diffusers would go on with random numbers in their place
        raise ValueError(f"{folder}: the weights lack {', '.join(sorted(loading['missing_keys'])[:3])}")
    return vae.eval().requires_grad_(False)


def load_vae_layout(component: Component) -> "AutoencoderKL":
    """The AutoencoderKL of a component without its weights, to look at: it takes no memory.

    Raises:
        ValueError: it is none.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.device("meta"):
        vae: AutoencoderKL = AutoencoderKL.from_config(AutoencoderKL.load_config(str(_vae_folder(component))))
    return vae


def _vae_folder(component: Component) -> Path:
    folder = component_folder(component, "vae")
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        require_file(folder, name, f"an AutoencoderKL's {name}")
    return folder


def latent_shape(vae: "AutoencoderKL", width: int, height: int) -> tuple[int, int, int]:
    """(C, h, w) of the latents of a picture of width x height pixels: every level but the last halves it."""
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    return (vae.config["latent_channels"], height // factor, width // factor)


@torch.no_grad()
def encode_latents(vae: "AutoencoderKL", images: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] -> float32 latents (mean - shift_factor) * scaling_factor.

    The posterior's mean, not a sample: the same picture always has the same latents.
    """
    mean = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mode().float()
    return (mean - (vae.config["shift_factor"] or 0.0)) * vae.config["scaling_factor"]


@torch.no_grad()
def decode_latents(vae: "AutoencoderKL", latents: Tensor) -> Tensor:
    """Latents as `encode_latents` gives them -> float32 pictures (B, 3, H, W), about [-1, 1]."""
    latents = latents.float() / vae.config["scaling_factor"] + (vae.config["shift_factor"] or 0.0)
    return vae.decode(latents.to(vae.device, vae.dtype), return_dict=False)[0].float()
