"""Object detectors for GenEval, by name. A package adds one through the entry points `darkroom.detectors`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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
            more; a RuntimeError says that scores would mean nothing.
    """

    name: str
    detect: Callable[[np.ndarray], Sequence[Detection]]
    classify_color: ColorClassifier
    self_test: Callable[[int], Mapping[str, float]]


# Loaded when used: a detector may import much.
_ENTRIES = {entry.name: entry for entry in installed(GROUP)}
DETECTORS = tuple(_ENTRIES)


def load_detector(name: str) -> Detector:
    """The detector of that name, one of DETECTORS."""
    detector: Detector = _ENTRIES[name].load()
    return detector
