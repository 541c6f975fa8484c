"""DINOv2 as FD-DINOv2 takes it: the class token of a 224 px picture, as in dgm-eval (arXiv 2306.04675)."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from darkroom.components.base import Component
from darkroom.components.files import component_folder, load_transformers, require_file

SIZE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What the authors' code adds to the number of patches a side before it interpolates positions.
_OFFSET = 0.1


class Dinov2:
    """A DINOv2 with its preprocessing.

    Args:
        model: transformers' Dinov2Model, which takes pictures of 224 px.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @torch.no_grad()
    def encode_images(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB (height, width, 3) pictures of any sizes -> float32 (pictures, dimensions), on the CPU."""
        pixels = torch.stack([preprocess(picture) for picture in pictures]).to(self.model.device)
        features: Tensor = self.model(pixel_values=pixels).pooler_output
        return features.float().cpu()


def preprocess(picture: np.ndarray) -> Tensor:
    """uint8 (height, width, 3) -> float32 (3, 224, 224): PIL's bicubic resize of both sides, normalised."""
    resized = np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    mean, std = (np.array(values, np.float32) for values in (_MEAN, _STD))
    return torch.from_numpy((resized.astype(np.float32) / 255 - mean) / std).permute(2, 0, 1)


def load_dinov2(component: Component) -> Dinov2:
    """A folder as transformers saves a `Dinov2Model`: config.json and safetensors. On the GPU where there is one.

    Raises:
        ValueError: a file is missing, the folder holds another model, or weights are missing.
    """
    from transformers import Dinov2Model

    folder = component_folder(component, "dinov2")
    require_file(folder, "config.json", "a DINOv2's config.json")
    _refuse_other_models(folder)
    model = load_transformers(Dinov2Model, folder, "DINOv2")
    if SIZE % model.config.patch_size:
        raise ValueError(f"{folder}: patches of {model.config.patch_size} px do not fill {SIZE} px")
    _set_positions(model)
    model = model.eval().requires_grad_(False)
    return Dinov2(model.to("cuda") if torch.cuda.is_available() else model)


def _refuse_other_models(folder: Path) -> None:
    kind = json.loads((folder / "config.json").read_text()).get("model_type")
    if kind != "dinov2":
        raise ValueError(f"{folder / 'config.json'}: model_type is {kind!r}, where a DINOv2's is 'dinov2'")


def _set_positions(model: Any) -> None:
    """Positions for 224 px, interpolated as the authors' code does, by a scale that is a little larger than that
    of transformers: what dgm-eval's numbers were computed with."""
    embeddings = model.embeddings
    positions = embeddings.position_embeddings.detach()
    side, wanted = math.isqrt(positions.shape[1] - 1), SIZE // model.config.patch_size
    if side == wanted:
        return
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (wanted + _OFFSET) / side
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    patches = grid.permute(0, 2, 3, 1).reshape(1, wanted * wanted, -1)
    embeddings.position_embeddings = torch.nn.Parameter(torch.cat([positions[:, :1], patches], dim=1))
