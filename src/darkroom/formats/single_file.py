"""All of a pipeline in one safetensors file, in the layout that the model was first published in.

ComfyUI, A1111 and what is built on them load it. They know an architecture by the names and shapes in the file
and take all else from their own tables: activations, heads, the noise schedule, the scale of latents. A model that
has another is refused, or told of where it is only not recognised.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from darkroom.families.sd3 import MAX_TOKENS
from darkroom.formats.base import ExportedModel, Format, in_dtype
from darkroom.formats.original.places import PlaceOf, rearranged
from darkroom.formats.original.text import (
    CLIP,
    OPEN_CLIP,
    check_activation,
    clip_places,
    open_clip_places,
    t5_places,
)
from darkroom.formats.original.transformers import flux_places, sd3_places
from darkroom.formats.original.unet import unet_places
from darkroom.formats.original.vae import vae_places

if TYPE_CHECKING:
    from torch import Tensor

NETWORK = "model.diffusion_model."
_HIDDEN_LAYERS = (
    23  # of SD 2's OpenCLIP-H as diffusers keeps it: what reads the file takes the last but one of 24
)
_SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "trained_betas": None,
    "num_train_timesteps": 1000,
}
# Family -> T5's tokenizer, and how many tokens ComfyUI fills a prompt up to.
_T5_TOKENS = {"sd3": ("tokenizer_3", 77), "flux": ("tokenizer_2", 256)}
_SGM, _SD3_REFERENCE = (
    "https://github.com/Stability-AI/generative-models",
    "https://github.com/Stability-AI/sd3-ref",
)


@dataclass(frozen=True)
class Original:
    """How a family was first published.

    architecture, implementation: as modelspec names them. parts: part -> prefix of its names, and its places.
    activations: of the CLIPs. latents: (scaling_factor, shift_factor) that readers take.
    shape: of the network's configuration, what readers take.
    """

    architecture: str
    implementation: str
    parts: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], PlaceOf]]]
    activations: Mapping[str, str]
    latents: tuple[float, float]
    shape: Mapping[str, Any] = field(default_factory=dict)


def _heads(config: Mapping[str, Any]) -> dict[str, Any]:
    """SD 2.x's and SDXL's: 64 channels each; diffusers calls their number attention_head_dim."""
    return {"attention_head_dim": [channels // 64 for channels in config["block_out_channels"]]}


def _sd(model: ExportedModel) -> Original:
    """Stable Diffusion 1.x has OpenAI's CLIP and 2.x has OpenCLIP, which the activation tells apart."""
    network, text = model.config("unet"), model.config("text_encoder")
    parts = {"unet": (NETWORK, unet_places), "vae": ("first_stage_model.", vae_places)}
    latents, channels = (0.18215, 0.0), {"block_out_channels": [320, 640, 1280, 1280]}
    if text.get("hidden_act", CLIP) == CLIP:
        parts["text_encoder"] = ("cond_stage_model.transformer.", clip_places)
        shape = {**channels, "cross_attention_dim": 768, "attention_head_dim": 8}
        return Original("stable-diffusion-v1", _SGM, parts, {"text_encoder": CLIP}, latents, shape)
    parts["text_encoder"] = ("cond_stage_model.model.", open_clip_places)
    if text.get("num_hidden_layers", 0) > _HIDDEN_LAYERS:
        raise ValueError(
            f"text_encoder has {text['num_hidden_layers']} layers, and what reads a single file of SD 2.x"
            f" takes the states after layer {_HIDDEN_LAYERS}; the diffusers folder can hold it"
        )
    is_v = model.config("scheduler").get("prediction_type") == "v_prediction"
    name = "stable-diffusion-v2-768-v" if is_v else "stable-diffusion-v2-512"
    shape = {**channels, "cross_attention_dim": 1024, **_heads(network)}
    return Original(name, _SGM, parts, {"text_encoder": OPEN_CLIP}, latents, shape)


def _sdxl(model: ExportedModel) -> Original:
    parts = {
        "unet": (NETWORK, unet_places),
        "vae": ("first_stage_model.", vae_places),
        "text_encoder": ("conditioner.embedders.0.transformer.", clip_places),
        "text_encoder_2": ("conditioner.embedders.1.model.", open_clip_places),
    }
    activations = {"text_encoder": CLIP, "text_encoder_2": OPEN_CLIP}
    shape = {
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        **_heads(model.config("unet")),
    }
    return Original("stable-diffusion-xl-v1-base", _SGM, parts, activations, (0.13025, 0.0), shape)


def _sd3(model: ExportedModel) -> Original:
    parts = {
        "transformer": (NETWORK, sd3_places),
        "vae": ("first_stage_model.", vae_places),
        "text_encoder": ("text_encoders.clip_l.transformer.", clip_places),
        "text_encoder_2": ("text_encoders.clip_g.transformer.", clip_places),
        "text_encoder_3": ("text_encoders.t5xxl.transformer.", t5_places),
    }
    activations = {"text_encoder": CLIP, "text_encoder_2": OPEN_CLIP}
    shape = {"attention_head_dim": 64, "num_attention_heads": model.config("transformer")["num_layers"]}
    return Original("stable-diffusion-3", _SD3_REFERENCE, parts, activations, (1.5305, 0.0609), shape)


def _flux(model: ExportedModel) -> Original:
    parts = {
        "transformer": (NETWORK, flux_places),
        "vae": ("vae.", vae_places),
        "text_encoder": ("text_encoders.clip_l.transformer.", clip_places),
        "text_encoder_2": ("text_encoders.t5xxl.transformer.", t5_places),
    }
    name = "flux-1-dev" if model.config("transformer").get("guidance_embeds") else "flux-1-schnell"
    shape = {"attention_head_dim": 128, "num_attention_heads": 24, "axes_dims_rope": [16, 56, 56]}
    where = "https://github.com/black-forest-labs/flux"
    return Original(name, where, parts, {"text_encoder": CLIP}, (0.3611, 0.1159), shape)


ORIGINALS: dict[str, Callable[[ExportedModel], Original]] = {
    "unet-sd": _sd,
    "unet-sdxl": _sdxl,
    "sd3": _sd3,
    "flux": _flux,
}


def tensors(model: ExportedModel, dtype: str) -> "tuple[dict[str, Tensor], dict[str, str], list[str]]":
    """See `Format`."""
    import torch

    original = ORIGINALS[model.family.name](model)
    _check(model, original)
    found: dict[str, Tensor] = {}
    for part, (prefix, places) in original.parts.items():
        if not model.has(part):
            continue
        named = rearranged(_state(model, part), places(model.config(part)))
        found |= {prefix + name: tensor for name, tensor in in_dtype(named, dtype).items()}
    scheduler = model.config("scheduler")
    if model.family.objective == "diffusion":
        # The keys that ComfyUI looks for, whatever they hold.
        if scheduler.get("prediction_type") == "v_prediction":
            found["v_pred"] = torch.ones(1)
        if scheduler.get("rescale_betas_zero_snr"):
            found["ztsnr"] = torch.ones(1)
    return found, metadata(model, original), notes(model, original)


def metadata(model: ExportedModel, original: Original, adapter: str = "") -> dict[str, str]:
    """What the file says of itself, by ModelSpec (github.com/Stability-AI/ModelSpec); no times."""
    kinds = {"epsilon": "epsilon", "v_prediction": "v"}
    kind = kinds.get(model.config("scheduler").get("prediction_type", "epsilon"))
    is_diffusion = model.family.objective == "diffusion"
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": original.architecture + adapter,
        "modelspec.implementation": original.implementation,
        "modelspec.title": model.title,
        **({"modelspec.prediction_type": kind} if kind and is_diffusion else {}),
        **model.metadata,
    }


def _state(model: ExportedModel, part: str) -> "dict[str, Tensor]":
    """A part's tensors that the layout has; T5's embeddings stand in it twice, as diffusers reads them."""
    state = model.state(part)
    if part == "text_encoder" and model.family.name == "sd3":
        _check_projection(state.pop("text_projection.weight"))
    return state


def _check_projection(projection: "Tensor") -> None:
    """SD3's first CLIP is published with the identity as its projection, and readers apply none."""
    import torch

    if projection.shape[0] != projection.shape[1] or not torch.equal(projection, torch.eye(len(projection))):
        raise ValueError(
            "text_encoder has a projection other than the identity, and what reads a single file of Stable"
            " Diffusion 3 applies none there; the diffusers folder can hold it"
        )


def _check(model: ExportedModel, original: Original) -> None:
    """Refuse what would be loaded and then draw other pictures."""
    for part, wanted in original.activations.items():
        if model.has(part):
            check_activation(model.config(part), wanted, part)
    vae, (scale, shift) = model.config("vae"), original.latents
    found = (vae.get("scaling_factor", 0.18215), vae.get("shift_factor") or 0.0)
    if found != (scale, shift):
        raise ValueError(
            f"vae has scaling_factor {found[0]} and shift_factor {found[1]}, and what reads a single file of this"
            f" family takes {scale} and {shift}; the diffusers folder can hold it"
        )
    scheduler = model.config("scheduler")
    if model.family.objective != "diffusion":
        return
    kind = scheduler.get("prediction_type", "epsilon")
    other = [name for name, value in _SCHEDULE.items() if scheduler.get(name) != value]
    if other or kind not in ("epsilon", "v_prediction"):
        told = [name if name == "trained_betas" else f"{name} {scheduler.get(name)}" for name in other]
        raise ValueError(
            f"the scheduler has {', '.join(told) or f'prediction_type {kind}'}; what reads a single file takes"
            " Stable Diffusion's schedule (scaled_linear, 0.00085 to 0.012, 1000 steps) and epsilon or"
            " v_prediction; the diffusers folder can hold it"
        )


def notes(model: ExportedModel, original: Original) -> list[str]:
    """What whoever loads the file has to know."""
    part, scheduler = model.family.part, model.config("scheduler")
    config = model.config(part)
    notes = [
        f"{part} has {name} {config.get(name)}; ComfyUI and A1111 know this architecture with {wanted} alone"
        for name, wanted in original.shape.items()
        if config.get(name) != wanted
    ]
    if scheduler.get("prediction_type") == "v_prediction" and model.family.name == "unet-sd":
        zsnr = " and zsnr" if scheduler.get("rescale_betas_zero_snr") else ""
        notes.append(
            f"ComfyUI needs the node ModelSamplingDiscrete with v_prediction{zsnr} behind this model"
        )
    if model.family.name == "sd3" and scheduler.get("shift") != 3.0:
        notes.append(
            f"ComfyUI needs the node ModelSamplingSD3 with shift {scheduler.get('shift')} behind this model"
        )
    tokenizer, length = _T5_TOKENS.get(model.family.name, ("", 0))
    if tokenizer and model.has(tokenizer):
        found = model.config(tokenizer).get("model_max_length", length)
        if found != length and found <= MAX_TOKENS:
            notes.append(
                f"ComfyUI fills prompts up to {length} T5 tokens, and this model's {tokenizer} to {found}:"
                f" the node T5TokenizerOptions with min_length {found} does so too"
            )
    return notes


SPEC = Format(
    name="single_file",
    title="the whole pipeline in one safetensors file, as first published: for ComfyUI and A1111",
    ending=".safetensors",
    families=tuple(ORIGINALS),
    instead="its diffusers folder is what holds it",
    tensors=tensors,
)
