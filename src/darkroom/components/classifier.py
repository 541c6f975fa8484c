"""What an image classifier is to a scorer, whatever runs it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor


class ImageClassifier(ABC):
    """A model with its preprocessing.

    Args:
        labels: the names of its classes, in the order of its outputs.
        is_multi_label: whether classes are judged apart (sigmoid), or one of them is true (softmax).
        where: what messages call it.
    """

    def __init__(self, labels: Sequence[str], is_multi_label: bool, where: str) -> None:
        self.labels, self.is_multi_label, self.where = tuple(labels), is_multi_label, where

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

    @property
    @abstractmethod
    def takes(self) -> dict[str, Any]:
        """How pictures come to it, as plain values, for manifests."""

    @abstractmethod
    def probabilities(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB arrays (height, width, 3) of any sizes -> float32 (B, classes), on the CPU."""
