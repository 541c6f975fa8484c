"""What a metric is: its section of the configuration, what it looks at, how it measures, what reports call it."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl

from darkroom.benchmarks.base import Record
from darkroom.components.base import Component
from darkroom.metrics.references import RealPictures, Statistics
from darkroom.settings.base import Section

# by_task: each task's share, their mean and that of all pictures; mean: of all pictures; distance: one number of
# a whole set of pictures.
Summary = Literal["by_task", "mean", "distance"]

VARIANT = "variant"
"""The key of a protocol under which stands what of it belongs to the metric's name, such as a resize."""


class DrawnPictures(Protocol):
    """The pictures of one model, see `darkroom.store.drawn.Drawn`."""

    def table(self) -> pl.DataFrame:
        """A row for each picture: `model`, `prompt_index` (its record), `picture` and more."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the first picture."""

    def pictures(self) -> Iterator[np.ndarray]:
        """uint8 (height, width, 3), RGB, in the order of `table`."""


@dataclass(frozen=True)
class Inputs:
    """What a metric may look at.

    Attributes:
        drawn: model -> its pictures, the same prompts and numbers of each.
        records: the prompts, in their order.
        components: the components that the metric's section names.
        references: real pictures, or of a metric with `statistics` what is known of them; None unless the metric
            asks for them.
        features: those that were made already, for metrics that are measured one after the other.
    """

    drawn: Mapping[str, DrawnPictures]
    records: Sequence[Record]
    components: Mapping[str, Component] = field(default_factory=dict)
    references: RealPictures | Statistics | None = None
    features: MutableMapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a metric found.

    Attributes:
        table: a row for each picture (model, prompt_index, picture, and the metric's columns; null where it
            says nothing of a prompt), or for a distance a row for each model (model, and its column).
        protocol: all that the numbers depend on besides the pictures; `definition` says it in words.
        counts: for the manifest.
    """

    table: pl.DataFrame
    protocol: Mapping[str, Any]
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A kind of score.

    Attributes:
        name: its key in the configuration, in metrics.json and in protocols.
        section: its options.
        measure: (section, inputs) -> what it found.
        label: what reports call it.
        direction: which numbers are better.
        digits: decimals in reports; of a share, of its percentage.
        summary: how its values become scores.
        column: the one of its columns that is scored.
        references: whether it looks at real pictures.
        statistics: whether their mean and covariance will do.
        silent_on: why it says nothing of these prompts, or "" where it does.
    """

    name: str
    section: type[Section]
    measure: Callable[[Any, Inputs], Measured]
    label: str
    direction: Literal["higher", "lower"]
    digits: int
    summary: Summary
    column: str
    references: bool = False
    statistics: bool = False
    silent_on: Callable[[Sequence[Record]], str] = lambda records: ""

    def named(self, protocol: Mapping[str, Any]) -> "Metric":
        """Itself, with what of a protocol belongs to its name in its label."""
        return replace(self, label=f"{self.label} ({protocol[VARIANT]})") if VARIANT in protocol else self
