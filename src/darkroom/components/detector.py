"""What an object detector is to a benchmark, whatever runs it, and what its classes are called."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from darkroom.components.base import Component
from darkroom.settings.paths import local_path

if TYPE_CHECKING:
    import numpy as np

# The class of a Mask2Former that finds instances; other detectors' names end in the second.
MASK2FORMER, FOR_DETECTION = "Mask2FormerForUniversalSegmentation", "ForObjectDetection"


class Found(NamedTuple):
    """One object: its class, its box (left, top, right, bottom; pixels, y downwards), the confidence, 0 to 1, and
    which pixels belong to it, bool (height, width), where the detector tells."""

    label: str
    box: tuple[float, float, float, float]
    score: float
    mask: "np.ndarray | None" = None


class ObjectDetector(ABC):
    """A model with its preprocessing.

    Args:
        labels: the names of its classes, in the order of its outputs.
        where: what messages call it.
    """

    def __init__(self, labels: Sequence[str], where: str) -> None:
        self.labels, self.where = tuple(labels), where

    @property
    @abstractmethod
    def takes(self) -> dict[str, Any]:
        """How pictures come to it and what is made of its outputs, as plain values, for protocols."""

    @abstractmethod
    def detect(self, image: "np.ndarray", min_score: float) -> list[Found]:
        """What is in a picture, best first.

        Args:
            image: uint8 RGB (height, width, 3) of any size.
            min_score: objects count whose score is above it.

        Raises:
            ValueError: the model's outputs are not what they should be.
        """


def detector_labels(component: Component) -> tuple[str, ...] | None:
    """The names of a detector's classes, from the configuration or its config.json; no weights are loaded. None of
    a repository that is not on this machine.

    Raises:
        ValueError: the folder's model is no detector, or does not name its classes.
    """
    if component.onnx_detector is not None:
        return component.onnx_detector.classes
    path = local_path(component.path) / (component.subfolder or "") / "config.json"
    return labels_in(path) if path.is_file() else None


def labels_in(path: Path) -> tuple[str, ...]:
    """The names of the classes of a detector as transformers saves it, in the order of its outputs.

    Raises:
        ValueError: it is another model's config.json, or names no classes.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        named = [str(name) for name in config.get("architectures") or []]
        names = {int(index): str(name) for index, name in (config.get("id2label") or {}).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: no configuration of a detector: {error}") from None
    if not any(name == MASK2FORMER or name.endswith(FOR_DETECTION) for name in named):
        raise ValueError(
            f"{path}: architectures is {', '.join(named) or 'not there'}, where an object detector's name ends in"
            f" {FOR_DETECTION}, or is {MASK2FORMER}"
        )
    if sorted(names) != list(range(len(names))) or not names:
        raise ValueError(f"{path}: id2label does not name the classes 0, 1, 2 and so on")
    return tuple(names[index] for index in range(len(names)))
