"""Loads CLIPs that score pictures and texts: in OpenAI's format, or as transformers or open_clip saves them."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.components.base import CROP, PAD, Component
from darkroom.components.files import (
    WEIGHTS,
    component_folder,
    is_openai,
    load_tokenizer,
    read_weights,
    require_file,
)
from darkroom.components.open_clip import load_open_clip, open_clip_weights
from darkroom.imports import quick_imports

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MAX_PICTURE_CHUNK = 256
_RESIZED = {
    CROP: "shorter side resized (bicubic, antialiased), centre cut out",
    PAD: "longer side resized (bicubic, antialiased), filled with black",
}
# OpenAI's own are at most so wide; wider ones have other heads than their width tells.
_MAX_OPENAI_WIDTH = 1024


class Towers(Protocol):
    """A CLIP's two encoders, float32.

    Attributes:
        model: of clip-anytorch's class or of transformers'.
        image_size: side of the pictures that it takes, pixels.
        context_length: tokens of a text, padding included.
        takes_shorter: whether texts may come with less padding, which changes nothing but the order of sums.
    """

    model: Any
    image_size: int
    context_length: int
    takes_shorter: bool

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Normalised pictures (B, 3, size, size) -> (B, dimensions)."""

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Tokens (B, context_length) or fewer, zeros after the end -> (B, dimensions)."""


class ClipScorer:
    """A CLIP with its tokenizer and its preprocessing.

    Args:
        towers: its encoders.
        tokenizer: which ends texts with the token that the encoder reads them at.
        mean, std: of each colour, for pictures in [0, 1].
        resize_mode: CROP, or PAD with black, see `components.base`.
    """

    def __init__(
        self,
        towers: Towers,
        tokenizer: "CLIPTokenizer",
        mean: list[float],
        std: list[float],
        resize_mode: str = CROP,
    ) -> None:
        self.towers, self.tokenizer, self.resize_mode = towers, tokenizer, resize_mode
        self.image_size = towers.image_size
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)

    @property
    def takes(self) -> dict[str, Any]:
        """How pictures and texts come to it, as plain values, for manifests."""
        return {
            "pictures": _RESIZED[self.resize_mode],
            "side_px": self.image_size,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
            "max_text_tokens": self.towers.context_length,
        }

    @property
    def device(self) -> torch.device:
        """Where it is; embeddings come back to the CPU."""
        device: torch.device = self.towers.model.logit_scale.device
        return device

    def on_fastest_device(self) -> "ClipScorer":
        """Itself, moved to the GPU where there is one."""
        if torch.cuda.is_available():
            self.towers.model.to("cuda")
        return self

    @torch.no_grad()
    def encode_images(self, images: Any) -> Tensor:
        """L2-normalised float32 embeddings (B, embed_dim), on the CPU.

        Args:
            images: uint8 (B, 3, H, W), or a list of PIL pictures or of uint8 arrays (H, W, 3) of any sizes.
        """
        if isinstance(images, Tensor):
            chunks = [self.preprocess(chunk) for chunk in images.split(MAX_PICTURE_CHUNK)]
        else:
            single = torch.cat([self.preprocess(_picture_tensor(image)) for image in images])
            chunks = list(single.split(MAX_PICTURE_CHUNK))
        encoded = [self.towers.encode_image(chunk.to(self.device)).float() for chunk in chunks]
        return F.normalize(torch.cat(encoded), dim=-1).cpu()

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> (B, 3, size, size): resized (bicubic) as `resize_mode` says, normalised."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"pictures must be uint8 (B, 3, H, W), not {images.dtype} {tuple(images.shape)}")
        size, (height, width) = self.image_size, images.shape[-2:]
        pads = self.resize_mode == PAD
        fitted = max(height, width) if pads else min(height, width)
        if fitted != size:
            whole = round if pads else int
            target = [
                size if side == fitted else max(whole(size * side / fitted), 1) for side in (height, width)
            ]
            images = F.interpolate(images, target, mode="bicubic", antialias=True, align_corners=False)
        if pads:
            down, right = (size - side for side in images.shape[-2:])
            images = F.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))
        top, left = (round((side - size) / 2) for side in images.shape[-2:])
        images = images[..., top : top + size, left : left + size]
        return (images.float() / 255 - self.mean) / self.std

    @torch.no_grad()
    def encode_texts(self, texts: list[str], batch_size: int = 256, pad_whole: bool = True) -> Tensor:
        """L2-normalised float32 embeddings (B, embed_dim); texts longer than the context are cut.

        They are padded to the context, or without `pad_whole`, if the encoder takes that, to the longest of them.
        """
        context = self.towers.context_length
        rows = self.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        rows = [row if len(row) <= context else [*row[: context - 1], row[-1]] for row in rows]
        is_whole = pad_whole or not self.towers.takes_shorter
        tokens = torch.zeros(len(texts), context if is_whole else max(map(len, rows)), dtype=torch.long)
        for k, row in enumerate(rows):
            tokens[k, : len(row)] = torch.tensor(row)
        encoded = [
            self.towers.encode_text(chunk.to(self.device)).float() for chunk in tokens.split(batch_size)
        ]
        return F.normalize(torch.cat(encoded), dim=-1).cpu()


def load_clip(component: Component) -> ClipScorer:
    """A CLIP as transformers saves it (`CLIPModel` with its processor), in OpenAI's format: model.safetensors
    with OpenAI's names, vocab.json, merges.txt and preprocessor_config.json; or as open_clip saves it, with
    open_clip_config.json.

    Raises:
        ValueError: a file is missing, or the folder holds no CLIP with both of its encoders.
    """
    folder = component_folder(component, "clip")
    weights = open_clip_weights(folder)
    if weights is not None:
        return _from_open_clip(folder, weights)
    require_file(folder, WEIGHTS, f"a CLIP's {WEIGHTS}, in transformers' or in OpenAI's format")
    towers, tokenizer = _from_openai(folder) if is_openai(folder) else _from_transformers(folder)
    _quicken(towers.model)
    preprocessor = _preprocessor(folder)
    size = preprocessor.get("crop_size", towers.image_size)
    size = size["height"] if isinstance(size, dict) else size
    if size != towers.image_size:
        raise ValueError(
            f"{folder}: its preprocessor crops to {size} pixels; the weights take {towers.image_size}"
        )
    return ClipScorer(towers, tokenizer, preprocessor["image_mean"], preprocessor["image_std"])


class _QuickGelu(torch.nn.Module):
    """x * sigmoid(1.702 x), with one new tensor where others have three: a twelfth of a small tower's time."""

    def forward(self, values: Tensor) -> Tensor:
        if values.requires_grad:
            # Whose gradient needs what would be overwritten.
            return values * torch.sigmoid(1.702 * values)
        return torch.sigmoid_(1.702 * values).mul_(values)


def _quicken(model: Any) -> None:
    """Have a model that is not trained do the same sums with less memory."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ in ("QuickGELU", "QuickGELUActivation"):
                setattr(module, name, _QuickGelu())


class _OpenAI:
    """Of clip-anytorch's model class."""

    takes_shorter = False

    def __init__(self, model: Any) -> None:
        self.model = model
        self.image_size: int = model.visual.input_resolution
        self.context_length: int = model.context_length
        self.encode_image, self.encode_text = model.encode_image, model.encode_text


class _Transformers:
    """Of transformers' CLIPModel."""

    takes_shorter = True

    def __init__(self, model: Any) -> None:
        self.model = model
        self.image_size: int = model.config.vision_config.image_size
        self.context_length: int = model.config.text_config.max_position_embeddings

    def encode_image(self, pixels: Tensor) -> Tensor:
        """See `Towers`."""
        features: Tensor = self.model.get_image_features(pixel_values=pixels).pooler_output
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        """See `Towers`."""
        features: Tensor = self.model.get_text_features(input_ids=tokens).pooler_output
        return features


def _from_openai(folder: Path) -> tuple[Towers, "CLIPTokenizer"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clip-anytorch's pkg_resources announces its own end
        from clip.model import build_model

    state = read_weights(folder)
    _check_width(folder, state)
    model = build_model(dict(state)).float()
    # build_model rounds to float16 on its way.
    model.load_state_dict({k: v for k, v in state.items() if k in model.state_dict()})
    tokenizer = load_tokenizer(folder)
    # The encoder reads a text at its highest token.
    _check_end(tokenizer, model.vocab_size - 1)
    return _OpenAI(model.eval().requires_grad_(False)), tokenizer


def _from_transformers(folder: Path) -> tuple[Towers, "CLIPTokenizer"]:
    import transformers

    require_file(folder, "config.json", "as the weights have no OpenAI's names, transformers' config.json")
    kind = json.loads((folder / "config.json").read_text()).get("model_type")
    if kind != "clip":
        raise ValueError(f"{folder / 'config.json'}: model_type is {kind!r}, where a whole CLIP's is 'clip'")
    with quick_imports():
        cls: Any = transformers.CLIPModel
    model, loading = cls.from_pretrained(
        str(folder), dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    if loading["missing_keys"]:
        raise ValueError(f"{folder}: the weights lack {', '.join(sorted(loading['missing_keys'])[:3])}")
    tokenizer, text = load_tokenizer(folder), model.config.text_config
    # Configurations from before transformers 4.31 say 2, and mean the highest token.
    _check_end(tokenizer, text.vocab_size - 1 if text.eos_token_id == 2 else text.eos_token_id)
    return _Transformers(model.eval().requires_grad_(False)), tokenizer


def _from_open_clip(folder: Path, weights: Path) -> ClipScorer:
    saved, tokenizer = load_open_clip(folder, weights), load_tokenizer(folder)
    _check_end(tokenizer, saved.model.config.text_config.vocab_size - 1)
    return ClipScorer(_Transformers(saved.model), tokenizer, saved.mean, saved.std, saved.resize_mode)


def _check_width(folder: Path, state: dict[str, Tensor]) -> None:
    """open_clip has OpenAI's names of tensors, and larger models, whose heads do not follow from these."""
    width = state["visual.proj"].shape[0] if "visual.proj" in state else 0
    if width > _MAX_OPENAI_WIDTH:
        raise ValueError(
            f"{folder}: visual.proj is of width {width}, and OpenAI's CLIPs are of {_MAX_OPENAI_WIDTH} at most;"
            " with weights of open_clip belongs its open_clip_config.json"
        )


def _check_end(tokenizer: "CLIPTokenizer", wanted: int) -> None:
    if tokenizer.eos_token_id != wanted:
        raise ValueError(
            f"the tokenizer ends texts with token {tokenizer.eos_token_id}; this CLIP needs {wanted}"
        )


def _preprocessor(folder: Path) -> dict[str, Any]:
    """image_mean, image_std and perhaps crop_size; transformers 5 saves them inside processor_config.json."""
    path, key = folder / "processor_config.json", "image_processor"
    values = json.loads(path.read_text()).get(key) if path.is_file() else None
    if values is None:
        name = "preprocessor_config.json"
        require_file(folder, name, f"a CLIP's {name} (image_mean, image_std)")
        path, values = folder / name, json.loads((folder / name).read_text())
    for name in ("image_mean", "image_std"):
        if name not in values:
            raise ValueError(f"{path} has no {name}")
    return dict(values)


def _picture_tensor(image: Any) -> Tensor:
    """A PIL picture or uint8 (H, W, 3) array -> uint8 (1, 3, H, W)."""
    array = image if isinstance(image, np.ndarray) else np.asarray(image.convert("RGB"))
    return torch.from_numpy(np.array(array)).permute(2, 0, 1)[None]
