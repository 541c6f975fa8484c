"""What distances between drawn and real pictures share: features go in, one number a model comes out.

A distance means nothing without its features, the resize before them and the number of pictures, so its
protocol tells all of them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl

from darkroom.metrics.base import Inputs, Measured
from darkroom.metrics.embeddings import Compared, Encoder, encode
from darkroom.metrics.references import Statistics
from darkroom.store import sha256_json

Distance = Callable[[Any, np.ndarray], float]


def measure_distance(name: str, kind: str, distance: Distance, section: Compared, inputs: Inputs) -> Measured:
    """The distance of each model's pictures to the real ones, in the features of the section's network.

    Args:
        name: the column.
        kind: the distance in words, for the protocol.
        distance: (real, drawn) features, float64 (pictures, dimensions) -> distance. Of a metric with `statistics`
            the real ones may be a `Gaussian`.
    """
    encoder = section.encoder(inputs)
    real, of_real, words = real_features(encoder, section, inputs)
    rows, num_drawn = [], 0
    for model in inputs.drawn:
        features = drawn_features(encoder, section, inputs, model)
        num_drawn = len(features)
        rows.append({"model": model, name: distance(real, features)})
    protocol = {
        "definition": f"{kind}, {encoder.words}, {words}, {num_drawn} generated",
        encoder.kind: dict(encoder.identity),
        **of_real,
        **encoder.named,
    }
    return Measured(pl.DataFrame(rows), protocol)


def real_features(encoder: Encoder, section: Compared, inputs: Inputs) -> tuple[Any, dict[str, Any], str]:
    """Of the real pictures: features or a Gaussian, and what the protocol tells of them, as keys and in words."""
    found, number = inputs.references, section.num_reference_pictures
    if isinstance(found, Statistics):
        told = {"reference_statistics": found.sha256}
        return found.gaussian, told, f"statistics {found.sha256[:12]} of real pictures"
    assert found is not None, "a metric with references is given them"
    features = _features(encoder, section, inputs, ["real", number], lambda: found.pictures(number))
    return features, {"reference_pictures": len(features)}, f"{len(features)} real"


def drawn_features(encoder: Encoder, section: Compared, inputs: Inputs, model: str) -> np.ndarray:
    """Features of a model's pictures in their order: float64, (pictures, dimensions)."""
    return _features(encoder, section, inputs, ["drawn", model], inputs.drawn[model].pictures)


def _features(
    encoder: Encoder,
    section: Compared,
    inputs: Inputs,
    whose: list[Any],
    pictures: Callable[[], Iterator[np.ndarray]],
) -> np.ndarray:
    key = sha256_json([encoder.kind, dict(encoder.identity), *whose])
    if key not in inputs.features:
        inputs.features[key] = encode(encoder.images, pictures(), section.batch_size)
    return inputs.features[key]


def checked(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64.

    Raises:
        ValueError: they are no (pictures, dimensions) of one length with two rows or more each.
    """
    for name, features in (("real", real), ("generated", generated)):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(
                f"{name} features are {features.shape}; two or more rows of one length are needed"
            )
    if real.shape[1] != generated.shape[1]:
        raise ValueError(f"real features have {real.shape[1]} dimensions, generated {generated.shape[1]}")
    return np.ascontiguousarray(real, np.float64), np.ascontiguousarray(generated, np.float64)
