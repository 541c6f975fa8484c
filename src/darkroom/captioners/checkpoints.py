"""What captioners on checkpoints of transformers share: where one lies, what it is, how its tokens are read."""

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from darkroom.captioners.base import Generated
from darkroom.captioners.batches import PictureError
from darkroom.components.base import Component
from darkroom.settings.paths import local_path
from darkroom.store import sha256_folder


class NotFiniteError(PictureError):
    """The model's scores for one picture of a batch are not finite; `place` is where it is."""

    def __init__(self, place: int) -> None:
        super().__init__(place, f"the captioner's scores for picture {place} of the batch are not finite")


def library_version() -> str:
    """What generated the captions, for their provenance."""
    return f"transformers {transformers.__version__}, torch {torch.__version__}"


def load(component: Component, kind: str, loader: Any, beside: Any, what: str, dtype: str) -> tuple[Any, Any]:
    """(model in eval mode on the CPU, what prepares its inputs) of a checkpoint of transformers.

    Args:
        component: a folder on this machine or a Hugging Face repository, with a revision.
        kind: what the component has to be.
        loader, beside: the Auto classes of both. what: what messages call the second.
        dtype: of weights and activations: float32, bfloat16 or float16.

    Raises:
        ValueError: the component is of another kind, or no such checkpoint.
    """
    name = kind.replace("_", " ")
    if component.kind != kind:
        raise ValueError(f"component {component.path}: kind is {component.kind!r}, not {kind!r}")
    source, where = source_of(component)
    transformers.utils.logging.disable_progress_bar()
    safe = {"trust_remote_code": False, **where}
    try:
        prepares = beside.from_pretrained(source, **safe)
        model, loading = loader.from_pretrained(
            source, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **safe
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{name} {component.path}: not a transformers checkpoint with a {what} ({error})"
        ) from error
    if loading["missing_keys"]:  # transformers would go on with random numbers in their place
        lacks = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ValueError(f"{name} {component.path}: the weights lack {lacks}")
    return model.eval(), prepares


def source_of(component: Component) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes: a folder of this machine or a repository, and options that say which."""
    folder = local_path(component.path)
    if folder.is_dir():
        return str(folder), {"subfolder": component.subfolder or "", "local_files_only": True}
    return component.path, {"revision": component.revision, "subfolder": component.subfolder or ""}


def identity(component: Component, model: Any) -> dict[str, str | None]:
    """What the weights are: a hash of a local folder, or the commit of a repository.

    Raises:
        ValueError: it is a repository, and nobody says at which commit.
    """
    path = local_path(component.path)
    if path.is_dir():
        return {"model_sha256": sha256_folder(path / (component.subfolder or "")), "model_revision": None}
    commit = component.revision or getattr(model.config, "_commit_hash", None)
    if commit is None:
        raise ValueError(f"{component.kind} {component.path}: give its revision, a commit of the repository")
    return {"model_sha256": None, "model_revision": commit}


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a text, the generation config's first.

    Raises:
        ValueError: there is none.
    """
    ends: list[int] = []
    for source in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        ends += source if isinstance(source, list) else [] if source is None else [source]
    if not ends:
        raise ValueError("captioner: neither its generation config nor its tokenizer names an end token")
    return list(dict.fromkeys(ends))


def generated(tokenizer: Any, ids: Sequence[int], ends: Sequence[int]) -> Generated:
    """The text of generated tokens, up to the first that ends it."""
    stop = next((i for i, token in enumerate(ids) if token in ends), None)
    kept = ids[:stop]
    text = tokenizer.decode(kept, skip_special_tokens=True).strip()
    return Generated(text, len(kept), "length" if stop is None else "stop")
