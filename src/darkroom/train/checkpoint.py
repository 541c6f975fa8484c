"""Checkpoints of a training: whole or not there, checked by digest, written beside the training.

A checkpoint is a folder `step-00000500` of the run directory with `state.safetensors` (weights, their
average, AdamW's moments, the history so far) and `state.json` (step, digest of the tensors). It is
written under another name and renamed, so a kill at any moment leaves the older ones as they were.
"""

import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import safe_open
from safetensors.torch import save_file

from darkroom.store import sha256_file, sha256_json

NUM_KEPT = 2
FORMAT = 1
# What may change without making another run of it: how it is computed, logged and kept.
_NOT_IN_KEY = {
    "microbatch_size",
    "num_threads",
    "checkpoint_every_steps",
    "log_every_steps",
}


def run_key(model: BaseModel, train: BaseModel, seed: int, cache_digest: str) -> str:
    """12 hex digits that name a training's run directory.

    Other data (`cache_digest`, SHA-256 of the cache's manifest), another model, seed or training option
    gives another key, and so a start at step 0; microbatches, threads, logging and checkpoint intervals
    do not. What the pictures during training show does, because they are an output of the stage.
    """
    options = train.model_dump(mode="json", exclude=_NOT_IN_KEY)
    body = {"model": model.model_dump(mode="json"), "train": options, "seed": seed, "cache": cache_digest}
    return sha256_json({"format": FORMAT, **body})[:12]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: completed steps and CPU tensors by name."""

    step: int
    tensors: dict[str, torch.Tensor]


def write_checkpoint(run_dir: str | Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and remove all but the newest NUM_KEPT; returns its folder."""
    folder = checkpoint_folder(run_dir, checkpoint.step)
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save_file(checkpoint.tensors, beside / "state.safetensors")
    state = {
        "format": FORMAT,
        "step": checkpoint.step,
        "sha256": sha256_file(beside / "state.safetensors"),
    }
    (beside / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in (*beside.iterdir(), beside):
        _sync(path)
    # A folder of this step is torn or the same: a checkpoint is a function of run and step.
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(beside, folder)
    _sync(folder.parent)
    folders = _folders(run_dir)
    # Newer ones were torn, or the training would have gone on from them.
    keep = [f for f in folders if f.name <= folder.name][-NUM_KEPT:]
    for other in set(folders) - set(keep):
        shutil.rmtree(other)
    return folder


def checkpoint_folder(run_dir: str | Path, step: int) -> Path:
    """Where the checkpoint after `step` completed steps lies."""
    return Path(run_dir) / f"step-{step:08d}"


def newest_checkpoint(run_dir: str | Path, log: Callable[[str], None] = print) -> int | None:
    """The step of the newest whole checkpoint, or None; `log` hears of torn ones."""
    for folder in reversed(_folders(run_dir)):
        wrong = _what_is_wrong(folder)
        if wrong is None:
            return int(folder.name.removeprefix("step-"))
        log(f"{folder}: passed over, {wrong}")
    return None


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint whose digest `newest_checkpoint` has checked."""
    state = json.loads((Path(folder) / "state.json").read_text())
    with safe_open(Path(folder) / "state.safetensors", framework="pt") as file:
        # Copies: views of the mapped file would die with it when it is removed as an old one.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    return Checkpoint(int(state["step"]), tensors)


class Writer:
    """Writes checkpoints on a background thread, one at a time."""

    def __init__(self, run_dir: str | Path) -> None:
        self._run_dir = run_dir
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def write(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy `tensors` to new memory now, and write them while the training goes on."""
        self.wait()
        copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
        checkpoint = Checkpoint(step, copies)
        self._thread = threading.Thread(target=self._run, args=(checkpoint,), name="darkroom-checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written; raise what went wrong while writing."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self, checkpoint: Checkpoint) -> None:
        try:
            write_checkpoint(self._run_dir, checkpoint)
        except Exception as error:
            self._error = error


@contextmanager
def locked(run_dir: str | Path, seconds: float = 10.0) -> Iterator[None]:
    """Hold the run directory's lock; the system lets it go when the process ends, however it ends.

    Raises:
        RuntimeError: another process still holds it after `seconds`.
    """
    path = Path(run_dir) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise RuntimeError(
                        f"{run_dir} is in use by another training ({file.read().strip()}); "
                        "wait for it to end, or stop it"
                    ) from None
                time.sleep(0.1)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield


def _folders(run_dir: str | Path) -> list[Path]:
    return sorted(p for p in Path(run_dir).glob("step-*") if p.is_dir())


def _what_is_wrong(folder: Path) -> str | None:
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        digest = sha256_file(folder / "state.safetensors")
    except (OSError, ValueError) as error:
        return f"it is torn ({error})"
    if state.get("format") != FORMAT:
        return f"its format is {state.get('format')}, not {FORMAT}"
    return None if state.get("sha256") == digest else "its digest does not match"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
