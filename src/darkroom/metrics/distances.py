"""What distances between drawn and real pictures share: features go in, one number a model comes out.

A distance means nothing without its features, the resize before them and the number of pictures, so its
protocol tells all of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from darkroom.metrics.base import Inputs, Measured
from darkroom.metrics.embeddings import Compared, drawn_features
from darkroom.metrics.extracted import REAL, Asked
from darkroom.metrics.references import Statistics

Distance = Callable[[Any, np.ndarray], float]


def measure_distance(name: str, kind: str, distance: Distance, section: Compared, inputs: Inputs) -> Measured:
    """The distance of each model's pictures to the real ones, in the features of the section's network.

    Args:
        name: the column.
        kind: the distance in words, for the protocol.
        distance: (real, drawn) features, float64 (pictures, dimensions) -> distance. Of a metric with `statistics`
            the real ones may be a `Gaussian`.
    """
    real, of_real, words = real_features(section, inputs)
    drawn = {model: drawn_features(section, inputs, model) for model in inputs.drawn}
    rows = [{"model": model, name: distance(real, found.values)} for model, found in drawn.items()]
    *_, last = drawn.values()
    encoder = last.encoder
    protocol = {
        "definition": f"{kind}, {encoder.words}, {words}, {len(last.features)} generated",
        encoder.kind: dict(encoder.identity),
        **of_real,
        **section.named(encoder),
    }
    return Measured(pl.DataFrame(rows), protocol)


def real_features(section: Compared, inputs: Inputs) -> tuple[Any, dict[str, Any], str]:
    """Of the real pictures: features or a Gaussian, and what the protocol tells of them, as keys and in words."""
    found, number, extractor = inputs.references, section.num_reference_pictures, section.extractor
    if isinstance(found, Statistics):
        told = {"reference_statistics": found.sha256}
        return found.gaussian, told, f"statistics {found.sha256[:12]} of real pictures"
    assert found is not None, "a metric with references is given them"
    asked, component = Asked(extractor, REAL, number), inputs.components[extractor.component]
    features = inputs.features.get(asked, component, lambda: found.pictures(number)).values
    return features, {"reference_pictures": len(features)}, f"{len(features)} real"


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
