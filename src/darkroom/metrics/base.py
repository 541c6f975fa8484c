"""What a metric is: its section of the configuration, what it looks at, how it measures, what reports call it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl

from darkroom.benchmarks.base import Record
from darkroom.components.base import Component
from darkroom.metrics.extracted import Features
from darkroom.metrics.references import RealPictures, Statistics
from darkroom.settings.base import Section

# by_task: each task's share, their mean and that of all pictures; mean: of all pictures; parts: the same of each
# of several columns; distance: one number of a whole set of pictures.
Summary = Literal["by_task", "mean", "parts", "distance"]

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

    def picture(self, place: int) -> np.ndarray:
        """The one of a row of `table`; on any thread."""

    @property
    def sha256(self) -> str:
        """Of all pictures."""


@dataclass(frozen=True)
class Inputs:
    """What a metric may look at.

    Attributes:
        drawn: model -> its pictures, the same prompts and numbers of each.
        records: the prompts, in their order.
        components: the components that the metric's section names.
        references: real pictures, or of a metric with `statistics` what is known of them; None unless the metric
            asks for them.
        features: those of the pictures, each computed once for all metrics that are given the same `Features`.
        scratch: a folder that a metric may make and keep things in until it is measured; it is there again, as it
            was left, where a job goes on after another that was killed. None: nothing is kept.
    """

    drawn: Mapping[str, DrawnPictures]
    records: Sequence[Record]
    components: Mapping[str, Component] = field(default_factory=dict)
    references: RealPictures | Statistics | None = None
    features: Features = field(default_factory=Features)
    scratch: Path | None = None


@dataclass(frozen=True)
class Measured:
    """What a metric found.

    Attributes:
        table: a row for each picture (model, prompt_index, picture, and the metric's columns; null where it
            says nothing of a prompt), or for a distance a row for each model (model, and its column).
        protocol: all that the numbers depend on besides the pictures; `definition` says it in words.
        counts: for the manifest; with `failed` in it, `Inputs.scratch` is kept, so that only that is done again.
    """

    table: pl.DataFrame
    protocol: Mapping[str, Any]
    counts: Mapping[str, Any] = field(default_factory=dict)


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
        column: the one of its columns that is scored; of parts, the first.
        parts: of parts, each column that is scored, and what reports call it behind the label. Columns named as
            such a one, a full stop and a word more (`score.color`) are scored too, and called by that word.
        references: whether it looks at real pictures.
        prompts: whether it looks at prompts, where it does not at real pictures.
        statistics: whether their mean and covariance will do.
        silent_on: why it says nothing of these prompts, or "" where it does.
        check: (section, prompts, components) -> a ValueError, before any job, where it cannot be measured on them:
            it names the key, and what would be right. Nothing heavy is imported or read.
        missing: section -> what jobs need that is not on this machine, as a variable of the environment; "" for
            nothing. `snakemake -n` warns of it, as jobs may run elsewhere.
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
    prompts: bool = True
    statistics: bool = False
    parts: Mapping[str, str] = field(default_factory=dict)
    silent_on: Callable[[Sequence[Record]], str] = lambda records: ""
    check: Callable[[Any, Sequence[Record], Mapping[str, Component]], None] = lambda *_: None
    missing: Callable[[Any], str] = lambda section: ""

    @property
    def reads_prompts(self) -> bool:
        """Whether pictures without a prompt have no score."""
        return self.prompts and not self.references

    @property
    def is_nested(self) -> bool:
        """Whether it has several scores, which stand together under its name."""
        return self.summary in ("by_task", "parts")

    def scored(self, names: Iterable[str]) -> dict[str, str]:
        """Of parts: column -> what reports call it, of those among `names`."""
        given = list(names)
        inner = [name.partition(".") for name in given]
        words = {f"{part}.{word}": word for part, _, word in inner if word and part in self.parts}
        return {name: label for name, label in {**self.parts, **words}.items() if name in given}

    @property
    def main_score(self) -> str:
        """The key of its one number: of a nested metric among its own scores, else among those of all."""
        return {"by_task": "overall", "parts": self.column}.get(self.summary, self.name)

    def named(self, protocol: Mapping[str, Any]) -> "Metric":
        """Itself, with what of a protocol belongs to its name in its label."""
        return replace(self, label=f"{self.label} ({protocol[VARIANT]})") if VARIANT in protocol else self
