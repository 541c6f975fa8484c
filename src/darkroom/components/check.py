"""Whether a component is there and is what its kind needs, told before any job by its files' names and headers.

No weights are loaded, and neither torch nor transformers is imported.
"""

import json
import re
import struct
from pathlib import Path

from darkroom.components.base import Component
from darkroom.components.onnx import check_onnx
from darkroom.settings.extras import ONNX
from darkroom.settings.paths import local_path

# torch-fidelity's name and pytorch-fid's: they are the same file.
INCEPTION_WEIGHTS = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
# VGG16 as torchvision has it, and what LPIPS puts on it, as the package `lpips` has it.
VGG16_WEIGHTS = ("vgg16-397923af.pth", "vgg16.safetensors")
LPIPS_HEADS = ("vgg.pth", "vgg_heads.safetensors")
# Of CLIPs that open_clip saved, and of reward models on one.
OPEN_CLIP_CONFIG = "open_clip_config.json"
REWARD_WEIGHTS = ("HPS_v2.1_compressed.pt", "HPS_v2_compressed.pt")
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", *REWARD_WEIGHTS)
# The published file, or its tensors.
IMAGE_REWARD_WEIGHTS = ("ImageReward.pt", "model.safetensors")
MED_CONFIG = "med_config.json"
# Of a network of diffusers, or in shards that an index beside it names.
NETWORK_WEIGHTS = "diffusion_pytorch_model.safetensors"
# Kind -> what a folder of it holds; of names that stand together one is enough.
NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "vae": (("config.json",), (NETWORK_WEIGHTS,)),
    "text_encoder": (("model.safetensors", "model.safetensors.index.json"),),
    "clip": (
        ("model.safetensors", *OPEN_CLIP_WEIGHTS),
        ("preprocessor_config.json", "processor_config.json", OPEN_CLIP_CONFIG),
    ),
    "captioner": (("config.json",), ("model.safetensors", "model.safetensors.index.json")),
    "language_model": (
        ("config.json",),
        ("model.safetensors", "model.safetensors.index.json"),
        ("tokenizer.json", "tokenizer.model", "vocab.json"),
    ),
    "aesthetic_head": (("model.safetensors",),),
    "image_classifier": (
        ("config.json",),
        ("model.safetensors", "model.safetensors.index.json"),
        ("preprocessor_config.json", "processor_config.json"),
    ),
    "object_detector": (
        ("config.json",),
        ("model.safetensors", "model.safetensors.index.json"),
        ("preprocessor_config.json", "processor_config.json"),
    ),
    "inception": ((*INCEPTION_WEIGHTS, "model.safetensors"),),
    "dinov2": (("config.json",), ("model.safetensors", "model.safetensors.index.json")),
    "image_reward": (IMAGE_REWARD_WEIGHTS, (MED_CONFIG,), ("vocab.txt",)),
    "lpips": (VGG16_WEIGHTS, LPIPS_HEADS),
    "face_detector": (("centerface.onnx",),),
    "model": (("config.json", "model_index.json", "unet/config.json", "transformer/config.json"),),
}
# Kind -> where the one comes from that numbers are published of.
_ORIGINS = {
    "inception": f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_WEIGHTS[0]}",
    "dinov2": "https://huggingface.co/facebook/dinov2-large",
    "image_reward": "https://huggingface.co/zai-org/ImageReward",
    "lpips": f"https://download.pytorch.org/models/{VGG16_WEIGHTS[0]} and from the package lpips"
    " (lpips/weights/v0.1/vgg.pth)",
}
_TOKENIZERS = (("vocab.json", "merges.txt"), ("tokenizer.json",))
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_TIMEOUT_S = 5.0
# A header names every tensor; the longest in use are a few MB.
_MAX_HEADER_BYTES = 100_000_000


def check_component(component: Component) -> None:
    """Refuse a component that is not there, or lacks what its kind needs.

    Raises:
        ValueError: says what is missing, and what would be right; also of a package to install.
    """
    try:
        _check(component)
    except ValueError as error:
        raise ValueError(f"{error}{origin(component.kind)}") from None


def origin(kind: str) -> str:
    """The end of a sentence on a component that is missing: where it comes from; nothing of most kinds."""
    return f"; it is to be had from {_ORIGINS[kind]}" if kind in _ORIGINS else ""


def _check(component: Component) -> None:
    folder = local_path(component.path)
    onnx_files = onnx_names(component)
    if onnx_files:
        ONNX.require(f"an ONNX file such as {onnx_files[0]}")
    if not folder.is_dir():
        cached = _check_repository(component)
        if cached is None:
            return
        folder = cached
    if component.subfolder:
        folder = folder / component.subfolder
        if not folder.is_dir():
            raise ValueError(f"{component.path} has no subfolder {component.subfolder}")
    for names in needs(component):
        if not any((folder / name).is_file() for name in names):
            told = "".join(_not_read(folder, name) for name in names)
            raise ValueError(f"{folder} has no {' or '.join(names)}, which a {component.kind} has{told}")
    if component.kind == "model":
        _check_network(folder)
    if component.kind == "clip":
        clip_weights(folder)
    if component.kind in ("text_encoder", "clip"):
        tokenizer_folder(folder)
    if component.kind == "language_model" and not _has_chat_template(folder):
        raise ValueError(
            f"{folder} has no chat template (chat_template.jinja, or in tokenizer_config.json); take a model that"
            " was taught to follow instructions"
        )
    for path in sorted(folder.glob("*.safetensors")):
        check_safetensors(path)
    for name in onnx_files:
        check_onnx(folder / name)


def _check_network(folder: Path) -> None:
    """Refuse a network, alone or in a pipeline's folder, whose weights would not be read."""
    inside = [folder / part for part in ("unet", "transformer") if (folder / part / "config.json").is_file()]
    for place in inside or [folder]:
        if not (place / "config.json").is_file():
            raise ValueError(f"{place} has no unet or transformer, nor a config.json of its own")
        index = place / f"{NETWORK_WEIGHTS}.index.json"
        names = _shards(index) if index.is_file() else [NETWORK_WEIGHTS]
        for name in names:
            if not (place / name).is_file():
                raise ValueError(
                    f"{place} has no {name}, which a model has{_not_read(place, NETWORK_WEIGHTS)}"
                )
            check_safetensors(place / name)


def _shards(index: Path) -> list[str]:
    """The files that an index names."""
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index}: is no index of weights; fetch it again") from None


def _not_read(folder: Path, name: str) -> str:
    """The end of a sentence on weights that are missing: others that lie there and are not taken for them."""
    plain = Path(name)
    if plain.suffix != ".safetensors":
        return ""
    variants = sorted(path.name for path in folder.glob(f"{plain.stem}.*{plain.suffix}"))
    if variants:
        return (
            f"; {', '.join(variants)}: a variant is not taken for them by itself. Fetch {name}, or give one that"
            " name (`ln -s`)"
        )
    pickles = sorted(path.name for path in folder.glob(f"{plain.stem}*.bin"))
    return f"; {', '.join(pickles)}: a pickle is not read" if pickles else ""


def clip_weights(folder: Path) -> Path | None:
    """The file with a CLIP's weights; None: there is none.

    Raises:
        ValueError: there are a reward model's and others, or open_clip's without their configuration.
    """
    names = ("model.safetensors", *OPEN_CLIP_WEIGHTS)
    found = [name for name in names if (folder / name).is_file()]
    if len(found) > 1 and (rewards := [name for name in found if name in REWARD_WEIGHTS]):
        others = ", ".join(name for name in found if name != rewards[0])
        raise ValueError(f"{folder} holds {rewards[0]} and {others}; leave one file of weights there")
    if found and found[0] in OPEN_CLIP_WEIGHTS and not (folder / OPEN_CLIP_CONFIG).is_file():
        raise ValueError(f"{folder} has no {OPEN_CLIP_CONFIG}, which belongs to its {found[0]}")
    return folder / found[0] if found else None


def needs(component: Component) -> tuple[tuple[str, ...], ...]:
    """What its folder holds; of names that stand together one is enough."""
    onnx = component.onnx or component.onnx_detector
    return NEEDS[component.kind] if onnx is None else ((onnx.file,),)


def onnx_names(component: Component) -> list[str]:
    """The ONNX files in its folder."""
    return [name for names in needs(component) for name in names if name.endswith(".onnx")]


def tokenizer_folder(folder: Path) -> Path:
    """Where a text encoder's tokenizer lies: with it, or beside it, `tokenizer_2` beside `text_encoder_2`.

    Raises:
        ValueError: there is none.
    """
    ending = folder.name.removeprefix("text_encoder") if folder.name.startswith("text_encoder") else ""
    beside = folder.parent / f"tokenizer{ending}"
    for candidate in (folder, beside):
        if any(all((candidate / name).is_file() for name in names) for names in _TOKENIZERS):
            return candidate
    raise ValueError(
        f"{folder} has no tokenizer (vocab.json and merges.txt, or tokenizer.json), nor has {beside}"
    )


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and bool(told.get("chat_template"))


def check_safetensors(path: Path) -> None:
    """Refuse a file of weights that is cut short, or a pointer to one (Git LFS), by its header and size.

    Raises:
        ValueError: names it.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no regular file")
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(8)
        length = struct.unpack("<Q", begin)[0] if len(begin) == 8 else size
        if begin == b"version ":
            raise ValueError(f"{path} is a pointer of Git LFS, not the file: `git lfs pull` fetches it")
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError(f"{path} is no whole safetensors file; fetch it again")
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            raise ValueError(f"{path} is no safetensors file; fetch it again") from None
    end = 8 + length + max(ends, default=0)
    if end != size:
        raise ValueError(f"{path} has {size:,} bytes and should have {end:,}; fetch it again")


def _check_repository(component: Component) -> Path | None:
    """The folder of a repository that was fetched before; None of one that the hub has.

    Raises:
        ValueError: it is no repository's name, has no commit, or is not within reach.
    """
    path, revision = component.path, component.revision
    if not _REPOSITORY.fullmatch(path):
        raise ValueError(f"path: no folder {path} here, and it is no repository's name (owner/name)")
    if revision is not None and not _COMMIT.fullmatch(revision):
        raise ValueError(
            f"no folder {path} here, and of a repository of Hugging Face `revision` should be a commit, 40 hex"
            f" digits; it is {revision}"
        )
    from huggingface_hub import HfApi, constants

    known = Path(constants.HF_HUB_CACHE, f"models--{path.replace('/', '--')}")
    reference = known / "refs/main"
    commit = revision or (reference.read_text().strip() if reference.is_file() else "")
    if commit and (known / "snapshots" / commit).is_dir():
        return known / "snapshots" / commit
    try:
        HfApi().model_info(path, revision=revision, timeout=_HUB_TIMEOUT_S)
    except Exception as error:
        # Its own errors, those of the network, and of its being told to stay offline.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"no folder {path} here, nor a repository of Hugging Face within reach: {reason}"
        ) from None
    return None
