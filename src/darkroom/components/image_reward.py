"""ImageReward: a BLIP that reads a prompt while it looks at the picture, and a head that says how well both fit.

arXiv 2304.05977. Its published checkpoint is read by its own names of tensors into transformers' modules of BLIP.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from darkroom.components.base import Component
from darkroom.components.check import IMAGE_REWARD_WEIGHTS, MED_CONFIG
from darkroom.components.files import component_folder, moved, read_tensors, require_file
from darkroom.imports import quick_imports

if TYPE_CHECKING:
    from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionModel

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the authors' rewards; what is told is the reward less its mean, by its standard deviation."""
MAX_TOKENS = 35
RESIZED = "shorter side bicubic to {} px, centre crop"
_HEAD_DIM = 64
_PIXEL_MEAN, _PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# BLIP's own tokens behind BERT's, which its checkpoints have embeddings of.
_ADDED = ["[DEC]", "[ENC]"]
# Of med_config.json, what the text encoder is built by; of the vision encoder the tensors tell it.
_NEEDED = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"),
    *("max_position_embeddings", "layer_norm_eps", "hidden_act"),
)
_VISION, _TEXT, _HEAD = "blip.visual_encoder.", "blip.text_encoder.", "mlp.layers."
# Of a block of the vision encoder: BLIP's name -> transformers'.
_BLOCK = {
    "norm1": "layer_norm1",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "norm2": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_OUTSIDE = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}


class ImageReward:
    """The network with its tokenizer and its preprocessing.

    Args:
        vision, text: BLIP's encoders.
        head: from the text encoder's first state to a reward.
        tokenizer: BERT's, uncased.
    """

    def __init__(
        self,
        vision: "BlipVisionModel",
        text: "BlipTextModel",
        head: torch.nn.Module,
        tokenizer: "BertTokenizer",
    ) -> None:
        self.vision, self.text, self.head, self.tokenizer = vision, text, head, tokenizer
        self.image_size = cast(int, vision.config.image_size)

    @torch.no_grad()
    def rewards(self, pictures: Sequence[np.ndarray], prompts: Sequence[str]) -> Tensor:
        """How well each picture fits its prompt: float32 (pictures,), on the CPU; as published, less its mean.

        Args:
            pictures: uint8 RGB (height, width, 3), of any sizes.
            prompts: one of each; longer ones than MAX_TOKENS are cut.
        """
        device = self.vision.device
        pixels = torch.stack([preprocess(picture, self.image_size) for picture in pictures]).to(device)
        told = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(device)
        images = self.vision(pixel_values=pixels).last_hidden_state
        states = self.text(
            input_ids=told["input_ids"],
            attention_mask=told["attention_mask"],
            encoder_hidden_states=images,
            encoder_attention_mask=torch.ones(images.shape[:2], dtype=torch.long, device=device),
            is_decoder=False,
        ).last_hidden_state
        rewards: Tensor = self.head(states[:, 0]).squeeze(1)
        return ((rewards - MEAN) / STD).float().cpu()


def preprocess(picture: np.ndarray, size: int) -> Tensor:
    """uint8 (height, width, 3) -> float32 (3, size, size): the shorter side by PIL's bicubic, the centre."""
    height, width = picture.shape[:2]
    shorter = min(height, width)
    image = Image.fromarray(picture)
    if shorter != size:
        sides = (int(size * width / shorter), int(size * height / shorter))
        image = image.resize(sides, Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in image.size)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255
    mean, std = (np.array(values, np.float32) for values in (_PIXEL_MEAN, _PIXEL_STD))
    return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)


def load_image_reward(component: Component) -> ImageReward:
    """A folder with ImageReward.pt (or its tensors as model.safetensors), med_config.json, and the vocab.txt of
    BERT's uncased tokenizer. In float32, on the GPU where there is one.

    Raises:
        ValueError: a file is missing or is another, or tensors are missing or of other shapes.
    """
    folder = component_folder(component, "image_reward")
    path = next((folder / name for name in IMAGE_REWARD_WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise ValueError(f"{folder} has no {' or '.join(IMAGE_REWARD_WEIGHTS)}")
    tensors = read_tensors(path)
    with quick_imports():
        from transformers import BlipTextModel, BlipVisionConfig, BlipVisionModel

    sides = _vision_sides(tensors, path)
    vision = BlipVisionModel(BlipVisionConfig(**sides, layer_norm_eps=1e-6, hidden_act="gelu"))
    text = BlipTextModel(_text_config(folder / MED_CONFIG, sides["hidden_size"]), add_pooling_layer=False)
    _fill(vision, dict(_vision_tensors(tensors)), path)
    _fill(text, _below(tensors, _TEXT), path)
    head = _head(_below(tensors, _HEAD), path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for module in (vision, text, head):
        moved(module.eval().requires_grad_(False), device)
    return ImageReward(vision, text, head, _tokenizer(folder, text.config.vocab_size))


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _vision_sides(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """The vision encoder's sizes, as the shapes of its tensors tell."""
    try:
        positions, patches, width = (
            tensors[f"{_VISION}{name}"]
            for name in ("pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
        )
    except KeyError as error:
        raise ValueError(f"{path}: are no weights of ImageReward: lacks {error}") from None
    layers = {name.split(".")[3] for name in tensors if name.startswith(f"{_VISION}blocks.")}
    hidden, patch = positions.shape[-1], patches.shape[-1]
    return {
        "hidden_size": hidden,
        "intermediate_size": width.shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": hidden // _HEAD_DIM,
        "patch_size": patch,
        "image_size": round((positions.shape[1] - 1) ** 0.5) * patch,
    }


def _vision_tensors(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The vision encoder's, by transformers' names."""
    for name, value in _below(tensors, _VISION).items():
        if name in _OUTSIDE:
            yield _OUTSIDE[name], value
        elif name.startswith("blocks."):
            _, layer, inner = name.split(".", 2)
            place, _, kind = inner.rpartition(".")
            if place in _BLOCK:
                yield f"encoder.layers.{layer}.{_BLOCK[place]}.{kind}", value


def _text_config(path: Path, image_width: int) -> "BlipTextConfig":
    from transformers import BlipTextConfig

    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        values = {key: told[key] for key in _NEEDED}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: is not the med_config.json of ImageReward: {type(error).__name__} {error}"
        ) from None
    # A decoder's layers look at pictures; that it reads a text in both directions is said with each text.
    return BlipTextConfig(
        **values, encoder_hidden_size=image_width, is_decoder=True, pad_token_id=told.get("pad_token_id", 0)
    )


def _fill(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        lacking = module.load_state_dict(dict(tensors), strict=False).missing_keys
    except RuntimeError as error:
        raise ValueError(f"{path}: {str(error).splitlines()[1].strip()}") from None
    if lacking:
        raise ValueError(f"{path}: are no weights of ImageReward: lacks {lacking[0]}")


def _head(tensors: Mapping[str, Tensor], path: Path) -> torch.nn.Module:
    """Linear layers one after the other; what lies between them when it is trained is dropout."""
    places = sorted({int(name.split(".")[0]) for name in tensors})
    layers = []
    for place in places:
        weight, bias = tensors[f"{place}.weight"], tensors[f"{place}.bias"]
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers.append(layer)
    if not layers or layers[-1].out_features != 1:
        raise ValueError(f"{path}: are no weights of ImageReward: {_HEAD}* do not end in one number")
    return torch.nn.Sequential(*layers)


def _tokenizer(folder: Path, vocabulary: int) -> "BertTokenizer":
    from transformers import BertTokenizer

    require_file(folder, "vocab.txt", "that of google-bert/bert-base-uncased")
    path = folder / "vocab.txt"
    words = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if len(words) + len(_ADDED) != vocabulary:
        raise ValueError(
            f"{path}: has {len(words):,} words, the weights are for {vocabulary - len(_ADDED):,}: take that of"
            " google-bert/bert-base-uncased"
        )
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    tokenizer.add_tokens(_ADDED, special_tokens=True)
    return tokenizer
