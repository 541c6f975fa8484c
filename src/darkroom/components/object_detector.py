"""Loads object detectors, whose classes have names: as transformers saves them, or ONNX files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from darkroom.components.base import Component
from darkroom.components.detector import MASK2FORMER, Found, ObjectDetector, labels_in
from darkroom.components.files import component_folder, load_transformers, require_file
from darkroom.components.onnx import open_session
from darkroom.components.onnx_detector import OnnxDetector, prepared, read_outputs
from darkroom.components.processors import processor_options

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class _Transformers(ObjectDetector):
    """A detector of transformers, float32, with its folder's image processor, which reads its outputs."""

    def __init__(self, model: Any, processor: Any, where: str) -> None:
        names = model.config.id2label
        super().__init__([str(names[i]) for i in range(len(names))], where)
        self.model, self.processor = model, processor

    @property
    def takes(self) -> dict[str, Any]:
        """As of every `ObjectDetector`."""
        return processor_options(self.processor)

    @torch.no_grad()
    def detect(self, image: np.ndarray, min_score: float) -> list[Found]:
        """As of every `ObjectDetector`."""
        inputs = self.processor(images=[image.copy()], return_tensors="pt")
        outputs = self.model(**{name: values.to(self.model.device) for name, values in inputs.items()})
        (found,) = self.processor.post_process_object_detection(
            outputs, threshold=min_score, target_sizes=torch.tensor([image.shape[:2]])
        )
        boxes, scores, places = (found[name].tolist() for name in ("boxes", "scores", "labels"))
        return _sorted(
            Found(self.labels[p], tuple(b), s) for b, s, p in zip(boxes, scores, places, strict=True)
        )


class _Onnx(ObjectDetector):
    """A detector that onnxruntime runs.

    Args:
        session: the model, with one input.
        options: how it takes pictures and what it gives.
        where: what messages call it.
    """

    def __init__(self, session: "InferenceSession", options: OnnxDetector, where: str) -> None:
        super().__init__(options.classes, where)
        self.session, self.options = session, options
        given, side = session.get_inputs(), options.size_px
        wanted = (1, 3, side, side) if options.layout == "nchw" else (1, side, side, 3)
        shape = given[0].shape
        # Sizes that are no numbers are names: free.
        fits = len(shape) == 4 and all(
            not isinstance(n, int) or n == m for n, m in zip(shape, wanted, strict=True)
        )
        if len(given) != 1 or given[0].type != "tensor(float)" or not fits:
            told = ", ".join(f"{one.name} {one.type} {one.shape}" for one in given)
            raise ValueError(
                f"{where} takes {told}; with layout {options.layout} and size_px {side} it should take one"
                f" tensor(float) {wanted}"
            )

    @property
    def takes(self) -> dict[str, Any]:
        """As of every `ObjectDetector`: the component's options."""
        return self.options.model_dump(mode="json", exclude={"file", "classes"})

    def detect(self, image: np.ndarray, min_score: float) -> list[Found]:
        """As of every `ObjectDetector`."""
        from torchvision.ops import batched_nms

        pixels, (across, down) = prepared(image, self.options)
        outputs = self.session.run(None, {self.session.get_inputs()[0].name: pixels})
        boxes, scores, places = read_outputs(outputs, self.options, self.where)
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError(f"{self.where} gives numbers that are not finite")
        kept = scores > min_score
        boxes, scores, places = boxes[kept], scores[kept], places[kept]
        if self.options.max_overlap < 1:
            told = (torch.from_numpy(values) for values in (boxes, scores, places))
            alone = batched_nms(*told, self.options.max_overlap).numpy()
            boxes, scores, places = boxes[alone], scores[alone], places[alone]
        height, width = image.shape[:2]
        boxes = (boxes / np.array([across, down] * 2)).clip(0, [width, height] * 2)
        rows = zip(boxes.tolist(), scores.tolist(), places.tolist(), strict=True)
        return _sorted(Found(self.labels[place], tuple(box), score) for box, score, place in rows)


def _sorted(found: Any) -> list[Found]:
    return sorted(found, key=lambda one: -one.score)


def load_object_detector(component: Component) -> ObjectDetector:
    """A detector as `save_pretrained` leaves it: config.json with id2label, safetensors, its image processor; a
    Mask2Former gives instances with masks. Or, where the component has options for it, an ONNX file.

    It is on the GPU where there is one.

    Raises:
        ValueError: a file is missing, the folder's model is no detector, or weights are missing.
    """
    folder = component_folder(component, "object_detector")
    if (options := component.onnx_detector) is not None:
        path = folder / options.file
        return _Onnx(open_session(path), options, str(path))
    require_file(folder, "config.json", "an object detector's config.json")
    labels_in(folder / "config.json")
    return _from_transformers(folder)


def _from_transformers(folder: Path) -> ObjectDetector:
    import transformers

    from darkroom.components.mask2former import Mask2Former

    named = json.loads((folder / "config.json").read_text())["architectures"]
    is_mask2former = MASK2FORMER in named
    cls: Any = transformers.AutoModelForObjectDetection
    if is_mask2former:
        cls = transformers.Mask2FormerForUniversalSegmentation
    model = load_transformers(cls, folder, "object detector").eval().requires_grad_(False)
    model = model.to("cuda") if torch.cuda.is_available() else model
    if is_mask2former:
        return Mask2Former(model, str(folder))
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            str(folder), use_fast=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: no object detector that transformers reads: {error}") from None
    if not hasattr(processor, "post_process_object_detection"):
        raise ValueError(f"{folder}: {type(processor).__name__} reads no detector's outputs")
    return _Transformers(model, processor, str(folder))
