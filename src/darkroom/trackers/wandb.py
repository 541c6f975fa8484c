"""`kind: wandb`: Weights & Biases. Its key is the environment's WANDB_API_KEY, or what `wandb login` has kept."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from darkroom.trackers.base import Tracked, Tracker, TrackerSection

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class WandbTracker(TrackerSection):
    """Weights & Biases: one run there for one training, which restarts and requeued jobs go on with."""

    kind: Literal["wandb"]
    project: str = Field("darkroom", min_length=1, description="project there")
    entity: str | None = Field(None, description="team or user; null: the key's own")
    offline: bool = Field(
        False,
        description="send nothing, write files below checkpoints/ for `wandb sync`, as on nodes without a network",
    )


class _Board:
    def __init__(self, section: WandbTracker, tracked: Tracked) -> None:
        import wandb

        self._image = wandb.Image
        self._run: Any = wandb.init(
            project=section.project,
            entity=section.entity,
            id=f"{tracked.run}-{tracked.key}",
            name=tracked.run,
            config=dict(tracked.settings),
            dir=str(tracked.folder),
            mode="offline" if section.offline else "online",
            # A requeued job is the same run.
            resume="allow",
            # Neither what the job prints nor its code leaves the machine.
            settings=wandb.Settings(console="off", disable_git=True, save_code=False, silent=True),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, picture: "npt.NDArray[np.uint8]") -> None:
        self._run.log({"samples": self._image(picture)}, step=step)

    def close(self) -> None:
        self._run.finish()


SPEC = Tracker("wandb", WandbTracker, _Board)
