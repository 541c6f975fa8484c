"""FLUX.1 of Black Forest Labs, dev and schnell (diffusers' FluxTransformer2DModel).

A rectified flow. Image tokens are 2x2 latent pixels, with rotary positions of rows and columns. T5's tokens attend
with them and have no positions; CLIP-L gives its pooled embedding alone, before the projection. With
`guidance_embeds`, as in dev, the network is told a guidance scale (Meng et al. 2023, arXiv 2210.03142) and one
pass a step draws guided pictures; without, as in schnell, guidance is a second pass without the prompt.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from darkroom.families.base import DiffusersSection, Family, PipelineComponents, PipelineEncoder, text_dims

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.families.conditioning import Conditioning

PATCH = 2
MAX_TOKENS = 512  # of T5, which diffusers' pipeline reads at most
DEFAULT_HEAD_DIM, DEFAULT_AXES = 128, (16, 56, 56)
# The scheduler of dev: exp(mu) is the shift, and mu grows linearly with a picture's tokens.
DYNAMIC_SHIFT = {
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}


class FluxModel(DiffusersSection):
    """The transformer of FLUX.1 (FluxTransformer2DModel)."""

    network_class: ClassVar = ("models/transformers/transformer_flux.py", "FluxTransformer2DModel")
    lora_targets: ClassVar = (
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("norm1.linear", "norm1_context.linear", "norm.linear", "proj_mlp", "proj_out"),
    )
    free: ClassVar = DiffusersSection.free | {"guidance"}

    family: Literal["flux"] = "flux"
    guidance: float = Field(
        1.0,
        ge=1,
        description="guidance scale that the network is told in training, where it has guidance_embeds",
    )

    @model_validator(mode="after")
    def _positions_fill_a_head(self) -> "FluxModel":
        if self.params is None:
            return self
        axes = self.params.get("axes_dims_rope", DEFAULT_AXES)
        head_dim = self.params.get("attention_head_dim", DEFAULT_HEAD_DIM)
        if len(axes) != 3 or sum(axes) != head_dim or any(axis % 2 for axis in axes):
            raise ValueError(
                f"params.axes_dims_rope: {list(axes)} must be three even numbers whose sum is attention_head_dim"
                f" {head_dim}"
            )
        if self.params.get("out_channels") is not None:
            raise ValueError("params.out_channels: follows from the cache; leave it out")
        return self


def needed(_: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """See `Family`."""
    return {
        "in_channels": sizes["latent_channels"] * PATCH**2,
        "patch_size": 1,  # packing has made patches already
        "joint_attention_dim": text_dims(sizes)[-1],
        "pooled_projection_dim": sizes["pooled_dim"],
    }


def build(section: FluxModel, sizes: Mapping[str, Any], folder: Path | None) -> tuple[Any, None]:
    """See `Family`; the network keeps the guidance of `section` as `told_guidance`, None where it has no place."""
    from diffusers import FluxTransformer2DModel

    from darkroom.families.stock import build_network

    network = build_network(FluxTransformer2DModel, section, lambda given: needed(given, sizes), folder)
    network.told_guidance = section.guidance if network.config.guidance_embeds else None
    return network, None


def forward(
    network: Any, extension: None, noisy: "Tensor", timestep: "Tensor", given: "Conditioning"
) -> "Tensor":
    """See `Family`."""
    _, t5 = given.text
    rows, columns = (side // PATCH for side in noisy.shape[-2:])
    guidance = network.told_guidance
    output = network(
        hidden_states=pack(noisy),
        encoder_hidden_states=t5,
        pooled_projections=given.pooled,
        timestep=timestep,
        img_ids=image_ids(rows, columns, noisy),
        txt_ids=noisy.new_zeros(t5.shape[1], 3),
        guidance=None if guidance is None else timestep.new_full((len(noisy),), guidance),
        return_dict=False,
    )[0]
    return unpack(output, rows, columns)


def pack(latents: "Tensor") -> "Tensor":
    """(B, C, 2 rows, 2 columns) -> (B, rows columns, 4 C), row by row."""
    patches = latents.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))  # (B, C, rows, 2, columns, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: "Tensor", rows: int, columns: int) -> "Tensor":
    """(B, rows columns, 4 C) -> (B, C, 2 rows, 2 columns), the inverse of `pack`."""
    parts = tokens.unflatten(1, (rows, columns)).unflatten(3, (-1, PATCH, PATCH))
    return parts.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def image_ids(rows: int, columns: int, like: "Tensor") -> "Tensor":
    """(rows columns, 3): 0, row and column of each image token. Text tokens are all at 0."""
    import torch

    row, column = torch.meshgrid(
        torch.arange(rows, device=like.device), torch.arange(columns, device=like.device), indexing="ij"
    )
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).to(like.dtype)


def use_attention(network: Any, operator: str) -> None:
    """See `Family`; diffusers' dispatcher has both, flash as torch's own kernel."""
    from diffusers import attention_backend

    with attention_backend():  # on leaving, the operator of all other networks is what it was
        network.set_attention_backend({"flash": "_native_flash", "xformers": "xformers"}[operator])


def pipeline(parts: PipelineComponents) -> Any:
    """See `Family`. With guidance_embeds the scheduler's shift depends on the picture's size, as in dev."""
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    from darkroom.families.stock import pipeline_components

    named: Any = pipeline_components(parts)
    if parts.network.config.guidance_embeds:
        named["scheduler"] = FlowMatchEulerDiscreteScheduler.from_config(
            parts.scheduler.config, **DYNAMIC_SHIFT
        )
    if parts.vae.config.shift_factor is None:
        named["vae"] = _with_shift(parts.vae)
    return FluxPipeline(transformer=parts.network, **named)


def _with_shift(vae: Any) -> Any:
    """A copy of a VAE whose config says that it has no shift by 0: FLUX's pipeline adds the number."""
    import copy

    vae = copy.deepcopy(vae)
    vae.register_to_config(shift_factor=0.0)
    return vae


def options(pipeline: Any, num: int, guidance_scale: float, negative_prompt: str) -> dict[str, Any]:
    """See `Family`; as many T5 tokens as were trained with. Without guidance_embeds a second pass guides."""
    length = {"max_sequence_length": min(pipeline.tokenizer_2.model_max_length, MAX_TOKENS)}
    negative = [negative_prompt] * num
    if not pipeline.transformer.config.guidance_embeds:
        return {"true_cfg_scale": guidance_scale, "negative_prompt": negative, **length}
    if negative_prompt:
        raise ValueError(
            "negative prompt: this model is told its guidance and draws in one pass; leave the negative prompt out"
        )
    return {"guidance_scale": guidance_scale, **length}


SPEC = Family(
    section=FluxModel,
    title="FLUX.1, dev and schnell",
    joined="T5's tokens beside the image's; CLIP's pooled embedding",
    part="transformer",
    pipelines=("FluxPipeline",),
    encoders=(
        PipelineEncoder("CLIP-L", -1, True, projected=False),
        PipelineEncoder("T5", -1, False, max_tokens=MAX_TOKENS),
    ),
    objective="flow",
    patch_size=lambda arguments: PATCH,
    needed=needed,
    build=build,
    forward=forward,
    use_attention=use_attention,
    pipeline=pipeline,
    options=options,
    latents=lambda latents, width, height: unpack(latents, height // PATCH, width // PATCH),
)
