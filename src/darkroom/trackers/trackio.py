"""`kind: trackio`: Trackio, whose files lie on this machine (TRACKIO_DIR), and with `space` on Hugging Face too.

The key of a Space is the environment's HF_TOKEN, or what `hf auth login` has kept.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from darkroom.settings.extras import Extra
from darkroom.trackers.base import Tracked, Tracker, TrackerSection

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class TrackioTracker(TrackerSection):
    """Trackio: one run there for one training, which restarts and requeued jobs go on with."""

    kind: Literal["trackio"]
    project: str = Field("darkroom", min_length=1, description="project there")
    space: str | None = Field(
        None,
        description="Space of Hugging Face that shows it, made as a private one; null: this machine alone",
    )


class _Board:
    def __init__(self, section: TrackioTracker, tracked: Tracked) -> None:
        import trackio

        self._image, self._finish = trackio.Image, trackio.finish
        self._run: Any = trackio.init(
            project=section.project,
            name=f"{tracked.run}-{tracked.key}",
            space_id=section.space,
            private=True,
            config=dict(tracked.settings),
            # A requeued job is the same run.
            resume="allow",
            embed=False,
            # Nothing of the machine is told.
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, picture: "npt.NDArray[np.uint8]") -> None:
        self._run.log({"samples": self._image(picture)}, step=step)

    def close(self) -> None:
        self._finish()


SPEC = Tracker("trackio", TrackioTracker, _Board, Extra("trackio", "trackio"))
