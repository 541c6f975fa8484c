"""The table of trackers: `trackers` of a run lists some.

Other packages add theirs by an entry point of the group `darkroom.trackers`, see `darkroom.kinds`.
"""

from typing import Any

from darkroom.kinds import table
from darkroom.trackers import mlflow, trackio, wandb
from darkroom.trackers.base import Tracker

TRACKERS: dict[str, Tracker[Any]] = table("darkroom.trackers", wandb.SPEC, mlflow.SPEC, trackio.SPEC)
