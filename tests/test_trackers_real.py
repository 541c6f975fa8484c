"""MLflow and Trackio themselves: a killed training is one run there, and nothing of a key is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fetched import installed_package

from darkroom.trackers.table import TRACKERS

# A training of three steps; the first process dies after two, the second repeats the second.
TRAIN = """
import json, os, sys
from pathlib import Path
import numpy as np
from darkroom.trackers.base import Tracked
from darkroom.trackers.table import TRACKERS
kind, options, first, last = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
tracker = TRACKERS[kind]
settings = {"train": {"num_steps": 3, "tags": []}, "seed": 0}
tracked = Tracked("demo", "0123456789ab", settings, Path("run"))
board = tracker.start(tracker.section(kind=kind, **options), tracked)
for step in range(first, last + 1):
    board.scalars(step, {"loss": 1 / step, "data/wait": 0.0})
    board.picture(step, np.full((8, 8, 3), step, np.uint8))
if last < 3:
    if kind == "trackio":
        import time
        time.sleep(2)  # it writes every half second
    os._exit(9)
board.close()
"""
MLFLOW = """
import json
from pathlib import Path
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=Path("run/mlflow").absolute().as_uri())
(run,) = client.search_runs([client.get_experiment_by_name("pictures").experiment_id])
found = {each.step: each.value for each in client.get_metric_history(run.info.run_id, "loss")}
files = [each.path for each in client.list_artifacts(run.info.run_id, "samples")]
print(json.dumps([run.info.run_name, run.info.status, run.data.params, found, sorted(files)]))
"""
TRACKIO = """
import json
import trackio
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("pictures")
rows = SQLiteStorage.get_logs("pictures", run.name)
found = {row["step"]: row["loss"] for row in rows if "loss" in row}
print(json.dumps([run.name, found]))
"""


@pytest.fixture
def environment(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    src = Path(__file__).parents[1] / "src"
    return {
        **os.environ,
        "PYTHONPATH": str(src),
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HF_HUB_OFFLINE": "1",
    }


def python(
    program: str, folder: Path, environment: dict[str, str], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


def trained(kind: str, options: dict[str, object], folder: Path, environment: dict[str, str]) -> None:
    killed = python(TRAIN, folder, environment, kind, json.dumps(options), "1", "2")
    assert killed.returncode == 9, killed.stderr
    done = python(TRAIN, folder, environment, kind, json.dumps(options), "2", "3")
    assert done.returncode == 0, done.stderr


@pytest.mark.real
def test_a_killed_training_is_one_run_of_mlflow(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> None:
    place = installed_package("mlflow-skinny==3.17.2", tmp_path_factory.getbasetemp())
    environment["PYTHONPATH"] += f"{os.pathsep}{place}"
    trained("mlflow", {"experiment": "pictures", "offline": True}, tmp_path, environment)
    environment["MLFLOW_ALLOW_FILE_STORE"] = "true"
    read = python(MLFLOW, tmp_path, environment)
    name, status, params, losses, files = json.loads(read.stdout.splitlines()[-1])
    assert (name, status) == ("demo", "FINISHED")
    assert params == {"train.num_steps": "3", "train.tags": "[]", "seed": "0"}
    assert losses == {"1": 1.0, "2": 0.5, "3": pytest.approx(1 / 3)}
    assert files == [f"samples/step-0000000{step}.png" for step in (1, 2, 3)]
    # Without an address it says what to set, and the training goes on without it.
    told = python(TRAIN, tmp_path, environment, "mlflow", "{}", "1", "3")
    assert (
        "MLFLOW_TRACKING_URI is not set: set it to a server's address, or write offline: true" in told.stderr
    )


@pytest.mark.real
def test_a_killed_training_is_one_run_of_trackio(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> None:
    place = installed_package("trackio==0.43.0", tmp_path_factory.getbasetemp())
    # Before ours, whose Pillow is too new for it.
    environment["PYTHONPATH"] = f"{place}{os.pathsep}{environment['PYTHONPATH']}"
    trained("trackio", {"project": "pictures"}, tmp_path, environment)
    read = python(TRACKIO, tmp_path, environment)
    assert read.returncode == 0, read.stderr
    name, losses = json.loads(read.stdout.splitlines()[-1])
    assert name == "demo-0123456789ab"
    assert losses == {"1": 1.0, "2": 0.5, "3": pytest.approx(1 / 3)}


@pytest.mark.parametrize("kind", ["mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_read_in_a_configuration_and_names_what_to_run(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("darkroom.settings.extras.find_spec", lambda name: None)
    assert TRACKERS[kind].section(kind=kind).kind == kind
    extra = TRACKERS[kind].extra
    assert extra is not None
    with pytest.raises(ValueError, match=rf"trackers: kind {kind} needs .*'\.\[{kind}\]'"):
        extra.require(f"trackers: kind {kind}")
