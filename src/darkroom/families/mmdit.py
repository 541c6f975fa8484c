"""darkroom's own transformer (`exported.mmdit`), for any number of text encoders.

Every encoder's tokens have a norm and a projection of their own, and follow one another.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from darkroom.components.use import TextEncoderUse
from darkroom.families.base import Family, ModelSection, PipelineComponents
from darkroom.settings.base import ADDED

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.exported.mmdit import MMDiT
    from darkroom.families.conditioning import Conditioning


class MMDiTModel(ModelSection):
    """The MMDiT: an SD3-style transformer over image and text tokens."""

    lora_targets: ClassVar = ("qkv", "attention_out", "mlp_in", "mlp_gate", "mlp_out", "modulation")
    free: ClassVar = ModelSection.free | {"position_interpolation", "checkpoint_attention", "checkpoint_mlp"}

    family: Annotated[Literal["mmdit"], ADDED] = "mmdit"
    num_blocks: int = Field(ge=1, description="joint transformer blocks")
    num_heads: int = Field(ge=1, description="attention heads")
    head_dim: int = Field(64, ge=8, description="channels a head; width = num_heads x head_dim")
    patch_size: int = Field(2, ge=1, description="latent pixels a token, per side")
    mlp_ratio: float = Field(4.0, gt=0, description="hidden width of the MLP / width")
    mlp: Annotated[Literal["gelu", "swiglu"], ADDED] = Field("gelu", description="form of the MLP")
    positions: Annotated[Literal["rope", "absolute", "none"], ADDED] = Field(
        "rope", description="2-D positions of image tokens: rotary, added sinusoids, or none"
    )
    position_interpolation: Annotated[float, ADDED] = Field(
        1.0, gt=0, description="positions are divided by this: 2 at twice the side first trained on"
    )
    text_scale: Annotated[float | None, ADDED] = Field(
        None, gt=0, description="initial value of a learned scale for each text encoder; null is none"
    )
    learned_time_scale: Annotated[bool, ADDED] = Field(
        False, description="learn the timesteps' scale, from 1000"
    )
    checkpoint_attention: Annotated[bool, ADDED] = Field(
        False, description="compute attention again in the backward pass instead of keeping it"
    )
    checkpoint_mlp: Annotated[bool, ADDED] = Field(False, description="the same for the MLPs")

    @model_validator(mode="after")
    def _fits(self) -> "MMDiTModel":
        if self.head_dim % 4:
            raise ValueError(f"head_dim {self.head_dim} is no multiple of 4, as 2-D RoPE needs")
        if self.lora and "mlp_gate" in self.lora.targets and self.mlp != "swiglu":
            raise ValueError("lora.targets: 'mlp_gate' is of mlp: swiglu alone; write that, or leave it out")
        return self


def needed(_: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """See `Family`."""
    return {
        "in_channels": sizes["latent_channels"],
        "text_dim": sizes["text_dim"],
        "pooled_dim": sizes["pooled_dim"],
    }


def build(section: MMDiTModel, sizes: Mapping[str, Any], folder: Path | None) -> tuple["MMDiT", None]:
    """See `Family`."""
    from darkroom.exported.mmdit import JointBlock, MMDiT
    from darkroom.families.stock import check_fits, check_whole, plain

    network = MMDiT(
        **needed({}, sizes),
        num_blocks=section.num_blocks,
        num_heads=section.num_heads,
        head_dim=section.head_dim,
        patch_size=section.patch_size,
        mlp_ratio=section.mlp_ratio,
        mlp=section.mlp,
        positions=section.positions,
        position_interpolation=section.position_interpolation,
        text_scale=section.text_scale,
        learned_time_scale=section.learned_time_scale,
    )
    if folder is not None:
        other, loading = MMDiT.from_pretrained(str(folder), output_loading_info=True)
        check_whole(loading, folder)
        wanted = {k: plain(v) for k, v in network.config.items() if k != "position_interpolation"}
        check_fits(other.config, wanted, folder)
        network.load_state_dict(other.state_dict())
    for block in network.blocks:
        assert isinstance(block, JointBlock)
        block.checkpoint_attention = section.checkpoint_attention
        block.checkpoint_mlp = section.checkpoint_mlp
    return network, None


def forward(
    network: Any, extension: None, noisy: "Tensor", timestep: "Tensor", given: "Conditioning"
) -> "Tensor":
    """See `Family`."""
    return network(noisy, timestep, given.text, given.text_mask, given.pooled)


def use_attention(network: Any, operator: str) -> None:
    """See `Family`; padded text is packed away."""
    from darkroom.families.attention import Packed

    packed = Packed(operator)
    for block in network.blocks:
        block.attend = packed


def pipeline(parts: PipelineComponents) -> Any:
    """See `Family`."""
    uses = None if parts.is_single else parts.uses
    return make_pipeline(
        parts.network, parts.vae, parts.text_encoders, uses, parts.uses[0].max_tokens, parts.scheduler
    )


def make_pipeline(
    transformer: "MMDiT",
    vae: Any,
    text_encoders: Sequence[Any],
    uses: Sequence[TextEncoderUse] | None = None,
    max_text_tokens: int = 77,
    scheduler: Any = None,
) -> Any:
    """A DarkroomPipeline of components in memory.

    Args:
        text_encoders: see `PipelineComponents`.
        uses: how each of several text encoders is read; None is one CLIP, read as SD3 does.
        scheduler: see `sample.schedulers.make_scheduler`; None is plain flow.
    """
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    from darkroom.components.text import without_projection
    from darkroom.exported.pipeline import DarkroomPipeline

    models = [encoder.model for encoder in text_encoders]
    for i, use in enumerate(uses or ()):
        models[i] = models[i] if use.projected else without_projection(models[i])
    named: dict[str, Any] = {}
    for i, encoder in enumerate(text_encoders[1:], start=2):
        named |= {f"text_encoder_{i}": models[i - 1], f"tokenizer_{i}": encoder.tokenizer}
    encoders: list[list[Any]] = [
        [use.hidden_layer, use.max_tokens, use.padded, use.pooled, use.no_caption == "zeros"]
        for use in uses or ()
    ]
    return DarkroomPipeline(
        *(transformer, vae, models[0], text_encoders[0].tokenizer),
        *(scheduler or FlowMatchEulerDiscreteScheduler(), max_text_tokens),
        **named,
        encoder_options=encoders or None,
    )


def options(pipeline: Any, num: int, guidance_scale: float, negative_prompt: str) -> dict[str, Any]:
    """See `Family`: one negative prompt for all pictures."""
    return {"guidance_scale": guidance_scale, "negative_prompt": negative_prompt}


SPEC = Family(
    section=MMDiTModel,
    title="darkroom's own transformer",
    joined="each has a norm, a learned scale if `text_scale` is set, and a projection; tokens follow one another",
    part="transformer",
    pipelines=("DarkroomPipeline",),
    carried=("darkroom.exported.mmdit", "darkroom.exported.pipeline"),
    nulls="any",
    patch_size=lambda arguments: arguments["patch_size"],
    needed=needed,
    build=build,
    forward=forward,
    use_attention=use_attention,
    pipeline=pipeline,
    options=options,
)
