"""How well drawn pictures please people, whatever their prompts, as LAION's linear heads on a CLIP predict it.

The same as the scorer of that name says of a dataset's pictures, so both may be compared.
"""

from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from darkroom.components.base import ComponentOf
from darkroom.imports import quick_imports
from darkroom.metrics.base import Inputs, Measured, Metric
from darkroom.metrics.embeddings import WithClip, drawn_features


class Aesthetic(WithClip):
    """How well pictures please, about 1 to 10, by a linear head on CLIP embeddings."""

    head: Annotated[str, ComponentOf("aesthetic_head")] = Field(
        description="name of an aesthetic_head in config/components.yaml, one trained on this CLIP"
    )


def measure(section: Aesthetic, inputs: Inputs) -> Measured:
    """The score of every picture.

    Raises:
        ValueError: the head is none, or takes another CLIP's embeddings.
    """
    with quick_imports():
        import torch

        from darkroom.components.aesthetic_head import load_head, predicted
        from darkroom.components.files import fingerprint

    layers = load_head(inputs.components[section.head])
    tables = []
    for model, drawn in inputs.drawn.items():
        found = drawn_features(section, inputs, model)
        features = torch.from_numpy(found.features.astype(np.float32))
        fits = predicted(layers, features, section.head, section.clip)
        table = drawn.table().select("model", "prompt_index", "picture")
        tables.append(table.with_columns(aesthetic=pl.Series(fits.numpy(), dtype=pl.Float64)))
    head = {"name": section.head, "sha256": fingerprint(inputs.components[section.head])}
    definition = f"linear head {section.head} on {section.clip}"
    protocol = {"definition": definition, "clip": dict(found.encoder.identity), "head": head}
    return Measured(pl.concat(tables), protocol)


SPEC = Metric(
    name="aesthetic",
    section=Aesthetic,
    measure=measure,
    label="Aesthetic",
    direction="higher",
    digits=2,
    summary="mean",
    column="aesthetic",
    prompts=False,
)
