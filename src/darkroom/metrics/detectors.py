"""Object detectors for GenEval: a package's, by name, or any component of the kind object_detector.

A package adds one through the entry points `darkroom.detectors`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from darkroom.benchmarks.base import Record
from darkroom.benchmarks.coco import as_asked
from darkroom.components.base import Component
from darkroom.components.detector import detector_labels
from darkroom.kinds import installed
from darkroom.metrics.rules import ColorClassifier, Detection

GROUP = "darkroom.detectors"


@dataclass(frozen=True)
class Detector:
    """Finds objects in pictures.

    Attributes:
        name: with its version, for the protocol: numbers of different detectors do not compare.
        detect: uint8 (height, width, 3), RGB -> what is there, best first.
        classify_color: names the colour of a detection.
        self_test: (pixels of a picture) -> `overall`, the share of known pictures that are judged right, and
            more; a RuntimeError says that scores would mean nothing. None, where no such pictures are known.
        told: what else a protocol says of it.
    """

    name: str
    detect: Callable[[np.ndarray], Sequence[Detection]]
    classify_color: ColorClassifier
    self_test: Callable[[int], Mapping[str, float]] | None
    told: Mapping[str, Any] = field(default_factory=dict)


# Loaded when used: a detector may import much.
_ENTRIES = {entry.name: entry for entry in installed(GROUP)}
DETECTORS = tuple(_ENTRIES)


def load_detector(name: str) -> Detector:
    """The detector of that name, one of DETECTORS."""
    detector: Detector = _ENTRIES[name].load()
    return detector


def asked_classes(records: Sequence[Record]) -> list[str]:
    """The classes that prompts speak of, sorted."""
    items = (item for record in records for key in ("include", "exclude") for item in record.get(key) or ())
    return sorted({item["class"] for item in items})


def check_classes(name: str, labels: Sequence[str], asked: Sequence[str]) -> None:
    """Refuse a detector that knows not all classes: of the others it would count none.

    Raises:
        ValueError: names those that are missing.
    """
    known = {as_asked(label, asked) for label in labels}
    if missing := [wanted for wanted in asked if wanted not in known]:
        raise ValueError(
            f"measure.geneval.detector: {name} does not know {', '.join(missing)}, of which the prompts speak; it"
            f" knows {', '.join(dict.fromkeys(labels))}"
        )


def check_component_detector(name: str, component: Component, records: Sequence[Record]) -> None:
    """The same of a component, as far as its files tell. No weights are loaded.

    Raises:
        ValueError: it is no detector, or names not all classes.
    """
    labels = detector_labels(component)
    if labels is not None:
        check_classes(name, labels, asked_classes(records))


def detector_of_component(
    name: str, component: Component, records: Sequence[Record], min_score: float, colors: ColorClassifier
) -> Detector:
    """A component as a detector of the classes of these prompts.

    Raises:
        ValueError: it cannot be read, or does not know a class that a prompt speaks of.
    """
    from darkroom.components.files import fingerprint
    from darkroom.components.object_detector import load_object_detector

    model, asked = load_object_detector(component), asked_classes(records)
    check_classes(name, model.labels, asked)

    def detect(picture: np.ndarray) -> list[Detection]:
        return [
            Detection(as_asked(found.label, asked), found.box, found.score, found.mask)
            for found in model.detect(picture, min_score)
        ]

    told = {"sha256": fingerprint(component), "takes": model.takes, "classes": list(model.labels)}
    return Detector(name, detect, colors, None, told)
