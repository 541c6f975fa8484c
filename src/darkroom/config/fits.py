"""Whether the pretrained components of a run fit each other, by their own files, checked before any job starts.

What is not on this machine, or says less than is asked, is left to the job that loads it.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.components.base import Component
from darkroom.components.use import TextEncoderUse
from darkroom.config.component_files import component_files, network_folder, read_json_file
from darkroom.config.run import Cache, Run
from darkroom.families.base import DiffusersSection
from darkroom.families.table import FAMILIES

_WEIGHTS = "model.safetensors"
_MAX_HEADER_BYTES = 100_000_000


def check_fits(run: Run, components: Mapping[str, Component], root: Path) -> None:
    """Refuse more tokens than a text encoder reads, and pretrained weights of other sizes than their inputs.

    Args:
        root: the project's, which relative paths start from.
    Raises:
        ValueError: names the key, and what the files say.
    """
    found = [_TextSizes.of(component_files(components[use.name], root)) for use in run.cache.encoders]
    for key, use, known in zip(max_tokens_of(run.cache), run.cache.encoders, found, strict=True):
        positions = known.get("positions")
        if positions is not None and use.max_tokens > positions:
            raise ValueError(
                f"{key}: {use.name} has places for {positions} tokens, not {use.max_tokens}; write {positions} or"
                " less"
            )
    if run.model.pretrained is None:
        return
    folder = component_files(components[run.model.pretrained], root)
    network = read_json_file(network_folder(folder, FAMILIES[run.model.family].part) / "config.json")
    vae = read_json_file(component_files(components[run.cache.vae], root) / "config.json")
    sizes = _cache_sizes(vae or {}, found, run.cache.encoders)
    if network is None:
        return
    _check_class(run, network)
    if sizes is None:
        return
    differ = [
        f"its {name} is {network[name]}, but {_plain(value)} is needed"
        for name, value in FAMILIES[run.model.family].needed(network, sizes).items()
        if name in network and network[name] != _plain(value)
    ]
    if differ:
        raise ValueError(
            f"model.pretrained: {run.model.pretrained} does not fit cache.vae and the text encoders:"
            f" {'; '.join(differ)}"
        )


def _check_class(run: Run, network: Mapping[str, Any]) -> None:
    """Refuse weights of another class of diffusers than the family's, which would load as random numbers."""
    found = network.get("_class_name")
    if isinstance(run.model, DiffusersSection) and found is not None and found != run.model.network_class[1]:
        raise ValueError(
            f"model.pretrained: {run.model.pretrained} is a {found}, and a {run.model.family} is a"
            f" {run.model.network_class[1]}"
        )


def max_tokens_of(cache: Cache) -> dict[str, int]:
    """Key -> how many tokens a text encoder reads, of each in order."""
    if cache.text_encoder is not None:
        return {"cache.max_text_tokens": cache.max_text_tokens}
    return {
        f"cache.text_encoders.{place}.max_tokens": use.max_tokens
        for place, use in enumerate(cache.text_encoders)
    }


class _TextSizes(dict[str, int]):
    """positions, dim and projection of a text encoder, as far as its files say them; projection 0 is none."""

    @classmethod
    def of(cls, folder: Path) -> "_TextSizes":
        shapes = _openai_shapes(folder / _WEIGHTS)
        if shapes:
            known = {
                "positions": shapes["positional_embedding"][0],
                "dim": shapes["positional_embedding"][1],
                "projection": shapes.get("text_projection", [0, 0])[1],
            }
            return cls(known)
        config = read_json_file(folder / "config.json") or {}
        inner = config.get("text_config")
        inner = inner if isinstance(inner, dict) else config
        is_clip = str(config.get("model_type", "")).startswith("clip")
        has_projection = is_clip and config.get("architectures") != ["CLIPTextModel"]
        said = {
            "positions": inner.get("max_position_embeddings"),
            "dim": inner.get("hidden_size", inner.get("d_model")),
            "projection": inner.get("projection_dim") if has_projection else 0,
        }
        return cls({name: value for name, value in said.items() if isinstance(value, int)})


def _openai_shapes(path: Path) -> dict[str, list[int]]:
    """The shapes of a CLIP's tensors under OpenAI's names, from the file's header; nothing of other files."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length < _MAX_HEADER_BYTES else {}
            shapes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError):
        return {}  # told by who needs it
    return shapes if "positional_embedding" in shapes else {}


def _cache_sizes(
    vae: Mapping[str, Any], encoders: Sequence[Mapping[str, int]], uses: Sequence[TextEncoderUse]
) -> dict[str, Any] | None:
    """What `train.data.LatentCache.sizes` will be; None where the files do not say it."""
    if "latent_channels" not in vae or any({"dim", "projection"} - set(found) for found in encoders):
        return None
    dims = tuple(found["dim"] for found in encoders)
    pooled = [
        (found["projection"] or found["dim"]) if use.projected else found["dim"]
        for found, use in zip(encoders, uses, strict=True)
        if use.pooled
    ]
    return {
        "latent_channels": vae["latent_channels"],
        "text_dim": dims[0] if len(dims) == 1 else dims,
        "pooled_dim": sum(pooled),
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value
