"""Which network a run trains: one section for each family, told apart by `family`."""

import ast
import difflib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter, model_validator

from darkroom.config.base import ADDED, Section

DEFAULT_FAMILY = "mmdit"
# Layers that LoRA can adapt: the ends of their names, as they are in a model of the family.
_UNET_TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj"),
)
_SD3_TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    *("norm1.linear", "norm1_context.linear"),
)
LORA_TARGETS = {
    "mmdit": ("qkv", "attention_out", "mlp_in", "mlp_gate", "mlp_out", "modulation"),
    "unet-sd": _UNET_TARGETS,
    "unet-sdxl": _UNET_TARGETS,
    "sd3": _SD3_TARGETS,
}
# Where diffusers defines a family's network: file and class.
DIFFUSERS_CLASSES = {
    "unet-sd": ("models/unets/unet_2d_condition.py", "UNet2DConditionModel"),
    "unet-sdxl": ("models/unets/unet_2d_condition.py", "UNet2DConditionModel"),
    "sd3": ("models/transformers/transformer_sd3.py", "SD3Transformer2DModel"),
}


class LoRA(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): only they are trained."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(16.0, gt=0, description="updates are scaled by alpha / rank")
    targets: tuple[str, ...] = Field(min_length=1, description="ends of the names of the layers to adapt")


class ContextExtension(Section):
    """Longer prompts for SD3: a trained module on the T5 tokens beyond a prompt's first ones."""

    form: Literal["residual", "mlp"] = Field(
        "residual", description="residual: starts as the base model; mlp: PixelProse-PowerUp's, as published"
    )
    num_base_tokens: int = Field(77, ge=1, description="T5 tokens that pass unchanged")
    hidden_dim: int = Field(2048, ge=1, description="hidden width (and the mlp form's output width)")


class AnyModel(Section):
    """What every family has."""

    pretrained: Annotated[str | None, ADDED] = Field(
        None, description="name of a model in config/components.yaml, to go on from"
    )
    attention: Annotated[Literal["sdpa", "flash", "xformers", "sliced"], ADDED] = Field(
        "sdpa", description="attention in training; flash and xformers need a GPU, sliced is for UNets"
    )
    lora: Annotated[LoRA | None, ADDED] = Field(None, description="train adapters instead of the weights")

    def check_lora(self, family: str) -> None:
        """Refuse adapters on layers that no model of the family has."""
        known = list(LORA_TARGETS[family])
        for target in self.lora.targets if self.lora else ():
            if target not in known:
                raise ValueError(
                    f"lora.targets: a {family} has no layer {target!r}{nearest(target, known)}"
                    f" (all: {', '.join(known)})"
                )


class MMDiTModel(AnyModel):
    """The MMDiT: an SD3-style transformer over image and text tokens."""

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
        self.check_lora(self.family)
        if self.lora and "mlp_gate" in self.lora.targets and self.mlp != "swiglu":
            raise ValueError("lora.targets: 'mlp_gate' is of mlp: swiglu alone; write that, or leave it out")
        return self


class DiffusersModel(AnyModel):
    """A network of diffusers, pretrained or from scratch."""

    params: dict[str, Any] | None = Field(
        None, description="from scratch: arguments of diffusers' class; channels follow from the cache"
    )
    gradient_checkpointing: bool = Field(False, description="keep less in memory, compute more")

    def check_source(self, family: str) -> None:
        """Exactly one of `pretrained` and `params`, and no parameter that diffusers does not know."""
        if (self.pretrained is None) == (self.params is None):
            raise ValueError(
                "give either pretrained (a model of config/components.yaml) or params (from scratch)"
            )
        known = constructor_arguments(*DIFFUSERS_CLASSES[family])
        for name in self.params or {}:
            if name not in known:
                where = DIFFUSERS_CLASSES[family][1]
                raise ValueError(f"params: {where} has no argument {name!r}{nearest(name, list(known))}")
        self.check_lora(family)


class SDModel(DiffusersModel):
    """The UNet of Stable Diffusion 1.x and 2.x (UNet2DConditionModel)."""

    family: Literal["unet-sd"] = "unet-sd"

    @model_validator(mode="after")
    def _fits(self) -> "SDModel":
        self.check_source(self.family)
        return self


class SDXLModel(DiffusersModel):
    """The UNet of Stable Diffusion XL, with its size and crop conditioning."""

    family: Literal["unet-sdxl"] = "unet-sdxl"

    @model_validator(mode="after")
    def _fits(self) -> "SDXLModel":
        self.check_source(self.family)
        return self


class SD3Model(DiffusersModel):
    """The transformer of Stable Diffusion 3 (SD3Transformer2DModel)."""

    family: Literal["sd3"] = "sd3"
    context: ContextExtension | None = Field(None, description="longer prompts")

    @model_validator(mode="after")
    def _fits(self) -> "SD3Model":
        self.check_source(self.family)
        return self


def _family(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("family", DEFAULT_FAMILY))
    return str(getattr(value, "family", DEFAULT_FAMILY))


Model = Annotated[
    Annotated[MMDiTModel, Tag("mmdit")]
    | Annotated[SDModel, Tag("unet-sd")]
    | Annotated[SDXLModel, Tag("unet-sdxl")]
    | Annotated[SD3Model, Tag("sd3")],
    Discriminator(
        _family,
        custom_error_type="unknown_family",
        custom_error_message="family must be one of " + ", ".join(LORA_TARGETS),
    ),
]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Model)


def read_model(values: dict[str, Any]) -> "MMDiTModel | SDModel | SDXLModel | SD3Model":
    """The section of a dump, as its family's class."""
    return _ADAPTER.validate_python(values)


@cache
def constructor_arguments(file: str, class_name: str) -> tuple[str, ...]:
    """The arguments of a diffusers class, read from its source: importing diffusers takes seconds."""
    spec = find_spec("diffusers")
    assert spec is not None and spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name]
    init = next(n for n in classes[0].body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    return tuple(a.arg for a in init.args.args + init.args.kwonlyargs if a.arg != "self")


def nearest(name: str, known: list[str]) -> str:
    """ "; did you mean ...?" with the most similar of the known names, if one is similar."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
