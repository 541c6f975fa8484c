"""How near drawn pictures come to real ones: the nearest real picture of each, by the cosine of their features.

A model that repeats its training pictures has cosines near 1; the table names the picture, to be looked at. What
cosine is a copy depends on the features, so none is said: compare with that of pictures which are known to be new.
"""

import numpy as np
import polars as pl

from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.distances import real_features
from darkroom.metrics.embeddings import drawn_features
from darkroom.metrics.features import WithFeatures
from darkroom.metrics.references import Statistics
from darkroom.store.drawn import KEYS

_ROWS = 1024


class NearestReal(WithFeatures):
    """The cosine of each drawn picture's features and those of the nearest real one."""


def nearest(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row of the nearest real picture, its cosine) of each generated one: int64 and float64, (generated,).

    Args:
        real, generated: features, float64, (pictures, dimensions); zeros have a cosine of 0 to everything.
    """
    ones, others = (
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (generated, real)
    )
    rows, cosines = [], []
    for start in range(0, len(ones), _ROWS):
        found = ones[start : start + _ROWS] @ others.T
        rows.append(found.argmax(axis=1))
        cosines.append(found.max(axis=1))
    return np.concatenate(rows), np.concatenate(cosines)


def measure(section: NearestReal, inputs: Inputs) -> Measured:
    """The nearest real picture of every picture."""
    real, of_real, words = real_features(section, inputs)
    assert inputs.references is not None and not isinstance(inputs.references, Statistics)
    names = np.array(inputs.references.called(section.num_reference_pictures), dtype=object)
    tables = []
    for model, drawn in inputs.drawn.items():
        features = drawn_features(section, inputs, model)
        encoder = features.encoder
        rows, cosines = nearest(real, features.values)
        found = {SPEC.column: cosines, f"{SPEC.column}_picture": names[rows].tolist()}
        tables.append(drawn.table().select(KEYS).with_columns(**{k: pl.Series(v) for k, v in found.items()}))
    protocol = {
        "definition": f"cosine to the nearest real picture, {encoder.words}, {words}",
        encoder.kind: dict(encoder.identity),
        **of_real,
        **section.named(encoder),
    }
    return Measured(pl.concat(tables), protocol)


SPEC = Metric(
    name="nearest_real",
    section=NearestReal,
    measure=measure,
    label="Cosine to the nearest real picture",
    direction="lower",
    digits=3,
    summary="mean",
    column="nearest_real",
    references=True,
)
