"""CLIPs as open_clip saves them: its names of tensors and open_clip_config.json, read into transformers' CLIP.

https://github.com/mlfoundations/open_clip: the class `CLIP`, a vision transformer and a causal text transformer
that is read at its last token. Other architectures of open_clip are refused.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.components.base import CROP, PAD
from darkroom.components.check import OPEN_CLIP_CONFIG, clip_weights
from darkroom.components.files import WEIGHTS, is_openai, read_tensors, require_file
from darkroom.imports import quick_imports

# What each section may say, and a value that it must have; None: any. What is left out is as open_clip has it.
_MODEL = {"embed_dim": None, "quick_gelu": None, "vision_cfg": None, "text_cfg": None, "custom_text": False}
_VISION = {
    "image_size": None, "layers": None, "width": None, "head_width": None, "patch_size": None, "mlp_ratio": None,
    "patch_dropout": None, "pool_type": "tok", "global_average_pool": False, "attentional_pool": False,
    "input_patchnorm": False, "no_ln_pre": False, "final_ln_after_pool": False, "pos_embed_type": "learnable",
    "ls_init_value": None, "output_tokens": False, "timm_model_name": None,
}  # fmt: skip
_TEXT = {
    "context_length": None, "vocab_size": None, "width": None, "heads": None, "layers": None, "mlp_ratio": None,
    "embed_cls": False, "no_causal_mask": False, "final_ln_after_pool": False, "pool_type": "argmax",
    "proj_bias": False, "ls_init_value": None, "output_tokens": False, "hf_model_name": None,
}  # fmt: skip
# Those of these that are to be left out, or null.
_NULL = ("ls_init_value", "timm_model_name", "hf_model_name")
_NEEDED = {
    "model_cfg": ("embed_dim", "vision_cfg", "text_cfg"),
    "vision_cfg": ("image_size", "layers", "width", "patch_size"),
    "text_cfg": ("context_length", "vocab_size", "width", "heads", "layers"),
}
# Of older checkpoints, what follows from the architecture.
_SPARE = frozenset({"attn_mask", "visual.attn_mask"})
# OpenAI's, which open_clip takes where preprocess_cfg says nothing.
_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
RESIZED = {
    CROP: "shorter side bicubic to {} px, centre crop",
    PAD: "longer side bicubic to {} px, rest black",
}
"""What protocols call them."""


@dataclass(frozen=True)
class Saved:
    """A CLIP that open_clip saved.

    Attributes:
        weights: the file.
        model: transformers' CLIPModel, in eval mode.
        mean, std: of each colour.
        resize_mode: CROP or PAD.
    """

    weights: Path
    model: Any
    mean: list[float]
    std: list[float]
    resize_mode: str


@dataclass(frozen=True)
class _Place:
    """Where a tensor of open_clip's goes: names of transformers', one or, of attention's three in one, several."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    turned: bool = False


def open_clip_weights(folder: Path) -> Path | None:
    """The file of weights that open_clip saved; None where the folder is another kind of CLIP's.

    Raises:
        ValueError: which weights are meant cannot be told.
    """
    path = clip_weights(folder)
    if path is None or path.name != WEIGHTS:
        return path
    return path if (folder / OPEN_CLIP_CONFIG).is_file() and is_openai(folder) else None


def load_open_clip(folder: Path, weights: Path) -> Saved:
    """The CLIP of a folder with open_clip_config.json.

    Raises:
        ValueError: it is of another architecture, or a tensor is missing, has another shape, or is one too many:
            names it.
    """
    require_file(folder, OPEN_CLIP_CONFIG, f"with open_clip's weights its {OPEN_CLIP_CONFIG}")
    path = folder / OPEN_CLIP_CONFIG
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON: {error}") from None
    config = _section(path, told, "model_cfg", _MODEL)
    vision = _section(path, config, "vision_cfg", _VISION)
    text = _section(path, config, "text_cfg", _TEXT)
    with quick_imports():
        from transformers import CLIPConfig, CLIPModel

    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    model: Any = CLIPModel(
        CLIPConfig(**_transformers_config(int(config["embed_dim"]), vision, text, activation))
    )
    model.load_state_dict(_renamed(weights, read_tensors(weights), _places(model)))
    preprocess = told.get("preprocess_cfg") or {}
    mode = preprocess.get("resize_mode", CROP)
    if mode not in (CROP, PAD) or preprocess.get("interpolation", "bicubic") != "bicubic":
        raise ValueError(
            f"{path}: preprocess_cfg: bicubic, {CROP} or {PAD} can be done, and it says {preprocess}"
        )
    mean, std = (list(preprocess.get(key) or usual) for key, usual in (("mean", _MEAN), ("std", _STD)))
    return Saved(weights, model.eval().requires_grad_(False), mean, std, mode)


def _section(path: Path, told: Any, name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """A section of the configuration, which says nothing that transformers' CLIP cannot be."""
    section = told.get(name) if isinstance(told, dict) else None
    if not isinstance(section, dict):
        raise ValueError(f"{path}: has no section {name}")
    for key, value in section.items():
        wanted = known.get(key)
        is_null = key in _NULL and value is not None
        if key not in known or is_null or (wanted is not None and value != wanted):
            raise ValueError(
                f"{path}: {name}.{key} is {value!r}, which is another architecture than the vision and text"
                " transformers that are read here"
            )
    for key in _NEEDED[name]:
        if key not in section:
            raise ValueError(f"{path}: {name} lacks {key}")
    if not isinstance(section.get("layers", 1), int):
        raise ValueError(
            f"{path}: {name}.layers is {section['layers']}, a ResNet's; a transformer's is a number"
        )
    return section


def _transformers_config(
    embed_dim: int, vision: Mapping[str, Any], text: Mapping[str, Any], activation: str
) -> dict[str, Any]:
    """What open_clip's configuration is in transformers' words."""

    def common(of: Mapping[str, Any], heads: int) -> dict[str, Any]:
        return {
            "hidden_size": of["width"],
            "intermediate_size": int(of["width"] * of.get("mlp_ratio", 4.0)),
            "num_hidden_layers": of["layers"],
            "num_attention_heads": heads,
            "hidden_act": activation,
            "layer_norm_eps": 1e-5,
            "projection_dim": embed_dim,
        }

    size, heads = vision["image_size"], vision["width"] // vision.get("head_width", 64)
    return {
        "projection_dim": embed_dim,
        "vision_config": {
            **common(vision, heads),
            "image_size": size[0] if isinstance(size, list) else size,
            "patch_size": vision["patch_size"],
        },
        "text_config": {
            **common(text, text["heads"]),
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            # open_clip reads a text at its highest token.
            "eos_token_id": text["vocab_size"] - 1,
        },
    }


def _places(model: Any) -> dict[str, _Place]:
    """open_clip's name of each tensor -> where it goes in transformers' CLIPModel."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    renamed = {
        "logit_scale": "logit_scale",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    }
    for theirs, ours in (
        ("ln_final", "text_model.final_layer_norm"),
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
    ):
        renamed |= {f"{theirs}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}
    places = {theirs: _Place((ours,), shapes[ours]) for theirs, ours in renamed.items()}
    for theirs, ours in (
        ("text_projection", "text_projection.weight"),
        ("visual.proj", "visual_projection.weight"),
    ):
        places[theirs] = _Place((ours,), shapes[ours][::-1], turned=True)
    for theirs, ours, number in (
        ("transformer", "text_model", model.config.text_config.num_hidden_layers),
        ("visual.transformer", "vision_model", model.config.vision_config.num_hidden_layers),
    ):
        for layer in range(number):
            blocks = f"{theirs}.resblocks.{layer}", f"{ours}.encoder.layers.{layer}"
            places |= _block(*blocks, lambda name: shapes[name])
    return places


def _block(theirs: str, ours: str, shape_of: Callable[[str], tuple[int, ...]]) -> dict[str, _Place]:
    """The places of one transformer block's tensors."""
    places = {}
    for part in ("weight", "bias"):
        for name, other in (
            ("ln_1", "layer_norm1"),
            ("ln_2", "layer_norm2"),
            ("attn.out_proj", "self_attn.out_proj"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
        ):
            target = f"{ours}.{other}.{part}"
            places[f"{theirs}.{name}.{part}"] = _Place((target,), shape_of(target))
        three = tuple(f"{ours}.self_attn.{which}_proj.{part}" for which in "qkv")
        rows, *columns = shape_of(three[0])
        places[f"{theirs}.attn.in_proj_{part}"] = _Place(three, (3 * rows, *columns))
    return places


def _renamed(path: Path, state: Mapping[str, Tensor], places: Mapping[str, _Place]) -> dict[str, Tensor]:
    """The tensors under transformers' names. Raises ValueError, which names the one that does not fit."""
    for name in sorted(set(state) - set(places) - _SPARE):
        raise ValueError(f"{path}: holds {name}, which a CLIP of this {OPEN_CLIP_CONFIG} has not")
    found: dict[str, Tensor] = {}
    for name, place in places.items():
        if name not in state:
            raise ValueError(f"{path}: lacks {name}, which a CLIP of this {OPEN_CLIP_CONFIG} has")
        tensor = state[name].float()
        if tuple(tensor.shape) != place.shape:
            raise ValueError(
                f"{path}: {name} is {tuple(tensor.shape)}, and by {OPEN_CLIP_CONFIG} it should be {place.shape}"
            )
        parts = tensor.chunk(len(place.names)) if len(place.names) > 1 else (tensor,)
        found |= {
            ours: part.T if place.turned else part for ours, part in zip(place.names, parts, strict=True)
        }
    return {name: torch.clone(tensor) for name, tensor in found.items()}
