"""What a tracker is: one spec with its section of the configuration, and how it is started.

Its file is read with the configuration, by jobs that need no torch as well: import what is heavy inside functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, get_args

from darkroom.settings.base import Section
from darkroom.settings.extras import Extra

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class TrackerSection(Section):
    """One of `trackers` of a run. Each kind's own adds `kind` and more."""

    if TYPE_CHECKING:
        kind: str


class Board(Protocol):
    """Shows curves and pictures. What it raises is told once, and does not end the training."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after `step` completed steps; steps that a restart repeats come again, with the same losses."""

    def picture(self, step: int, picture: "npt.NDArray[np.uint8]") -> None:
        """A picture (H, W, 3) drawn after `step` steps."""

    def close(self) -> None:
        """Write out what is still held back."""


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told of a training.

    Args:
        run: its name.
        key: tells it from the same run with other options; a restart has the same one.
        settings: its train stage's settings.
        folder: its run directory, where a tracker may keep files.
    """

    run: str
    key: str
    settings: Mapping[str, Any]
    folder: Path


SectionT = TypeVar("SectionT", bound=TrackerSection)


@dataclass(frozen=True)
class Tracker(Generic[SectionT]):
    """A kind of tracker.

    Args:
        name: what `kind` says.
        section: its section of the configuration, whose `kind` is the literal `name`.
        start: (section, training) -> the board. Called by rank 0 when the training starts or goes on.
        extra: packages that it needs beyond darkroom's own; where they are missing no training starts.
    """

    name: str
    section: type[SectionT]
    start: Callable[[SectionT, Tracked], Board]
    extra: Extra | None = None

    def __post_init__(self) -> None:
        if get_args(self.section.model_fields["kind"].annotation) != (self.name,):
            raise ValueError(
                f"{self.section.__name__}.kind should be Literal[{self.name!r}], as its spec is named"
            )
