"""Builds the network of each family, from scratch or from pretrained weights, with the sizes of a cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel

from darkroom.config.components import Component
from darkroom.config.model import (
    DiffusersModel,
    MMDiTModel,
    SD3Model,
    SDModel,
    SDXLModel,
)
from darkroom.models.components import build_mmdit, component_folder
from darkroom.models.context import ContextExtension
from darkroom.models.denoiser import DENOISERS, Denoiser
from darkroom.models.lora import add_lora
from darkroom.models.mmdit import JointBlock, MMDiT

AnyFamily = MMDiTModel | SDModel | SDXLModel | SD3Model
# The network's folder in a pipeline's.
NETWORK_FOLDERS = {"mmdit": "transformer", "unet-sd": "unet", "unet-sdxl": "unet", "sd3": "transformer"}
NUM_TIME_IDS = 6
DEFAULT_TIME_EMBED_DIM = 256  # SDXL's


def build_denoiser(
    settings: AnyFamily, sizes: Mapping[str, Any], seed: int, pretrained: Component | None = None
) -> Denoiser:
    """A run's network with its initial weights, on the CPU, in float32.

    Args:
        sizes: latent_channels, text_dim (a tuple for several encoders) and pooled_dim, see LatentCache.sizes.
        seed: of weights that are not pretrained, and of adapters.
        pretrained: what `settings.pretrained` names.
    Raises:
        ValueError: parameters or pretrained weights that do not fit the cache.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(settings, MMDiTModel):
            network = _mmdit(settings, sizes, seed, pretrained)
        else:
            network = _diffusers(settings, sizes, pretrained)
        extension = None
        if isinstance(settings, SD3Model) and settings.context is not None:
            extension = ContextExtension(
                _text_dims(sizes)[-1],
                settings.context.hidden_dim,
                settings.context.num_base_tokens,
                settings.context.form,
            )
    if settings.lora is not None:
        add_lora(network, settings.lora, seed)
    return DENOISERS[settings.family](network, extension)


def check_size(network: Any, latent_shape: tuple[int, ...], where: str) -> None:
    """Refuse before the first step what would fail at the first batch of an odd bucket.

    Args:
        latent_shape: (C, H, W). where: whose latents they are.
    Raises:
        ValueError: the network's patches do not fit, or its table of positions is too small.
    """
    _, rows, columns = latent_shape
    patch = getattr(network.config, "patch_size", 1)
    if rows % patch or columns % patch:
        raise ValueError(
            f"model.patch_size {patch} does not divide the {rows}x{columns} latents of {where};"
            f" make bucket.step_px a multiple of {patch} latent pixels"
        )
    most = getattr(network.config, "pos_embed_max_size", None)
    if most is not None and max(rows, columns) > most * patch:
        raise ValueError(
            f"model.params.pos_embed_max_size {most} is too small for the {rows}x{columns} latents of {where};"
            f" write {-(-max(rows, columns) // patch)} or more, or make bucket.max_side_px smaller"
        )


def _mmdit(settings: MMDiTModel, sizes: Mapping[str, Any], seed: int, pretrained: Component | None) -> MMDiT:
    network = build_mmdit(settings, **sizes, seed=seed)
    if pretrained is not None:
        other = MMDiT.from_pretrained(str(network_folder(pretrained, settings.family)))
        wanted = {k: _plain(v) for k, v in network.config.items() if k != "position_interpolation"}
        _check_fits(other.config, wanted, pretrained)
        network.load_state_dict(other.state_dict())
    for block in network.blocks:
        assert isinstance(block, JointBlock)
        block.checkpoint_attention = settings.checkpoint_attention
        block.checkpoint_mlp = settings.checkpoint_mlp
    return network


def _diffusers(settings: DiffusersModel, sizes: Mapping[str, Any], pretrained: Component | None) -> Any:
    assert isinstance(settings, SDModel | SDXLModel | SD3Model)
    cls: Any = SD3Transformer2DModel if isinstance(settings, SD3Model) else UNet2DConditionModel
    if pretrained is not None:
        network = cls.from_pretrained(
            str(network_folder(pretrained, settings.family)), torch_dtype=torch.float32, use_safetensors=True
        )
        _check_fits(network.config, _from_cache(settings, sizes, network.config), pretrained)
    else:
        params = dict(settings.params or {})
        derived = _from_cache(settings, sizes, params)
        for name, value in derived.items():
            if params.get(name, value) != value:
                raise ValueError(
                    f"model.params.{name} is {params[name]}, but the cache needs {value}: leave it out"
                )
        try:
            network = cls(**{**params, **derived})
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            raise ValueError(f"model.params: {cls.__name__} refuses them: {error}") from error
    if settings.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    return network


def _from_cache(
    settings: DiffusersModel, sizes: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The constructor arguments that follow from the cache's sizes."""
    dims, pooled = _text_dims(sizes), sizes["pooled_dim"]
    channels = {"in_channels": sizes["latent_channels"], "out_channels": sizes["latent_channels"]}
    if isinstance(settings, SD3Model):
        heads, head_dim = given.get("num_attention_heads", 18), given.get("attention_head_dim", 64)
        return {
            **channels,
            "joint_attention_dim": dims[-1],
            "pooled_projection_dim": pooled,
            "caption_projection_dim": heads * head_dim,
        }
    if isinstance(settings, SDXLModel):
        time_dim = given.get("addition_time_embed_dim") or DEFAULT_TIME_EMBED_DIM
        return {
            **channels,
            "cross_attention_dim": sum(dims),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": time_dim,
            "projection_class_embeddings_input_dim": pooled + NUM_TIME_IDS * time_dim,
        }
    return {**channels, "cross_attention_dim": dims[0]}


def network_folder(component: Component, family: str) -> Path:
    """The network's own folder in a component's, which may be a whole pipeline's."""
    folder = component_folder(component, "model")
    inside = folder / NETWORK_FOLDERS[family]
    folder = inside if inside.is_dir() else folder
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} has no config.json: a diffusers model's folder is needed")
    return folder


def _check_fits(found: Mapping[str, Any], wanted: Mapping[str, Any], component: Component) -> None:
    differ = [
        f"{name} is {found.get(name)}, but {value} is needed"
        for name, value in wanted.items()
        if not name.startswith("_") and _plain(found.get(name)) != value
    ]
    if differ:
        raise ValueError(
            f"model.pretrained: {component.path} does not fit the cache and the options: {'; '.join(differ)}"
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _text_dims(sizes: Mapping[str, Any]) -> tuple[int, ...]:
    dims = sizes["text_dim"]
    return (dims,) if isinstance(dims, int) else tuple(dims)
