"""Builds a run's network, from scratch or from pretrained weights, with the sizes of a cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from darkroom.components.base import Component
from darkroom.components.files import component_folder
from darkroom.config.families import check_attention
from darkroom.families.base import ModelSection
from darkroom.families.table import FAMILIES
from darkroom.models.denoiser import Denoiser
from darkroom.models.lora import add_lora


def build_denoiser(
    settings: ModelSection, sizes: Mapping[str, Any], seed: int, pretrained: Component | None = None
) -> Denoiser:
    """A run's network with its initial weights, on the CPU, in float32, without a trace in torch's generator.

    Args:
        sizes: latent_channels, text_dim (a tuple for several encoders) and pooled_dim, see LatentCache.sizes.
        seed: of weights that are not pretrained, and of adapters.
        pretrained: what `settings.pretrained` names.
    Raises:
        ValueError: parameters or pretrained weights that do not fit the cache.
    """
    family = FAMILIES[settings.family]
    folder = None if pretrained is None else network_folder(pretrained, family.part)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, extension = family.build(settings, sizes, folder)
    if settings.lora is not None:
        add_lora(network, settings.lora, seed)
    return Denoiser(family, network, extension)


def use_attention(denoiser: Denoiser, operator: str, device: torch.device, dtype: str) -> None:
    """Let a network's attention run on `operator` (see `model.attention`) from now on.

    Raises:
        ValueError: there is no GPU, or flash is asked for in float32.
    """
    if operator == "sdpa":
        return
    check_attention(operator, device.type)
    if operator == "flash" and dtype == "float32":
        raise ValueError("model.attention flash computes in bfloat16: write train.dtype bfloat16, or sdpa")
    denoiser.family.use_attention(denoiser.network, operator)


def check_size(denoiser: Denoiser, latent_shape: tuple[int, ...], where: str) -> None:
    """Refuse before the first step what would fail at the first batch of an odd bucket.

    Args:
        latent_shape: (C, H, W). where: whose latents they are.
    Raises:
        ValueError: the network's patches do not fit, or its table of positions is too small.
    """
    _, rows, columns = latent_shape
    config = denoiser.network.config
    patch = denoiser.family.patch_size(config)
    if rows % patch or columns % patch:
        raise ValueError(
            f"model.patch_size {patch} does not divide the {rows}x{columns} latents of {where};"
            f" make bucket.step_px a multiple of {patch} latent pixels"
        )
    most = config.get("pos_embed_max_size")
    if most is not None and max(rows, columns) > most * patch:
        raise ValueError(
            f"model.params.pos_embed_max_size {most} is too small for the {rows}x{columns} latents of {where};"
            f" write {-(-max(rows, columns) // patch)} or more, or make bucket.max_side_px smaller"
        )


def network_folder(component: Component, part: str) -> Path:
    """The network's own folder in a component's, which may be a whole pipeline's that has it as `part`."""
    folder = component_folder(component, "model")
    inside = folder / part
    folder = inside if inside.is_dir() else folder
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} has no config.json: a diffusers model's folder is needed")
    return folder
