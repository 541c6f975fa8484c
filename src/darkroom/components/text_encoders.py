"""Loads text encoders: any that transformers knows, and CLIPs in OpenAI's format.

CLIP-L, OpenCLIP-G and MetaCLIP load as CLIP text towers, T5 without its decoder, Gemma, ModernBERT and the rest as
transformers' plain model of their kind.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.components.base import Component
from darkroom.components.files import (
    WEIGHTS,
    component_folder,
    fingerprint,
    is_openai,
    load_tokenizer,
    read_weights,
    require_file,
    tokenizer_folder,
)
from darkroom.components.text import TextEncoder, num_text_layers, transformers_text_state

OPENAI_HEAD_DIM = 64  # clip.model.build_model has one head per 64 channels
SHARDS = "model.safetensors.index.json"


def load_text_encoder(component: Component, dtype: torch.dtype = torch.float32) -> TextEncoder:
    """A text encoder for inference: a transformers folder, or an OpenAI-format CLIP, which is converted.

    The tokenizer lies in the same folder or, as diffusers has it, in `tokenizer` (or `tokenizer_2`, ...) beside.
    """
    folder = component_folder(component, "text_encoder")
    tokenizer_folder(folder)
    if not (folder / SHARDS).is_file():
        require_file(folder, WEIGHTS, f"{WEIGHTS}, in transformers' or in OpenAI's format")
    if (folder / WEIGHTS).is_file() and is_openai(folder):
        tokenizer = load_tokenizer(folder)
        model = _text_encoder_from_openai(read_weights(folder), tokenizer)
    else:
        model, tokenizer = _from_transformers(folder)
    model = model.to(dtype=dtype).eval().requires_grad_(False)
    return TextEncoder(model, tokenizer, fingerprint(component))


def load_text_tokenizer(component: Component) -> Any:
    """The tokenizer of a text encoder alone."""
    folder = component_folder(component, "text_encoder")
    has_weights = (folder / WEIGHTS).is_file()
    return load_tokenizer(folder) if has_weights and is_openai(folder) else _tokenizer(folder)


def _model_type(folder: Path) -> str:
    require_file(folder, "config.json", "a text encoder's config.json")
    return str(json.loads((folder / "config.json").read_text()).get("model_type", ""))


def _tokenizer(folder: Path) -> Any:
    import transformers

    if _model_type(folder).startswith("clip"):
        return load_tokenizer(folder)
    return transformers.AutoTokenizer.from_pretrained(str(tokenizer_folder(folder)), trust_remote_code=False)


def _from_transformers(folder: Path) -> tuple[Any, Any]:
    import transformers

    kind, tokenizer = _model_type(folder), _tokenizer(folder)
    if kind.startswith("clip"):
        config = json.loads((folder / "config.json").read_text())
        is_plain = config.get("architectures") == ["CLIPTextModel"]
        cls: Any = transformers.CLIPTextModel if is_plain else transformers.CLIPTextModelWithProjection
    else:
        encoders = {"t5": transformers.T5EncoderModel, "umt5": transformers.UMT5EncoderModel}
        cls = encoders.get(kind, transformers.AutoModel)
    model, loading = cls.from_pretrained(
        str(folder), use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    if loading["missing_keys"]:
        # transformers would go on with random numbers in their place.
        raise ValueError(
            f"{folder}: lacks {', '.join(sorted(loading['missing_keys']))}, which a {cls.__name__} needs"
            " (a CLIP text tower without a projection says so by `architectures` in its config.json)"
        )
    return model, tokenizer


def _text_encoder_from_openai(openai_state: dict[str, Tensor], tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    vocabulary, width = openai_state["token_embedding.weight"].shape
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=openai_state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        projection_dim=openai_state["text_projection"].shape[1],
        num_hidden_layers=num_text_layers(openai_state),
        num_attention_heads=width // OPENAI_HEAD_DIM,
        max_position_embeddings=openai_state["positional_embedding"].shape[0],
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = CLIPTextModelWithProjection(config)
    model.load_state_dict(transformers_text_state(openai_state))
    return model
