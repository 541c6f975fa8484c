"""Curves of a training where people look at them: the same numbers, one run, and never the training's end."""

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from pydantic import ValidationError
from test_train_loop import Killed, cache, changed, kill_at, make_models, run  # noqa: F401 - a fixture
from wandb.proto import wandb_internal_pb2

from darkroom.config import load_project
from darkroom.config.run import Run
from darkroom.stages import STAGES, stage_settings
from darkroom.trackers.base import Tracked
from darkroom.trackers.table import TRACKERS
from darkroom.trackers.wandb import WandbTracker
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun

ROOT = Path(__file__).parents[1]
SETTINGS = changed(num_steps=8, checkpoint_every_steps=3, log_every_steps=2, sample_every_steps=4)
OFFLINE = WandbTracker(kind="wandb", project="pictures", offline=True)


def train(cache: Any, folder: Path, boards: dict[str, Any], on_sample: Any = None) -> tuple[Any, list[str]]:  # noqa: F811
    """(history, what the log tells)."""
    lines: list[str] = []
    training = Training(cache, *make_models(cache), SETTINGS, seed=0)
    run_of = TrainingRun(folder, log=lines.append, on_sample=on_sample, boards=boards)
    return Trainer(training, run_of).train().rows, lines


def records(file: Path) -> list[Any]:
    """What W&B wrote: LevelDB's log format (blocks of 32 KiB, records of CRC, length and type) behind 7 bytes."""
    content, found, place, whole = file.read_bytes(), [], 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            found.append(record)
            whole = b""
    return found


def logged(file: Path) -> dict[int, dict[str, Any]]:
    """Step -> what was logged for it."""
    told: dict[int, dict[str, Any]] = {}
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            told[values["_step"]] = values
    return told


def test_a_killed_training_is_one_run_of_wandb_with_the_losses_of_its_history(cache, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    tracked = Tracked("demo", "0123456789ab", {"seed": 0}, tmp_path / "run")
    boards = {"wandb": lambda: TRACKERS["wandb"].start(OFFLINE, tracked)}

    def draw_or_die(_: Any, step: int) -> Any:
        kill_at(4)(_, step) if not (tmp_path / "killed").exists() else None
        return np.full((8, 8, 3), step, np.uint8)

    with pytest.raises(Killed):
        train(cache, tmp_path / "run", boards, draw_or_die)
    (tmp_path / "killed").touch()
    wandb.teardown()  # as where the job was killed: its service ends too
    time.sleep(1.1)  # its folders are named by the second
    rows, lines = train(cache, tmp_path / "run", boards, draw_or_die)
    assert not [line for line in lines if "could not be written" in line]
    wandb.teardown()
    files = sorted((tmp_path / "run/wandb").glob("offline-run-*/run-demo-0123456789ab.wandb"))
    assert len(files) == 2  # `wandb sync` makes one run of them: they have one id
    for file in files:
        (run_of,) = [r.run for r in records(file) if r.WhichOneof("record_type") == "run"][:1]
        assert (run_of.run_id, run_of.project, run_of.display_name) == (
            "demo-0123456789ab",
            "pictures",
            "demo",
        )
    told = {**logged(files[0]), **logged(files[1])}
    assert sorted(told) == [2, 3, 4, 6, 8]
    for step in (2, 6, 8):
        assert told[step]["loss"] == pytest.approx(rows[step - 2 : step, 0].mean())
    assert told[8]["samples/_type"] == "image-file", told[8]
    assert not any(b"k" * 40 in path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())


def test_a_board_that_fails_is_told_once_and_the_training_goes_on(cache, tmp_path):  # noqa: F811
    class Broken:
        def scalars(self, step: int, values: Any) -> None:
            raise ConnectionError("no route")

        picture = scalars

        def close(self) -> None:
            raise ConnectionError("no route")

    def cannot_start() -> Any:
        raise RuntimeError("no key")

    rows, lines = train(cache, tmp_path, {"broken": Broken, "absent": cannot_start}, lambda *_: None)
    assert np.isfinite(rows[:, 0]).all()
    told = [line for line in lines if "could not be written" in line]
    assert told == [
        "train: absent could not be written (no key); the training goes on",
        "train: broken could not be written (no route); the training goes on",
    ]


def test_trackers_are_no_part_of_what_any_stage_is_made_with():
    project = load_project("demo", ROOT)
    values = project.run.model_dump(mode="json", by_alias=True)
    assert "trackers" not in values
    watched = Run(**{**values, "trackers": [OFFLINE.model_dump()]})
    assert watched.trackers == (OFFLINE,)
    assert all("trackers" not in json.dumps(stage_settings(project, stage)) for stage in STAGES)
    for trackers, message in (
        ([OFFLINE.model_dump()] * 2, "wandb is there twice"),
        ([{"kind": "wandb", "key": "secret"}], "key"),
    ):
        with pytest.raises(ValidationError, match=message):
            Run(**{**values, "trackers": trackers})
