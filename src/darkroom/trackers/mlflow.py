"""`kind: mlflow`: MLflow, on the server that the environment's MLFLOW_TRACKING_URI names, or into files.

What a server asks for is in the environment too: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from darkroom.differences import dotted
from darkroom.settings.extras import Extra
from darkroom.trackers.base import Tracked, Tracker, TrackerSection

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_URI, _FILES_ALLOWED = "MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"
# How a training finds its run there again.
_TAG = "darkroom.training"
# A server refuses longer values of parameters.
_MAX_PARAM = 6000


class MlflowTracker(TrackerSection):
    """MLflow: one run there for one training, which restarts and requeued jobs go on with."""

    kind: Literal["mlflow"]
    experiment: str = Field("darkroom", min_length=1, description="experiment there; made where it is not")
    offline: bool = Field(
        False,
        description="send nothing, write files below checkpoints/, which `mlflow migrate-filestore` puts into a"
        " database",
    )


class _Board:
    """Asks MLflow's client alone, so that nothing of the process's other uses of MLflow is changed."""

    def __init__(self, section: MlflowTracker, tracked: Tracked) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # asked for at its import
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        self._metric = Metric
        self._client: Any = MlflowClient(tracking_uri=_uri(section, tracked.folder))
        name = f"{tracked.run}-{tracked.key}"
        experiment = self._client.get_experiment_by_name(section.experiment)
        number = (
            experiment.experiment_id if experiment else self._client.create_experiment(section.experiment)
        )
        known = self._client.search_runs([number], f"tags.`{_TAG}` = '{name}'", max_results=1)
        if known:
            self._run = known[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._client.create_run(number, tags={_TAG: name}, run_name=tracked.run).info.run_id
            for key, value in dotted(tracked.settings).items():
                self._client.log_param(self._run, key, value[:_MAX_PARAM])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        # All at one time, as a restart repeats steps: a database keeps one of two equal rows.
        self._client.log_batch(self._run, [self._metric(k, v, 0, step) for k, v in values.items()])

    def picture(self, step: int, picture: "npt.NDArray[np.uint8]") -> None:
        self._client.log_image(self._run, picture, f"samples/step-{step:08d}.png")

    def close(self) -> None:
        self._client.set_terminated(self._run)


def _uri(section: MlflowTracker, folder: Path) -> str:
    """Where runs go.

    Raises:
        ValueError: nothing says where.
    """
    if section.offline:
        os.environ.setdefault(_FILES_ALLOWED, "true")  # MLflow asks for it since 3.7
        return (folder / "mlflow").absolute().as_uri()
    if not (uri := os.environ.get(_URI)):
        raise ValueError(f"{_URI} is not set: set it to a server's address, or write offline: true")
    return uri


SPEC = Tracker("mlflow", MlflowTracker, _Board, Extra("mlflow", "mlflow"))
