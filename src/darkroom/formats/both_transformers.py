"""Text encoders and tokenizers in files that transformers 4 reads too, which older diffusers needs.

What version 5 writes by itself version 4 refuses, or reads as something else without an error: a CLIPTextModel
whose tensors' names lack their prefix becomes random weights, and a rotary base under a new key the default one.
Version 5 reads the older form as well as its own.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

# Read from these two files in version 4; of other tokenizers it has a class ending in Fast for tokenizer.json.
_BYTE_PAIRS = ("CLIPTokenizer",)
_VOCABULARY, _MERGES = "vocab.json", "merges.txt"
# Where ModernBERT's configuration had the bases of its two kinds of layers.
_BASES = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}


def class_name(part: Any) -> str:
    """The name of a part's class in both versions, where it is a tokenizer's; else its own."""
    name = type(part).__name__
    if not isinstance(part, transformers.PreTrainedTokenizerFast) or name in _BYTE_PAIRS:
        return name
    if type(part) is transformers.PreTrainedTokenizerFast:
        return "PreTrainedTokenizerFast"
    return f"{name}Fast" if hasattr(transformers, f"{name}Fast") else name


def save_for_both(part: Any, folder: Path) -> None:
    """Write a part of a pipeline into a folder: what is transformers' so that both versions load it alike."""
    if isinstance(part, transformers.CLIPTextModel):
        state = part.state_dict()
        prefixed = {f"text_model.{name.removeprefix('text_model.')}": state[name] for name in state}
        part.save_pretrained(folder, state_dict=prefixed)
    else:
        part.save_pretrained(folder)
    if isinstance(part, transformers.PreTrainedModel):
        _update(folder / "config.json", _rotary_bases(part.config.to_dict().get("rope_parameters") or {}))
    if isinstance(part, transformers.PreTrainedTokenizerFast):
        _write_tokenizer_config(part, folder / "tokenizer_config.json")
        if type(part).__name__ in _BYTE_PAIRS:
            _write_byte_pairs(part, folder)


def _write_tokenizer_config(tokenizer: Any, path: Path) -> None:
    """Its class by the name in both; further special tokens, a list, under the key that has a list in both."""
    config = json.loads(path.read_text(encoding="utf-8"))
    further = config.pop("extra_special_tokens", None)
    key = "additional_special_tokens" if isinstance(further, list) else "extra_special_tokens"
    config |= {"tokenizer_class": class_name(tokenizer), **({key: further} if further else {})}
    path.write_text(json.dumps(config), encoding="utf-8")


def _write_byte_pairs(tokenizer: Any, folder: Path) -> None:
    """Vocabulary and merges, in the order of their use, as two files."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / _VOCABULARY).write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / _MERGES).write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def _rotary_bases(parameters: Mapping[str, Any]) -> dict[str, float]:
    """The keys of version 4 for the bases of rotary positions, of one kind of layers or of each."""
    if "rope_theta" in parameters:
        return {"rope_theta": parameters["rope_theta"]}
    kinds = {
        kind: value for kind, value in parameters.items() if isinstance(value, Mapping) and kind in _BASES
    }
    return {_BASES[kind]: value["rope_theta"] for kind, value in kinds.items() if "rope_theta" in value}


def _update(path: Path, values: Mapping[str, Any]) -> None:
    if values:
        found = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**found, **values}), encoding="utf-8")
