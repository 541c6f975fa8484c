"""Stable Diffusion 3 (Esser et al. 2024, arXiv 2403.03206), also with longer prompts (`exported.context`).

Both CLIPs' channels stand side by side, padded with zeros to T5's width, then come T5's tokens; both pooled
embeddings stand side by side.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from darkroom.components.use import TextEncoderUse
from darkroom.families.base import (
    DiffusersSection,
    Family,
    PipelineComponents,
    PipelineEncoder,
    diffusers_options,
    latent_channels,
    text_dims,
)
from darkroom.settings.base import Section

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.families.conditioning import Conditioning

NUM_TRAIN_TIMESTEPS = 1000
MAX_TOKENS = 512  # of T5, which diffusers' pipeline reads at most
DEFAULT_PATCH_SIZE, DEFAULT_HEADS, DEFAULT_HEAD_DIM = 2, 18, 64


class ContextExtension(Section):
    """Longer prompts for SD3: a trained module on the T5 tokens beyond a prompt's first ones."""

    form: Literal["residual", "mlp"] = Field(
        "residual", description="residual: starts as the base model; mlp: PixelProse-PowerUp's, as published"
    )
    num_base_tokens: int = Field(77, ge=1, description="T5 tokens that pass unchanged")
    hidden_dim: int = Field(2048, ge=1, description="hidden width (and the mlp form's output width)")


class SD3Model(DiffusersSection):
    """The transformer of Stable Diffusion 3 (SD3Transformer2DModel)."""

    network_class: ClassVar = ("models/transformers/transformer_sd3.py", "SD3Transformer2DModel")
    lora_targets: ClassVar = (
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("norm1.linear", "norm1_context.linear"),
    )

    family: Literal["sd3"] = "sd3"
    context: ContextExtension | None = Field(None, description="longer prompts")


def check(section: SD3Model, uses: Sequence[TextEncoderUse]) -> None:
    """See `Family`."""
    context = section.context
    if context is not None and uses[-1].max_tokens <= context.num_base_tokens:
        raise ValueError(
            f"cache.text_encoders.2.max_tokens: model.context changes the tokens after the first"
            f" {context.num_base_tokens}, and {uses[-1].max_tokens} are kept; write more"
        )


def needed(given: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """See `Family`."""
    heads = given.get("num_attention_heads", DEFAULT_HEADS)
    return {
        **latent_channels(sizes),
        "joint_attention_dim": text_dims(sizes)[-1],
        "pooled_projection_dim": sizes["pooled_dim"],
        "caption_projection_dim": heads * given.get("attention_head_dim", DEFAULT_HEAD_DIM),
    }


def build(section: SD3Model, sizes: Mapping[str, Any], folder: Path | None) -> tuple[Any, Any]:
    """See `Family`."""
    from diffusers import SD3Transformer2DModel

    from darkroom.exported.context import ContextExtension as Extension
    from darkroom.families.stock import build_network

    network = build_network(SD3Transformer2DModel, section, lambda given: needed(given, sizes), folder)
    context, text_dim = section.context, text_dims(sizes)[-1]
    if context is None:
        return network, None
    return network, Extension(text_dim, context.hidden_dim, context.num_base_tokens, context.form)


def forward(
    network: Any, extension: Any, noisy: "Tensor", timestep: "Tensor", given: "Conditioning"
) -> "Tensor":
    """See `Family`."""
    *clips, t5 = given.text
    if extension is not None:
        t5 = extension(t5)
    text, timestep = join_text(clips, t5), timestep * NUM_TRAIN_TIMESTEPS
    return network(noisy, text, given.pooled, timestep, return_dict=False)[0]


def join_text(clips: "Sequence[Tensor]", t5: "Tensor") -> "Tensor":
    """[(B, L, D_1), (B, L, D_2)], (B, L', D) -> (B, L + L', D): SD3's text tokens."""
    import torch
    from torch.nn.functional import pad

    beside = torch.cat(list(clips), dim=-1)
    return torch.cat([pad(beside, (0, t5.shape[-1] - beside.shape[-1])), t5], dim=1)


def use_attention(network: Any, operator: str) -> None:
    """See `Family`."""
    from darkroom.families.attention import use_processors

    use_processors(network, operator)


def pipeline(parts: PipelineComponents) -> Any:
    """See `Family`."""
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

    from darkroom.exported.sd3_context import SD3ContextPipeline
    from darkroom.families.stock import pipeline_components

    named: Any = {"transformer": parts.network, **pipeline_components(parts, has_projections=True)}
    if parts.extension is None:
        return StableDiffusion3Pipeline(**named)
    return SD3ContextPipeline(**named, context=parts.extension, max_text_tokens=parts.uses[-1].max_tokens)


def options(pipeline: Any, num: int, guidance_scale: float, negative_prompt: str) -> dict[str, Any]:
    """See `Family`; as many T5 tokens as were trained with."""
    found, t5 = diffusers_options(pipeline, num, guidance_scale, negative_prompt), pipeline.tokenizer_3
    return found if t5 is None else {**found, "max_sequence_length": min(t5.model_max_length, MAX_TOKENS)}


SPEC = Family(
    section=SD3Model,
    title="Stable Diffusion 3",
    joined="CLIPs side by side, padded with zeros to T5's width; then T5's tokens; both pooled embeddings",
    part="transformer",
    extension="context",
    pipelines=("StableDiffusion3Pipeline", "SD3ContextPipeline"),
    carried=("darkroom.exported.context", "darkroom.exported.sd3_context"),
    encoders=(
        PipelineEncoder("CLIP-L", -2, True),
        PipelineEncoder("OpenCLIP-G", -2, True),
        PipelineEncoder("T5", -1, False, max_tokens=MAX_TOKENS),
    ),
    objective="flow",
    patch_size=lambda arguments: int(arguments.get("patch_size", DEFAULT_PATCH_SIZE)),
    needed=needed,
    check=check,
    build=build,
    forward=forward,
    use_attention=use_attention,
    pipeline=pipeline,
    options=options,
)
