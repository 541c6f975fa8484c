"""Image classifiers in ONNX files, which say nothing of how they take pictures: the configuration does."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from darkroom.components.classifier import ImageClassifier
from darkroom.components.onnx import OnnxClassifier, open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# How far from 1 the sum of probabilities may be that a model gives itself.
_SUM_TOLERANCE = 1e-2
_MAX_ASPECT = 8
# A processor is quicker with few pictures at a time, which fit its caches: open-nsfw takes 22 ms a picture of
# four, and 24 ms a picture of 32.
_ON_PROCESSOR = 4


class OnnxImageClassifier(ImageClassifier):
    """A classifier that onnxruntime runs.

    Args:
        session: the model, with one input and its classes as the first output.
        options: how it takes pictures.
        where: what messages call it.
    """

    def __init__(self, session: "InferenceSession", options: OnnxClassifier, where: str) -> None:
        super().__init__(options.classes, options.activation == "sigmoid", where)
        self.session, self.options = session, options
        given = session.get_inputs()
        side, channels_first = options.crop_px, options.layout == "nchw"
        wanted = (3, side, side) if channels_first else (side, side, 3)
        shape = given[0].shape
        # Other sizes than numbers are names: free.
        fits = len(shape) == 4 and all(
            not isinstance(n, int) or n == m for n, m in zip(shape[1:], wanted, strict=True)
        )
        if len(given) != 1 or given[0].type != "tensor(float)" or not fits:
            told = ", ".join(f"{one.name} {one.type} {one.shape}" for one in given)
            raise ValueError(
                f"{where} takes {told}; with layout {options.layout} and crop_px {side} it should take one"
                f" tensor(float) (pictures, {', '.join(map(str, wanted))})"
            )
        # Some are exported for one picture at a time.
        self.max_pictures = shape[0] if isinstance(shape[0], int) else None
        if self.max_pictures not in (None, 1):
            raise ValueError(f"{where} takes exactly {shape[0]} pictures; it should take any number, or one")

    @property
    def takes(self) -> dict[str, Any]:
        """As of every `ImageClassifier`: the component's options."""
        return self.options.model_dump(mode="json", exclude={"file", "classes"})

    def probabilities(self, images: Sequence[np.ndarray]) -> Tensor:
        """As of every `ImageClassifier`.

        Raises:
            ValueError: the outputs are not as the options say.
        """
        pixels = np.stack([preprocess(image, self.options) for image in images])
        is_on_gpu = "CUDAExecutionProvider" in self.session.get_providers()
        size = self.max_pictures or (len(pixels) if is_on_gpu else _ON_PROCESSOR)
        chunks = [pixels[begin : begin + size] for begin in range(0, len(pixels), size)]
        name = self.session.get_inputs()[0].name
        found = [torch.from_numpy(self.session.run(None, {name: chunk})[0]) for chunk in chunks]
        outputs, wanted = torch.cat(found).float(), (len(images), len(self.labels))
        if outputs.shape != wanted:
            raise ValueError(
                f"{self.where} gives {tuple(outputs.shape)} for {len(images)} pictures; with the classes of the"
                f" configuration it should give {wanted}"
            )
        if self.options.activation == "softmax":
            return outputs.softmax(dim=-1)
        if self.is_multi_label:
            return outputs.sigmoid()
        # NaN passes: it is counted where scores are written.
        if ((outputs.sum(dim=-1) - 1).abs() > _SUM_TOLERANCE).any() or (outputs < 0).any():
            raise ValueError(
                f"{self.where} gives outputs that are no probabilities; write activation: softmax or sigmoid"
            )
        return outputs


def preprocess(image: np.ndarray, options: OnnxClassifier) -> np.ndarray:
    """uint8 RGB (height, width, 3) -> float32 as the model takes it, without the axis of pictures."""
    from PIL import Image

    method = Image.Resampling[options.interpolation.upper()]
    height, width = image.shape[:2]
    short, side = min(height, width), options.resize_px
    if not options.stretch and max(height, width) > _MAX_ASPECT * short:
        # Of a long strip only the middle is looked at; resized as a whole it might not fit the memory.
        y, x = (max(0, (n - _MAX_ASPECT * short) // 2) for n in (height, width))
        image = image[y : height - y, x : width - x]
        height, width = image.shape[:2]
    size = (side, side) if options.stretch else (round(width * side / short), round(height * side / short))
    resized = Image.fromarray(image).resize(size, method)
    left, top = ((n - options.crop_px) // 2 for n in size)
    levels = np.asarray(
        resized.crop((left, top, left + options.crop_px, top + options.crop_px)), dtype=np.float32
    )
    levels = levels[..., ::-1] if options.channels == "bgr" else levels
    mean, std = (np.array(values, np.float32) for values in (options.mean, options.std))
    normalised = np.asarray((levels - mean) / std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1) if options.layout == "nchw" else normalised)


def load_onnx_classifier(folder: Path, options: OnnxClassifier) -> OnnxImageClassifier:
    """The classifier in a folder.

    Raises:
        ValueError: it cannot be read, or does not take pictures as the options say.
    """
    path = folder / options.file
    return OnnxImageClassifier(open_session(path), options, str(path))
