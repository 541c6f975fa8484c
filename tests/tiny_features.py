"""Inceptions and DINOv2s with random weights, and pictures, for tests of what stands on their features."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch_fidelity import feature_extractor_inceptionv3 as fidelity
from transformers import Dinov2Config, Dinov2Model

from darkroom.components.base import Component
from darkroom.components.check import INCEPTION_WEIGHTS


def write_inception(folder: Path, seed: int = 0) -> Component:
    """torch-fidelity's network with random weights that keep the size of what goes through."""
    cls, own = fidelity.FeatureExtractorInceptionV3, fidelity.FeatureExtractorInceptionV3.load_state_dict
    download = fidelity.load_state_dict_from_url
    try:
        cls.load_state_dict = fidelity.load_state_dict_from_url = lambda *_, **__: {}
        network = cls("inception-v3-compat", ["2048"])
    finally:
        cls.load_state_dict, fidelity.load_state_dict_from_url = own, download
    torch.manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), folder / INCEPTION_WEIGHTS[0])
    return Component(kind="inception", path=str(folder))


def write_dinov2(folder: Path, image_size: int = 224) -> Component:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=image_size, patch_size=14
    )
    model = Dinov2Model(config)
    with torch.no_grad():
        model.embeddings.position_embeddings.normal_()
        model.embeddings.cls_token.normal_()
    model.save_pretrained(folder)
    return Component(kind="dinov2", path=str(folder))


def pictures(number: int, seed: int, sizes: Sequence[tuple[int, int]] = ((40, 56),)) -> list[np.ndarray]:
    """Squares of noise of some colour: uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(number):
        height, width = sizes[k % len(sizes)]
        small = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) // 2 + rng.integers(
            0, 120, 3, dtype=np.uint8
        )
        found.append(np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST)))
    return found


def write_pictures(folder: Path, found: Sequence[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for k, picture in enumerate(found):
        Image.fromarray(picture).save(folder / f"{k:03d}.png")
    return folder
