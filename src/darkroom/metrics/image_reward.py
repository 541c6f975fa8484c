"""ImageReward: how well people would find that a picture fits its prompt, as a BLIP learned it (arXiv 2304.05977).

As the authors' package tells it: the reward less its mean over their data, by its standard deviation.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from darkroom.components.base import ComponentOf
from darkroom.imports import quick_imports
from darkroom.metrics.base import VARIANT, Inputs, Measured, Metric
from darkroom.settings.base import Section
from darkroom.store.drawn import KEYS


class ImageReward(Section):
    """ImageReward: how well pictures fit their prompts and please, by a BLIP with its weights."""

    weights: Annotated[str, ComponentOf("image_reward")] = Field(
        description="name of an image_reward in config/components.yaml"
    )
    batch_size: int = Field(32, ge=1, description="pictures a forward pass")


def measure(section: ImageReward, inputs: Inputs) -> Measured:
    """The reward of every picture."""
    with quick_imports():
        from darkroom.components.files import fingerprint
        from darkroom.components.image_reward import MEAN, RESIZED, STD, load_image_reward

    component = inputs.components[section.weights]
    network = load_image_reward(component)
    tables = []
    for drawn in inputs.drawn.values():
        table = drawn.table().select(KEYS)
        prompts = [inputs.records[index]["prompt"] for index in table["prompt_index"]]
        rewards: list[float] = []
        for pictures, texts in _batches(drawn.pictures(), iter(prompts), section.batch_size):
            rewards += network.rewards(pictures, texts).tolist()
        tables.append(table.with_columns(image_reward=pl.Series(rewards, dtype=pl.Float64)))
    protocol = {
        "definition": f"reward of picture and prompt, less its mean, by its deviation, weights {section.weights}",
        VARIANT: section.weights,
        "image_reward": {
            "name": section.weights,
            "sha256": fingerprint(component),
            "resize": RESIZED.format(network.image_size),
        },
        "mean": MEAN,
        "std": STD,
    }
    return Measured(pl.concat(tables), protocol)


def _batches(
    pictures: Iterator[np.ndarray], prompts: Iterator[str], size: int
) -> Iterator[tuple[list[np.ndarray], list[str]]]:
    while batch := list(islice(pictures, size)):
        yield batch, list(islice(prompts, len(batch)))


SPEC = Metric(
    name="image_reward",
    section=ImageReward,
    measure=measure,
    label="ImageReward",
    direction="higher",
    digits=3,
    summary="mean",
    column="image_reward",
)
