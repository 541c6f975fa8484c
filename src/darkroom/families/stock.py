"""What families whose network is a class of diffusers share: building it, and the parts of its pipeline."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from darkroom.components.text import without_projection
from darkroom.families.base import DiffusersSection, PipelineComponents


def build_network(
    cls: Any,
    section: DiffusersSection,
    derived: Callable[[Mapping[str, Any]], dict[str, Any]],
    folder: Path | None,
) -> Any:
    """A network of diffusers' class, from the weights in a folder or from scratch.

    derived: the constructor arguments that follow from the cache, given those that are known.
    Raises:
        ValueError: parameters or weights that do not fit the cache.
    """
    if folder is not None:
        network, loading = cls.from_pretrained(
            str(folder), torch_dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        check_whole(loading, folder)
        check_fits(network.config, derived(network.config), folder)
    else:
        params = dict(section.params or {})
        needed = derived(params)
        for name, value in needed.items():
            if params.get(name, value) != value:
                raise ValueError(
                    f"model.params.{name} is {params[name]}, but the cache needs {value}: leave it out"
                )
        try:
            network = cls(**{**params, **needed})
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            raise ValueError(f"model.params: {cls.__name__} refuses them: {error}") from error
    if section.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    return network


def check_whole(loading: Mapping[str, Any], folder: Path) -> None:
    """Refuse weights that lack some, which diffusers would make up; `loading` is what it tells of them."""
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(
            f"model.pretrained: the weights in {folder} lack {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}, which would begin as random numbers"
        )


def check_fits(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Refuse pretrained weights whose arguments differ from those that are needed."""
    differ = [
        f"{name} is {found.get(name)}, but {value} is needed"
        for name, value in wanted.items()
        if not name.startswith("_") and plain(found.get(name)) != value
    ]
    if differ:
        raise ValueError(
            f"model.pretrained: {folder} does not fit the cache and the options: {'; '.join(differ)}"
        )


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def pipeline_components(parts: PipelineComponents, has_projections: bool = False) -> dict[str, Any]:
    """VAE, scheduler, text encoders and tokenizers by the names that diffusers' pipelines have for them.

    has_projections: CLIPs keep their projection even where their pooled embedding is not used.
    """
    named: dict[str, Any] = {"vae": parts.vae, "scheduler": parts.scheduler}
    for i, (encoder, use) in enumerate(zip(parts.text_encoders, parts.uses, strict=True)):
        ending = f"_{i + 1}" if i else ""
        tokenizer = copy.deepcopy(encoder.tokenizer)
        tokenizer.model_max_length = use.max_tokens
        is_whole = (use.pooled and use.projected) or has_projections
        model = encoder.model if is_whole else without_projection(encoder.model)
        named |= {f"text_encoder{ending}": model, f"tokenizer{ending}": tokenizer}
    return named


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
