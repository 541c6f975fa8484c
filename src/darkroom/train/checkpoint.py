"""Checkpoints of a training: whole or not there, checked by digest, written beside the training.

A checkpoint is a folder `step-00000500` of the run directory with `state.safetensors` (weights, their
average, AdamW's moments, the history so far) and `state.json` (step, digest of the tensors). Where ranks hold
shards, each writes its own into `state-00003.safetensors`, and nothing is gathered. The folder is written under
another name and renamed when all is there, so a kill at any moment leaves the older ones as they were. Torn is one
whose bytes are not those that were written; a disk that cannot be read ends the training, and nothing is removed.

Nothing in it is a pickle. Either form is read by any number of ranks, sharded or not, and so
torch.distributed.checkpoint reads it as it is (`HuggingFaceStorageReader`).
"""

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from darkroom.config.run import Train
from darkroom.store import apply_umask, sha256_file, sha256_json
from darkroom.train import VERSION
from darkroom.train.distributed import SINGLE, RankGroup
from darkroom.train.sharded_tensors import ShardedTensors, TensorShard, local_shards, write_shards

NUM_KEPT = 2
# How names of tensors begin that snapshots keep, see `train.power_averages`.
SNAPSHOT_PREFIX = "averages/"
# Pauses between attempts to read a checkpoint from a disk that fails, in seconds.
RETRY_S = (1.0, 3.0, 10.0)
_TORN = "torn-"
# 2: names of weights begin with the denoiser's part, `network.` or `extension.`; 3: one file or several.
FORMAT = 3
# What may change without making another run of it: how it is computed, logged and kept.
_NOT_IN_KEY = {
    "microbatch_size",
    "parallelism",
    "shard_size",
    "cpu_offload",
    "encoder_ranks",
    "num_threads",
    "checkpoint_every_steps",
    "log_every_steps",
    # Of steps to come only: `History.restore` holds a checkpoint to those that it has left out.
    "skip_steps",
}
# Of trainings whose first steps do not depend on these: their checkpoints say which steps they are good for.
_NOT_IN_KEY_IF_STABLE = {"num_steps", "num_decay_steps"}


def run_key(model: BaseModel, train: Train, seed: int, cache_digest: str) -> str:
    """12 hex digits that name a training's run directory.

    Other data (`cache_digest`, SHA-256 of the cache's manifest), another model, seed or training option
    gives another key, and so a start at step 0; microbatches, threads, logging and checkpoint intervals
    do not, nor does the number of steps where the learning rate stays until a decay of its own. What the pictures
    during training show does, because they are an output of the stage; so does the stage's version, because half a
    training by one and half by another is neither.
    """
    may_grow = train.num_stable_steps is not None
    options = train.model_dump(
        mode="json", exclude=_NOT_IN_KEY | (_NOT_IN_KEY_IF_STABLE if may_grow else set())
    )
    body = {"model": model.model_dump(mode="json"), "train": options, "seed": seed, "cache": cache_digest}
    return sha256_json({"format": FORMAT, "version": VERSION, **body})[:12]


@dataclass(frozen=True)
class Checkpoint:
    """What is written: completed steps, and of each tensor by name what this rank holds, in CPU memory."""

    step: int
    shards: Mapping[str, TensorShard]


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What is read: completed steps, and whole tensors by name."""

    step: int
    tensors: ShardedTensors


def write_checkpoint(
    run_dir: str | Path,
    checkpoint: Checkpoint,
    check: Callable[[], None] = lambda: None,
    group: RankGroup = SINGLE,
    keep_step: int | None = None,
) -> Path:
    """Write a checkpoint; removes older ones, but the newest NUM_KEPT and that of `keep_step`. Returns its folder.

    With `group`, every rank calls it with what `local_shards` found, and writes a file of its own; the first
    one puts the folder in its place when all have.

    `check` is called before anything in the run directory is replaced, and may raise. An error, which the first
    rank raises whosever it is, leaves the older checkpoints as they were, and no space taken.
    """
    folder = checkpoint_folder(run_dir, checkpoint.step)
    write_whole(folder, checkpoint, check, group)
    if not group.is_first:
        return folder
    torn = [f for f in Path(run_dir).glob(f"{_TORN}*") if f.name.removeprefix(_TORN) <= folder.name]
    kept = None if keep_step is None else checkpoint_folder(run_dir, keep_step)
    for older in [f for f in _folders(run_dir) if f.name <= folder.name][:-NUM_KEPT] + torn:
        if older != kept:
            shutil.rmtree(older)
    return folder


def write_whole(folder: Path, checkpoint: Checkpoint, check: Callable[[], None], group: RankGroup) -> None:
    """Write a checkpoint into `folder`, which appears whole or not at all; see `write_checkpoint`."""
    beside = folder.with_name(f".{folder.name}.tmp")
    try:
        group.run_on_all(lambda: _make_room(beside) if group.is_first else "")
        name = "state.safetensors" if group.is_single else f"state-{group.rank:05d}.safetensors"
        digests = group.run_on_all(lambda: _write_file(beside / name, checkpoint.shards))
        if not group.is_first:
            return
        files = {f"state-{rank:05d}.safetensors": digest for rank, digest in enumerate(digests) if digest}
        _write_state(beside, checkpoint.step, {name: digests[0]} if group.is_single else files)
        apply_umask(beside)
        check()
        # A folder of this step is torn, or the same, or of a training with fewer steps, which had decayed there.
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(beside, folder)
    except BaseException:
        if group.is_first:
            shutil.rmtree(beside, ignore_errors=True)
        raise
    _sync(folder.parent)


def _make_room(folder: Path) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return ""


def _write_file(path: Path, shards: Mapping[str, TensorShard]) -> str:
    """The file's digest; a rank that holds nothing that others do not have writes none, and gives ""."""
    if not shards:
        return ""
    write_shards(path, shards)
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


def newest_checkpoint(
    run_dir: str | Path,
    log: Callable[[str], None] = print,
    set_aside: bool = False,
    why_not: Callable[[Path], str] = lambda folder: "",
) -> int | None:
    """The step of the newest whole checkpoint, or None; `log` hears of those that are passed over.

    Of a whole one `why_not` says why it is none of the training's, or "". It stays where it is.

    With `set_aside`, which only who holds the run directory may ask for, torn ones get another name, and are
    removed when the training has passed their step.

    Raises:
        OSError: a checkpoint cannot be read, also after RETRY_S. It may be whole, so none older is taken.
    """
    for folder in reversed(_folders(run_dir)):
        wrong = _patiently(folder, log)
        if wrong is None:
            wrong = why_not(folder)
        if not wrong:
            return int(folder.name.removeprefix("step-"))
        log(f"{folder}: passed over, {wrong}")
        if set_aside and isinstance(wrong, _Torn):
            shutil.rmtree(aside := folder.with_name(f"{_TORN}{folder.name}"), ignore_errors=True)
            folder.rename(aside)
    return None


def read_checkpoint(folder: str | Path) -> LoadedCheckpoint:
    """Open a checkpoint whose digests `newest_checkpoint` has checked; its tensors are read when asked for."""
    state = json.loads((Path(folder) / "state.json").read_text())
    return LoadedCheckpoint(
        int(state["step"]), ShardedTensors([Path(folder) / name for name in sorted(state["files"])])
    )


class Writer:
    """Writes checkpoints on a background thread, one at a time; with `group`, one such thread on every rank.

    A disk that is full does not end a training that still has an older checkpoint and may write the next
    one: `log` hears of it. Only `finish` raises it. A snapshot (`train.snapshots`) that cannot be written ends it:
    a checkpoint after that step would leave no way to make it.
    """

    def __init__(
        self,
        run_dir: str | Path,
        log: Callable[[str], None] = print,
        check: Callable[[], None] = lambda: None,
        group: RankGroup = SINGLE,
        keep_step: int | None = None,
    ) -> None:
        self._run_dir, self._log, self._check, self._group = run_dir, log, check, group
        self._keep_step = keep_step
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def write(
        self,
        step: int,
        tensors: Mapping[str, torch.Tensor],
        snapshot: Path | None = None,
        is_checkpoint: bool = True,
    ) -> None:
        """Copy `tensors` to new memory now, and write them while the training goes on.

        snapshot: a folder for those of `SNAPSHOT_PREFIX`, which has its name before the checkpoint has.

        Raises what went wrong with the one before, if that was not the disk.
        """
        self.wait()
        if self._error is not None and not isinstance(self._error, OSError):
            raise self._error
        self._error = None
        shards = local_shards(tensors, self._group.is_first)
        copies = {
            name: TensorShard(shard.tensor.to("cpu", copy=True).contiguous(), shard.offsets)
            for name, shard in shards.items()
        }
        work = (Checkpoint(step, copies), snapshot, is_checkpoint)
        self._thread = threading.Thread(target=self._run, args=work, name="darkroom-checkpoint")
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

    def _run(self, checkpoint: Checkpoint, snapshot: Path | None, is_checkpoint: bool) -> None:
        try:
            if snapshot is not None:
                self._write_snapshot(checkpoint, snapshot)
            if is_checkpoint:
                write_checkpoint(self._run_dir, checkpoint, self._check, self._group, self._keep_step)
        except OSError as error:
            if not self._group.is_first:
                return  # which has heard of it
            where = checkpoint_folder(self._run_dir, checkpoint.step)
            self._error = OSError(f"{where} could not be written ({error}); older checkpoints are whole")
            self._error.__cause__ = error
            self._log(f"train: {self._error}; the training goes on")
        except Exception as error:
            self._error = error

    def _write_snapshot(self, checkpoint: Checkpoint, folder: Path) -> None:
        shards = {name: s for name, s in checkpoint.shards.items() if name.startswith(SNAPSHOT_PREFIX)}
        try:
            write_whole(folder, Checkpoint(checkpoint.step, shards), self._check, self._group)
        except OSError as error:
            raise RuntimeError(
                f"train: the snapshot {folder} could not be written ({error}). Free space, and start again: the"
                " training goes on from the checkpoint before it"
            ) from error


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


class _Torn(str):
    """What is wrong with a checkpoint whose bytes are not those that were written."""


def _patiently(folder: Path, log: Callable[[str], None]) -> str | None:
    """What is wrong with a checkpoint, from a disk that may be away for a while (ESTALE, EIO)."""
    for pause in RETRY_S:
        try:
            return what_is_wrong(folder)
        except OSError as error:
            log(f"{folder}: cannot be read ({error}); trying again in {pause:g} s")
            time.sleep(pause)
    try:
        return what_is_wrong(folder)
    except OSError as error:
        raise OSError(
            f"{folder} cannot be read ({error}); it may be whole, so nothing older is taken and nothing "
            "is removed. Start again when the disk answers, or move that folder away"
        ) from error


def what_is_wrong(folder: Path) -> str | None:
    """None for a whole checkpoint.

    Raises:
        OSError: it cannot be read.
    """
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_bytes())
        if state.get("format") != FORMAT:
            return f"its format is {state.get('format')}, of another version of darkroom; this one reads {FORMAT}"
        for name, digest in state["files"].items():
            if sha256_file(folder / name) != digest:
                return _Torn(f"the digest of {name} does not match")
    except (FileNotFoundError, ValueError, KeyError, AttributeError) as error:
        return _Torn(f"it is torn ({error})")
    return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
