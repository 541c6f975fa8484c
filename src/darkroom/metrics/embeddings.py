"""Features of pictures for metrics, of drawn ones and of real ones; and those of a CLIP, of prompts too."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np
import polars as pl
from pydantic import Field

from darkroom.components.base import ComponentOf
from darkroom.metrics.base import VARIANT, Inputs
from darkroom.metrics.extracted import REAL, Asked, Extracted
from darkroom.metrics.extractor import Encoder, Extractor, Images
from darkroom.settings.base import Section


class Featured(Section):
    """A metric that looks at pictures by the features of a network. Those who inherit say which."""

    if TYPE_CHECKING:
        batch_size: int

    @property
    @abstractmethod
    def extractor(self) -> Extractor:
        """What makes the features."""


class WithClip(Featured):
    """A metric on embeddings."""

    clip: Annotated[str, ComponentOf("clip")] = Field(description="name of a CLIP in config/components.yaml")
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")

    @property
    def extractor(self) -> Extractor:
        """See `Featured`."""
        return Extractor("clip", self.clip, self.batch_size)


class Compared(Featured):
    """A distance to real pictures."""

    if TYPE_CHECKING:
        num_reference_pictures: int

    def named(self, encoder: Encoder) -> dict[str, str]:
        """What the protocol tells of the encoder that belongs to the distance's name."""
        return {VARIANT: encoder.variant} if encoder.variant else {}


class WithReferences(WithClip, Compared):
    """A distance to real pictures in the features of a CLIP."""

    num_reference_pictures: int = Field(1000, ge=2, description="real pictures, the first so many by uid")


class Clip(Images, Protocol):
    """What a metric needs of a CLIP."""

    def encode_texts(self, texts: Sequence[str]) -> Any:
        """Texts -> (texts, dimensions)."""


def asked_features(section: Section, has_references: bool, models: Iterable[str]) -> list[Asked]:
    """The features that a metric asks for, of each model's pictures and, with references, of real ones."""
    if not isinstance(section, Featured):
        return []
    asked = [Asked(section.extractor, model) for model in models]
    if has_references and isinstance(section, Compared):
        asked.append(Asked(section.extractor, REAL, section.num_reference_pictures))
    return asked


def drawn_features(section: Featured, inputs: Inputs, model: str) -> Extracted:
    """Features of a model's pictures, in their order."""
    extractor = section.extractor
    component = inputs.components[extractor.component]
    return inputs.features.get(Asked(extractor, model), component, inputs.drawn[model].pictures)


def load(section: WithClip, inputs: Inputs) -> tuple[Any, dict[str, str]]:
    """The section's CLIP (a `Clip`), on the GPU where there is one, and what tells it from another."""
    clip, encoder = inputs.features.network(section.extractor, inputs.components[section.clip])
    return clip, dict(encoder.identity)


def with_prompts(
    name: str,
    section: WithClip,
    inputs: Inputs,
    clip: Clip,
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> pl.DataFrame:
    """A metric's table with the column `name`: `score` of the embeddings of every picture and its prompt, float64
    (pictures, dimensions) each."""
    texts = np.asarray(clip.encode_texts([record["prompt"] for record in inputs.records]), np.float64)
    tables = []
    for model, drawn in inputs.drawn.items():
        table = drawn.table().select("model", "prompt_index", "picture")
        features = drawn_features(section, inputs, model).values
        fits = score(features, texts[table["prompt_index"].to_numpy()])
        tables.append(table.with_columns(pl.Series(name, fits)))
    return pl.concat(tables)


def cosines(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Of every picture and its text: float64, (pictures,).

    Args:
        images, texts: embeddings, float, (pictures, dimensions); normalised here.

    Raises:
        ValueError: there are not as many texts as pictures.
    """
    if images.shape != texts.shape:
        raise ValueError(f"picture embeddings are {images.shape}, text embeddings {texts.shape}")
    return np.asarray((_unit(images) * _unit(texts)).sum(axis=1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
