"""CLIP embeddings for metrics: of drawn pictures, of real ones and of prompts."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import Field

from darkroom.components.base import ComponentOf
from darkroom.imports import quick_imports
from darkroom.metrics.base import Inputs
from darkroom.metrics.references import choose, read_references
from darkroom.settings.base import Section


class WithClip(Section):
    """A metric on embeddings."""

    clip: Annotated[str, ComponentOf("clip")] = Field(description="name of a CLIP in config/components.yaml")
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")


class WithReferences(WithClip):
    """A distance to real pictures."""

    num_reference_pictures: int = Field(1000, ge=2, description="real pictures, the first so many by uid")


class Clip(Protocol):
    """What a metric needs of a CLIP."""

    def encode_images(self, pictures: Sequence[np.ndarray]) -> Any:
        """uint8 (height, width, 3) pictures of any sizes -> (pictures, dimensions)."""

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


def encode(clip: Clip, pictures: Iterable[np.ndarray], batch_size: int) -> np.ndarray:
    """Features of pictures, encoded a batch at a time: float64, (pictures, dimensions)."""
    waiting, features = iter(pictures), []
    while batch := list(islice(waiting, batch_size)):
        features.append(np.asarray(clip.encode_images(batch), np.float64))
    return np.concatenate(features)


def encode_references(clip: Clip, section: WithReferences, inputs: Inputs) -> np.ndarray:
    """Features of the real pictures: float64, (pictures, dimensions)."""
    assert inputs.references is not None, "a metric with references is given them"
    chosen = choose(inputs.references, section.num_reference_pictures)
    return encode(clip, read_references(inputs.references, chosen), section.batch_size)
