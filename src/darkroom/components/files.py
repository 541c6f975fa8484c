"""The files of pretrained components that `config/components.yaml` names, real ones and the demo's alike.

A component is a folder on this machine, or a Hugging Face repository. Weights are read from safetensors alone:
nothing is unpickled.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from darkroom.components.base import Component
from darkroom.components.check import onnx_names, tokenizer_folder
from darkroom.settings.paths import local_path
from darkroom.store import sha256_folder, sha256_json

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

WEIGHTS = "model.safetensors"


def component_folder(component: Component, kind: str | None = None) -> Path:
    """The folder that holds a component's files; a repository is downloaded (or found in its cache).

    Raises:
        ValueError: when the component is of another kind than `kind`, or its files cannot be found.
    """
    if kind is not None and component.kind != kind:
        raise ValueError(f"component {component.path} is of kind {component.kind}, where a {kind} is needed")
    folder = local_path(component.path)
    if not folder.is_dir():
        folder = _download(component)
    if component.subfolder:
        folder = folder / component.subfolder
    if not folder.is_dir():
        raise ValueError(f"component {component.path} has no subfolder {component.subfolder}")
    return folder


def _download(component: Component) -> Path:
    """The folder of a repository, without the parts of it that are not asked for."""
    path = component.path
    looks_like_repository = path.count("/") == 1 and not path.startswith((".", "/"))
    if not looks_like_repository:
        raise ValueError(f"component path {path} is no folder here, and no repository's name (owner/name)")
    from huggingface_hub import snapshot_download

    # A tokenizer lies beside its encoder in diffusers repositories.
    folders = [f"{component.subfolder}/*", "tokenizer*/*"] if component.subfolder else ["*"]
    endings = (".safetensors", ".json", ".txt")
    patterns = [f"{folder}{ending}" for folder in folders for ending in endings]
    names = onnx_names(component)
    if names:
        patterns = [f"{component.subfolder}/{name}" if component.subfolder else name for name in names]
    try:
        return Path(snapshot_download(path, revision=component.revision, allow_patterns=patterns))
    except Exception as error:
        raise ValueError(
            f"component path {path} is no folder here, nor a repository within reach: {error}"
        ) from error


def fingerprint(component: Component) -> str:
    """SHA-256 of a component's files (and of the tokenizer beside them): what a cache's identity holds."""
    folder = component_folder(component)
    tokenizer = tokenizer_folder(folder) if component.kind in ("text_encoder", "clip") else folder
    digest = sha256_folder(folder)
    return digest if tokenizer == folder else sha256_json([digest, sha256_folder(tokenizer)])


def load_tokenizer(folder: Path) -> "CLIPTokenizer":
    """The byte-pair tokenizer in, or beside, a component's folder."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(tokenizer_folder(folder)))


def require_file(folder: Path, name: str, what: str) -> None:
    """Refuse a component's folder that lacks a file."""
    if not (folder / name).is_file():
        raise ValueError(f"{folder} has no {name}: {what} belongs there")


def is_openai(folder: Path) -> bool:
    """Whether a folder's weights are a CLIP's under OpenAI's names."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return "token_embedding.weight" in file.keys()  # noqa: SIM118 (safe_open is no mapping)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """A folder's weights by name, in float32."""
    from safetensors.torch import load_file

    return {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name: of safetensors, or of PyTorch's format, of which nothing but tensors is read.

    Raises:
        ValueError: it holds anything else.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is no pickle, or asks for more than tensors, leads to
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: is no file of tensors alone: {reason}") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        raise ValueError(f"{path}: holds no tensors by name")
    return state


def load_transformers(cls: Any, folder: Path, what: str) -> Any:
    """A model that one of transformers' classes reads from a folder's safetensors, in float32. No code of it runs.

    Raises:
        ValueError: it cannot be read as `what`, or lacks weights.
    """
    safely = {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
    try:
        model, loading = cls.from_pretrained(str(folder), dtype=torch.float32, **safely)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: no {what} that transformers reads: {error}") from None
    if loading["missing_keys"]:
        raise ValueError(f"{folder}: the weights lack {', '.join(sorted(loading['missing_keys'])[:3])}")
    return model


def moved(module: Any, device: torch.device) -> Any:
    """`module.to(device)`, whose type diffusers' and transformers' decorators hide from type checkers."""
    return module.to(device)
