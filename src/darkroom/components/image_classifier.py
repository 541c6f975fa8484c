"""Loads image classifiers, whose classes have names: as transformers saves them, or ONNX files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darkroom.components.base import Component
from darkroom.components.classifier import ImageClassifier
from darkroom.components.files import component_folder, load_transformers, require_file
from darkroom.components.onnx_classifier import load_onnx_classifier
from darkroom.components.processors import processor_options
from darkroom.imports import quick_imports


class _Transformers(ImageClassifier):
    """A classifier of transformers, float32, with the image processor of the same folder."""

    def __init__(self, model: Any, processor: Any, where: str) -> None:
        names = model.config.id2label
        labels = [str(names[i]) for i in range(model.config.num_labels)]
        super().__init__(labels, model.config.problem_type == "multi_label_classification", where)
        self.model, self.processor = model, processor

    @property
    def takes(self) -> dict[str, Any]:
        """As of every `ImageClassifier`."""
        return processor_options(self.processor)

    @torch.no_grad()
    def probabilities(self, images: Sequence[np.ndarray]) -> Tensor:
        """As of every `ImageClassifier`."""
        pixels = self.processor(images=[image.copy() for image in images], return_tensors="pt")[
            "pixel_values"
        ]
        device = next(self.model.parameters()).device
        pixels = pixels.to(device, memory_format=torch.channels_last)
        logits = self.model(pixel_values=pixels).logits.float().cpu()
        return logits.sigmoid() if self.is_multi_label else logits.softmax(dim=-1)


def load_image_classifier(component: Component) -> ImageClassifier:
    """A classifier as `save_pretrained` leaves it: config.json with id2label, safetensors, its image processor.
    Or, where the component has options for it, an ONNX file.

    It is on the GPU where there is one.

    Raises:
        ValueError: a file is missing, the folder's model is no classifier, or weights are missing.
    """
    folder = component_folder(component, "image_classifier")
    if component.onnx is not None:
        return load_onnx_classifier(folder, component.onnx)
    with quick_imports():
        from transformers import AutoImageProcessor, AutoModelForImageClassification

    require_file(folder, "config.json", "an image classifier's config.json")
    _refuse_other_models(folder)
    with quick_imports():
        # It imports the model's module.
        model = load_transformers(AutoModelForImageClassification, folder, "image classifier")
    try:
        processor = AutoImageProcessor.from_pretrained(str(folder), use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: no image classifier that transformers reads: {error}") from None
    # Convolutions take pictures in this order; a third of a small ResNet's time was bringing them in it.
    model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return _Transformers(model.to("cuda") if torch.cuda.is_available() else model, processor, str(folder))


def _refuse_other_models(folder: Path) -> None:
    """transformers puts a new, random head on a model that is no classifier."""
    path = folder / "config.json"
    named = json.loads(path.read_text()).get("architectures") or []
    if not any("ForImageClassification" in name for name in named):
        raise ValueError(
            f"{path}: architectures is {', '.join(named) or 'not there'}, where an image classifier's name ends in"
            " ForImageClassification"
        )
