"""CLIPScore: how well pictures fit their prompts (Hessel et al., arXiv 2104.08718).

100 times the cosine, no prefix before the prompt, each picture's score clamped at 0. Numbers of different
CLIPs, scales or prefixes do not compare: the protocol records the model beside the score.
"""

import numpy as np
import polars as pl

from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.embeddings import WithClip, encode, load


class ClipScore(WithClip):
    """CLIPScore: how well pictures fit their prompts."""


def clip_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """100 max(cos, 0) of every picture and its prompt: float64, (pictures,).

    Args:
        images, texts: embeddings, float, (pictures, dimensions); normalised here.

    Raises:
        ValueError: there are not as many texts as pictures.
    """
    if images.shape != texts.shape:
        raise ValueError(f"picture embeddings are {images.shape}, text embeddings {texts.shape}")
    cosines = (_unit(images) * _unit(texts)).sum(axis=1)
    return 100 * np.maximum(cosines, 0)


def measure(section: ClipScore, inputs: Inputs) -> Measured:
    """The score of every picture."""
    clip, identity = load(section, inputs)
    texts = np.asarray(clip.encode_texts([record["prompt"] for record in inputs.records]), np.float64)
    tables = []
    for drawn in inputs.drawn.values():
        table = drawn.table().select("model", "prompt_index", "picture")
        features = encode(clip, drawn.pictures(), section.batch_size)
        fits = clip_scores(features, texts[table["prompt_index"].to_numpy()])
        tables.append(table.with_columns(clip_score=pl.Series(fits)))
    definition = f"100 max(cos, 0), {section.clip}, no prefix"
    return Measured(pl.concat(tables), {"definition": definition, "clip": identity})


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


SPEC = Metric(
    name="clip_score",
    section=ClipScore,
    measure=measure,
    label="CLIPScore",
    direction="higher",
    digits=1,
    summary="mean",
    column="clip_score",
)
