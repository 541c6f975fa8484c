"""Checkpoints of a training: whole or not there, checked by digest, written beside the training.

A checkpoint is a folder `step-00000500` of the run directory with `state.safetensors` (weights, their
average, AdamW's moments, the history so far) and `state.json` (step, digest of the tensors). Where ranks hold
shards, each writes its own into `state-00003.safetensors`, and nothing is gathered. The folder is written under
another name and renamed when all is there, so a kill at any moment leaves the older ones as they were.

Nothing in it is a pickle. Either form is read by any number of ranks, sharded or not, and so
torch.distributed.checkpoint reads it as it is (`HuggingFaceStorageReader`).
"""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from darkroom.store import sha256_file, sha256_json
from darkroom.train.distributed import ALONE, Words
from darkroom.train.pieces import Piece, Pieces, pieces_of, write_pieces

NUM_KEPT = 2
# 2: names of weights begin with the denoiser's part, `network.` or `extension.`; 3: one file or several.
FORMAT = 3
# What may change without making another run of it: how it is computed, logged and kept.
_NOT_IN_KEY = {
    "microbatch_size",
    "parallelism",
    "shard_size",
    "cpu_offload",
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
    """What is written: completed steps, and of each tensor by name what this rank holds, in CPU memory."""

    step: int
    pieces: Mapping[str, Piece]


@dataclass(frozen=True)
class Saved:
    """What is read: completed steps, and whole tensors by name."""

    step: int
    tensors: Pieces


def write_checkpoint(
    run_dir: str | Path,
    checkpoint: Checkpoint,
    check: Callable[[], None] = lambda: None,
    words: Words = ALONE,
) -> Path:
    """Write a checkpoint and remove all but the newest NUM_KEPT; returns its folder.

    With `words`, every rank calls it with what `pieces.pieces_of` found, and writes a file of its own; the first
    one puts the folder in its place when all have.

    `check` is called before anything in the run directory is replaced, and may raise. An error, which the first
    rank raises whosever it is, leaves the older checkpoints as they were, and no space taken.
    """
    folder = checkpoint_folder(run_dir, checkpoint.step)
    beside = folder.with_name(f".{folder.name}.tmp")
    try:
        words.all_do(lambda: _make_room(beside) if words.is_first else "")
        name = "state.safetensors" if words.is_alone else f"state-{words.rank:05d}.safetensors"
        digests = words.all_do(lambda: _write_file(beside / name, checkpoint.pieces))
        if not words.is_first:
            return folder
        files = {f"state-{rank:05d}.safetensors": digest for rank, digest in enumerate(digests) if digest}
        _write_state(beside, checkpoint.step, {name: digests[0]} if words.is_alone else files)
        check()
        # A folder of this step is torn or the same: a checkpoint is a function of run and step.
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(beside, folder)
    except BaseException:
        if words.is_first:
            shutil.rmtree(beside, ignore_errors=True)
        raise
    _sync(folder.parent)
    folders = _folders(run_dir)
    # Newer ones were torn, or the training would have gone on from them.
    keep = [f for f in folders if f.name <= folder.name][-NUM_KEPT:]
    for other in set(folders) - set(keep):
        shutil.rmtree(other)
    return folder


def _make_room(folder: Path) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return ""


def _write_file(path: Path, pieces: Mapping[str, Piece]) -> str:
    """The file's digest; a rank that holds nothing that others do not have writes none, and gives ""."""
    if not pieces:
        return ""
    write_pieces(path, pieces)
    _sync(path)
    return sha256_file(path)


def _write_state(folder: Path, step: int, files: Mapping[str, str]) -> None:
    state = {"format": FORMAT, "step": step, "files": files}
    path = folder / "state.json"
    path.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for changed in (path, folder):
        _sync(changed)


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


def read_checkpoint(folder: str | Path) -> Saved:
    """Open a checkpoint whose digests `newest_checkpoint` has checked; its tensors are read when asked for."""
    state = json.loads((Path(folder) / "state.json").read_text())
    return Saved(int(state["step"]), Pieces([Path(folder) / name for name in sorted(state["files"])]))


class Writer:
    """Writes checkpoints on a background thread, one at a time; with `words`, one such thread on every rank.

    A disk that is full does not end a training that still has an older checkpoint and may write the next
    one: `log` hears of it. Only `finish` raises it.
    """

    def __init__(
        self,
        run_dir: str | Path,
        log: Callable[[str], None] = print,
        check: Callable[[], None] = lambda: None,
        words: Words = ALONE,
    ) -> None:
        self._run_dir, self._log, self._check, self._words = run_dir, log, check, words
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def write(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy `tensors` to new memory now, and write them while the training goes on.

        Raises what went wrong with the one before, if that was not the disk.
        """
        self.wait()
        if self._error is not None and not isinstance(self._error, OSError):
            raise self._error
        self._error = None
        pieces = pieces_of(tensors, self._words.is_first)
        copies = {
            name: Piece(piece.tensor.to("cpu", copy=True).contiguous(), piece.offsets)
            for name, piece in pieces.items()
        }
        checkpoint = Checkpoint(step, copies)
        self._thread = threading.Thread(target=self._run, args=(checkpoint,), name="darkroom-checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def finish(self) -> None:
        """Return when the last checkpoint is written; raise what went wrong with it."""
        self.wait()
        if self._error is not None:
            raise self._error

    def _run(self, checkpoint: Checkpoint) -> None:
        try:
            write_checkpoint(self._run_dir, checkpoint, self._check, self._words)
        except OSError as error:
            if not self._words.is_first:
                return  # which has heard of it
            where = checkpoint_folder(self._run_dir, checkpoint.step)
            self._error = OSError(f"{where} could not be written ({error}); older checkpoints are whole")
            self._error.__cause__ = error
            self._log(f"train: {self._error}; the training goes on")
        except Exception as error:
            self._error = error


class StepMark:
    """The last completed step in a file of the run directory, so that a restart can count what it repeats.

    Written into the page cache after every step: a kill does not lose it, a crash of the machine may.
    """

    def __init__(self, run_dir: str | Path) -> None:
        Path(run_dir).mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(Path(run_dir) / "last-step", os.O_RDWR | os.O_CREAT, 0o644)
        content = os.pread(self._descriptor, 20, 0).strip()
        self.found = int(content) if content.isdigit() else 0

    def set(self, step: int) -> None:
        """Note that `step` steps are completed."""
        # A count that cannot be kept, on a full disk, is no reason to stop.
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, b"%012d\n" % step, 0)

    def close(self) -> None:
        """Let the file go."""
        os.close(self._descriptor)


def _folders(run_dir: str | Path) -> list[Path]:
    return sorted(p for p in Path(run_dir).glob("step-*") if p.is_dir())


def _what_is_wrong(folder: Path) -> str | None:
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        if state.get("format") != FORMAT:
            return f"its format is {state.get('format')}, of another version of darkroom; this one reads {FORMAT}"
        for name, digest in state["files"].items():
            if sha256_file(folder / name) != digest:
                return f"the digest of {name} does not match"
    except (OSError, ValueError, KeyError) as error:
        return f"it is torn ({error})"
    return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
