"""Features of pictures for metrics, of drawn ones and of real ones; and those of a CLIP, of prompts too."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np
from pydantic import Field

from darkroom.components.base import ComponentOf
from darkroom.imports import quick_imports
from darkroom.metrics.base import VARIANT, Inputs
from darkroom.settings.base import Section


class WithClip(Section):
    """A metric on embeddings."""

    clip: Annotated[str, ComponentOf("clip")] = Field(description="name of a CLIP in config/components.yaml")
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")


class Images(Protocol):
    """A network that sees pictures."""

    def encode_images(self, pictures: Sequence[np.ndarray]) -> Any:
        """uint8 (height, width, 3) pictures of any sizes -> (pictures, dimensions)."""


@dataclass(frozen=True)
class Encoder:
    """What makes features of pictures, and what tells it from another.

    Attributes:
        kind: of its component, under which the protocol names it.
        images: the network.
        identity: its name, its files, its resize.
        words: these for the protocol's definition.
        variant: what of them belongs to the name of a distance.
    """

    kind: str
    images: Images
    identity: Mapping[str, str]
    words: str
    variant: str = ""

    @property
    def named(self) -> dict[str, str]:
        """What a protocol tells of its variant."""
        return {VARIANT: self.variant} if self.variant else {}


class Compared(Section):
    """A distance to real pictures. Those who inherit say in which features."""

    if TYPE_CHECKING:
        batch_size: int
        num_reference_pictures: int

    @abstractmethod
    def encoder(self, inputs: Inputs) -> Encoder:
        """The network that the section names, loaded."""


class WithReferences(WithClip, Compared):
    """A distance to real pictures in the features of a CLIP."""

    num_reference_pictures: int = Field(1000, ge=2, description="real pictures, the first so many by uid")

    def encoder(self, inputs: Inputs) -> Encoder:
        """See `Compared`."""
        clip, identity = load(self, inputs)
        return Encoder("clip", clip, identity, f"{self.clip}, {identity['resize']}")


class Clip(Images, Protocol):
    """What a metric needs of a CLIP."""

    def encode_texts(self, texts: Sequence[str]) -> Any:
        """Texts -> (texts, dimensions)."""


def load(section: WithClip, inputs: Inputs) -> tuple[Any, dict[str, str]]:
    """The section's CLIP (a `Clip`), and what tells it from another: its name, its files and its resize."""
    with quick_imports():
        from darkroom.components.clip import load_clip
        from darkroom.components.files import fingerprint

    component = inputs.components[section.clip]
    clip = load_clip(component)
    resize = f"shorter side bicubic to {clip.image_size} px, centre crop"
    return clip, {"name": section.clip, "sha256": fingerprint(component), "resize": resize}


def encode(images: Images, pictures: Iterable[np.ndarray], batch_size: int) -> np.ndarray:
    """Features of pictures, encoded a batch at a time: float64, (pictures, dimensions)."""
    waiting, features = iter(pictures), []
    while batch := list(islice(waiting, batch_size)):
        features.append(np.asarray(images.encode_images(batch), np.float64))
    return np.concatenate(features)
