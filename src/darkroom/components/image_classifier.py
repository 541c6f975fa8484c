"""Loads image classifiers as transformers saves them, with their own preprocessing and classes by name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darkroom.components.base import Component
from darkroom.components.files import component_folder, require_file


class ImageClassifier:
    """A model with its preprocessing.

    Args:
        model: of a transformers class for image classification, float32.
        processor: transformers' image processor of the same folder.
        where: what messages call it.

    Attributes:
        labels: the names of its classes, in the order of its outputs.
        is_multi_label: whether classes are judged apart (sigmoid), or one of them is true (softmax).
    """

    def __init__(self, model: Any, processor: Any, where: str) -> None:
        self.model, self.processor, self.where = model, processor, where
        names = model.config.id2label
        self.labels = tuple(str(names[i]) for i in range(model.config.num_labels))
        self.is_multi_label = model.config.problem_type == "multi_label_classification"

    def places(self, classes: Sequence[str]) -> list[int]:
        """Where in the output the classes of these names are.

        Raises:
            ValueError: names the first that the model does not have, and those that it has.
        """
        for name in classes:
            if self.labels.count(name) != 1:
                how = "no class" if name not in self.labels else "several classes"
                raise ValueError(f"{self.where} has {how} {name!r}; it has {', '.join(self.labels)}")
        return [self.labels.index(name) for name in classes]

    @torch.no_grad()
    def probabilities(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB arrays (height, width, 3) of any sizes -> float32 (B, classes), on the CPU."""
        pixels = self.processor(images=[image.copy() for image in images], return_tensors="pt")[
            "pixel_values"
        ]
        device = next(self.model.parameters()).device
        logits = self.model(pixel_values=pixels.to(device)).logits.float().cpu()
        return logits.sigmoid() if self.is_multi_label else logits.softmax(dim=-1)


def load_image_classifier(component: Component) -> ImageClassifier:
    """A classifier as `save_pretrained` leaves it: config.json with id2label, safetensors, its image processor.

    It is on the GPU where there is one.

    Raises:
        ValueError: a file is missing, the folder's model is no classifier, or weights are missing.
    """
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = component_folder(component, "image_classifier")
    require_file(folder, "config.json", "an image classifier's config.json")
    _refuse_other_models(folder)
    cls: Any = AutoModelForImageClassification
    try:
        model, loading = cls.from_pretrained(
            str(folder),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        processor = AutoImageProcessor.from_pretrained(str(folder), use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: no image classifier that transformers reads: {error}") from None
    if loading["missing_keys"]:
        raise ValueError(f"{folder}: the weights lack {', '.join(sorted(loading['missing_keys'])[:3])}")
    model = model.eval().requires_grad_(False)
    return ImageClassifier(model.to("cuda") if torch.cuda.is_available() else model, processor, str(folder))


def _refuse_other_models(folder: Path) -> None:
    """transformers puts a new, random head on a model that is no classifier."""
    path = folder / "config.json"
    named = json.loads(path.read_text()).get("architectures") or []
    if not any("ForImageClassification" in name for name in named):
        raise ValueError(
            f"{path}: architectures is {', '.join(named) or 'not there'}, where an image classifier's name ends in"
            " ForImageClassification"
        )
