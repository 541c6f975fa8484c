"""What distances between drawn and real pictures share: features go in, one number a model comes out.

A distance means nothing without its features, the resize before them and the number of pictures, so its
protocol tells all of them.
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from darkroom.metrics.base import VARIANT, Inputs, Measured
from darkroom.metrics.embeddings import Compared, encode

Distance = Callable[[np.ndarray, np.ndarray], float]


def measure_distance(name: str, kind: str, distance: Distance, section: Compared, inputs: Inputs) -> Measured:
    """The distance of each model's pictures to the real ones, in the features of the section's network.

    Args:
        name: the column.
        kind: the distance in words, for the protocol.
        distance: (real, drawn) features, float64 (pictures, dimensions) -> distance.
    """
    encoder = section.encoder(inputs)
    assert inputs.references is not None, "a metric with references is given them"
    real = encode(
        encoder.images, inputs.references.pictures(section.num_reference_pictures), section.batch_size
    )
    rows, num_drawn = [], 0
    for model, drawn in inputs.drawn.items():
        features = encode(encoder.images, drawn.pictures(), section.batch_size)
        num_drawn = len(features)
        rows.append({"model": model, name: distance(real, features)})
    protocol = {
        "definition": f"{kind}, {encoder.words}, {len(real)} real, {num_drawn} generated",
        encoder.kind: dict(encoder.identity),
        "reference_pictures": len(real),
        **({VARIANT: encoder.variant} if encoder.variant else {}),
    }
    return Measured(pl.DataFrame(rows), protocol)


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
