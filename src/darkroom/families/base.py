"""What a family of networks is: one spec, which everything that depends on the family asks.

A family's file has its section of the configuration, what it asks of the rest of a run, how its network is built
and called, and the pipeline that it is exported as. Nothing else says its name.

A family's file is read with the configuration, by jobs without
torch too: what imports torch or diffusers does so inside its functions, or is in `families.stock` and
`families.attention`.
"""

import ast
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from darkroom.components.base import ComponentOf
from darkroom.components.use import TextEncoderUse
from darkroom.settings.base import ADDED, Section

if TYPE_CHECKING:
    from torch import Tensor

    from darkroom.families.conditioning import Conditioning


class LoRA(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): only they are trained."""

    method: Annotated[Literal["lora", "dora", "lokr"], ADDED] = Field(
        "lora",
        description="dora: weights' magnitudes are trained apart from their directions; lokr: what is added is a"
        " Kronecker product",
    )
    rank: int = Field(16, ge=1)
    alpha: float = Field(16.0, gt=0, description="updates are scaled by alpha / rank")
    targets: tuple[str, ...] = Field(min_length=1, description="ends of the names of the layers to adapt")
    rank_pattern: Annotated[dict[str, Annotated[int, Field(ge=1)]], ADDED] = Field(
        {}, description="end of a layer's name -> its rank; of several ends the longest counts"
    )
    alpha_pattern: Annotated[dict[str, Annotated[float, Field(gt=0)]], ADDED] = Field(
        {}, description="end of a layer's name -> its alpha"
    )
    base_dtype: Annotated[Literal["float32", "int8", "nf4"], ADDED] = Field(
        "float32",
        description="how the frozen weights of the blocks' linear layers are kept, by bitsandbytes on a GPU: int8"
        " takes a quarter of the memory, and nf4 a seventh",
    )

    @model_validator(mode="after")
    def _patterns_are_of_targets(self) -> "LoRA":
        """Refuse patterns for layers that have no adapters."""
        for option in ("rank_pattern", "alpha_pattern"):
            for key in getattr(self, option):
                if not any(is_end(target, key) for target in self.targets):
                    near = nearest(key.rpartition(".")[2], list(self.targets))
                    raise ValueError(
                        f"{option}: {key!r} is none of targets, and ends in none{near}"
                        f" (targets: {', '.join(self.targets)})"
                    )
        return self


class ModelSection(Section):
    """The `model` section of a run: what every family has. Each family's own adds `family` and more.

    lora_targets: layers that adapters can be put on, the ends of their names.
    free: options that a later phase may change, because they change neither shape nor meaning of a weight.
    """

    lora_targets: ClassVar[tuple[str, ...]]
    free: ClassVar[frozenset[str]] = frozenset({"attention"})
    if TYPE_CHECKING:
        family: str

    pretrained: Annotated[str | None, ADDED, ComponentOf("model")] = Field(
        None, description="name of a model in config/components.yaml, to go on from"
    )
    attention: Annotated[Literal["sdpa", "flash", "xformers", "sliced"], ADDED] = Field(
        "sdpa", description="attention in training; flash and xformers need a GPU, sliced is for UNets"
    )
    lora: Annotated[LoRA | None, ADDED] = Field(None, description="train adapters instead of the weights")

    def arguments(self) -> Mapping[str, Any]:
        """The arguments of the network's class, as far as the configuration says them."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    @model_validator(mode="after")
    def _has_targets(self) -> "ModelSection":
        """Refuse adapters on layers that no model of the family has."""
        known = list(self.lora_targets)
        for target in self.lora.targets if self.lora else ():
            if target not in known:
                raise ValueError(
                    f"lora.targets: a {self.family} has no layer {target!r}{nearest(target, known)}"
                    f" (all: {', '.join(known)})"
                )
        return self


class DiffusersSection(ModelSection):
    """A network of diffusers, pretrained or from scratch.

    network_class: where diffusers defines it, file and class.
    """

    network_class: ClassVar[tuple[str, str]]
    free: ClassVar[frozenset[str]] = ModelSection.free | {"gradient_checkpointing"}

    params: dict[str, Any] | None = Field(
        None, description="from scratch: arguments of diffusers' class; channels follow from the cache"
    )
    gradient_checkpointing: bool = Field(False, description="keep less in memory, compute more")

    def arguments(self) -> Mapping[str, Any]:
        """See `ModelSection`; of pretrained weights none are known yet."""
        return self.params or {}

    @model_validator(mode="after")
    def _has_source(self) -> "DiffusersSection":
        """Exactly one of `pretrained` and `params`, and no parameter that diffusers does not know."""
        if (self.pretrained is None) == (self.params is None):
            raise ValueError(
                "give either pretrained (a model of config/components.yaml) or params (from scratch)"
            )
        known = constructor_arguments(*self.network_class)
        for name in self.params or {}:
            if name not in known:
                where = self.network_class[1]
                raise ValueError(f"params: {where} has no argument {name!r}{nearest(name, list(known))}")
        return self


@dataclass(frozen=True)
class PipelineEncoder:
    """How a family's pipeline in diffusers reads one text encoder; it reads all with their padding.

    what: the encoder. hidden_layer, pooled, projected: as in `components.use`. max_tokens: that it reads at most.
    """

    what: str
    hidden_layer: int
    pooled: bool
    projected: bool = True
    max_tokens: int | None = None


@dataclass(frozen=True)
class PipelineComponents:
    """What an exported pipeline is made of, besides the trained network with adapters merged into it.

    extension: the other trained module, of families that have one.
    text_encoders: each has `model` and `tokenizer` of transformers; uses: how each is read.
    is_single: the run has `cache.text_encoder` instead of a list.
    scheduler: of diffusers, with what was trained.
    """

    network: Any
    extension: Any
    vae: Any
    text_encoders: Sequence[Any]
    uses: Sequence[TextEncoderUse]
    is_single: bool
    scheduler: Any


def diffusers_options(pipeline: Any, num: int, guidance_scale: float, negative_prompt: str) -> dict[str, Any]:
    """What the call of a pipeline of diffusers takes besides prompts, size, steps and seeds.

    negative_prompt: left out where it is empty, for the null that training saw (SDXL takes "" for a text).
    """
    negative = {"negative_prompt": [negative_prompt] * num} if negative_prompt else {}
    return {"guidance_scale": guidance_scale, **negative}


def as_drawn(latents: "Tensor", width: int, height: int) -> "Tensor":
    """The latents of a pipeline that keeps them as the VAE does."""
    return latents


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of networks.

    section: its `model` section, whose `family` is the name.
    title: what documents call its network. joined: how it combines its text encoders, as a sentence.
    part: the network's name, and folder, in a pipeline.
    extension: the same of another trained module, if it has one.
    pipelines: the classes that its exports load with; all that are not diffusers' are in `carried`.
    carried: modules that an exported folder carries along; they import torch, diffusers and transformers alone.
    encoders: how its pipeline reads its text encoders, in order; empty: any number of any.
    nulls: what its pipeline can guide away from: "empty", the empty text; "alike", that or zeros, the same of all
        encoders; "any", either of each.
    objective: what its pipeline draws, a rectified flow or a diffusion; None: both.
    attentions: the operators that it can train with.
    has_sizes: it is told each picture's size and crop.

    patch_size(arguments): latent pixels a token, per side; from the arguments of the network's class.
    needed(arguments, sizes): those of the network's arguments that follow from the cache; sizes: see
        `train.data.LatentCache.sizes`.
    check(section, uses): refuses text encoders that do not fit the section, with a ValueError that names the key.
    build(section, sizes, folder): the network with initial weights and its extension, or None.
        folder: of pretrained weights. torch's generator is seeded.
    forward(network, extension, noisy, timestep, conditioning): the prediction (B, C, H, W) for noisy latents
        (B, C, H, W) at timesteps (B,) in [0, 1].
    use_attention(network, operator): lets it run on flash, xformers or sliced, if it has that.
    pipeline(parts): the pipeline of parts in memory; a ValueError tells of a VAE that it cannot decode with.
    options(pipeline, num, guidance_scale, negative_prompt): arguments of its call, see `diffusers_options`.
    latents(latents, width, height): what its callbacks give, as (B, C, height, width), in latent pixels.
    """

    section: type[ModelSection]
    title: str
    joined: str
    part: Literal["transformer", "unet"]
    extension: str = ""
    pipelines: tuple[str, ...]
    carried: tuple[str, ...] = ()
    encoders: tuple[PipelineEncoder, ...] = ()
    nulls: Literal["any", "alike", "empty"] = "empty"
    objective: Literal["flow", "diffusion"] | None = None
    attentions: tuple[str, ...] = ("sdpa", "flash", "xformers")
    has_sizes: bool = False
    patch_size: Callable[[Mapping[str, Any]], int]
    needed: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
    check: Callable[[Any, Sequence[TextEncoderUse]], None] = lambda section, uses: None
    build: Callable[[Any, Mapping[str, Any], Path | None], tuple[Any, Any]]
    forward: Callable[[Any, Any, "Tensor", "Tensor", "Conditioning"], "Tensor"]
    use_attention: Callable[[Any, str], None]
    pipeline: Callable[[PipelineComponents], Any]
    options: Callable[[Any, int, float, str], dict[str, Any]] = diffusers_options
    latents: Callable[["Tensor", int, int], "Tensor"] = as_drawn

    @property
    def name(self) -> str:
        """What `model.family` says."""
        return str(self.section.model_fields["family"].default)


@cache
def constructor_arguments(file: str, class_name: str) -> tuple[str, ...]:
    """The arguments of a diffusers class, read from its source: importing diffusers takes seconds."""
    spec = find_spec("diffusers")
    assert spec is not None and spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name]
    init = next(n for n in classes[0].body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    return tuple(a.arg for a in init.args.args + init.args.kwonlyargs if a.arg != "self")


def latent_channels(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """in_channels and out_channels, of a network whose tokens are latent pixels or patches it makes itself."""
    return {"in_channels": sizes["latent_channels"], "out_channels": sizes["latent_channels"]}


def text_dims(sizes: Mapping[str, Any]) -> tuple[int, ...]:
    """Channels of each text encoder's hidden states."""
    dims = sizes["text_dim"]
    return (dims,) if isinstance(dims, int) else tuple(dims)


def is_end(end: str, name: str) -> bool:
    """Whether a layer's name is this, or ends in it after a dot."""
    return name == end or name.endswith(f".{end}")


def nearest(name: str, known: list[str]) -> str:
    """ "; did you mean ...?" with the most similar of the known names, if one is similar."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
