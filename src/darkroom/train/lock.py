"""The lock of a run directory: one training at a time, on whatever machine, on a shared file system.

Locks are numbered files, `lock-00000003.json`, and the highest number is the one that holds. A training
takes the next number when that one was released or its holder is dead, and creating a file exclusively
decides between two that try. The holder beats: it rewrites its file every HEARTBEAT_S.

Dead is: on the same machine, that the kernel has dropped the file's flock, so at once. Elsewhere, that the
beat did not change for STALE_AFTER_S, by the clock of the one who waits; clocks are never compared. A holder
that was given up while it only slept finds a higher number before it writes, and ends.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HEARTBEAT_S = 5.0
STALE_AFTER_S = 60.0
# How long to wait for a living holder to end, in seconds; see `train.rendezvous.seconds_of`.
LOCK_WAIT_S = ("DARKROOM_LOCK_WAIT_S", 10.0)
_LOOK_EVERY_S = 0.2
# Rewritten in place at this size, so that a beat needs no new block on a full disk.
_NUM_BYTES = 512


class RunLock:
    """A held lock: its holder checks before it writes anything that another must not overwrite."""

    def __init__(self, path: Path, descriptor: int, is_flocked: bool) -> None:
        self._path, self._descriptor, self._is_flocked = path, descriptor, is_flocked
        self._beat, self._is_gone = 0, False
        self._closed = threading.Event()
        self._write(released=False)
        self._thread = threading.Thread(target=self._work, name="darkroom-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise a RuntimeError if another training has taken this one for dead and the lock over."""
        newest = _newest(self._path.parent)
        if newest != self._path or self._is_gone:
            by = _who(_read(newest)[0]) if newest else "someone who removed the lock"
            raise RuntimeError(
                f"{self._path.parent} was taken over by {by}: this training was silent for {STALE_AFTER_S:g} s; "
                "it ends and writes no more"
            )

    def release(self) -> None:
        """Let the next one in."""
        self._closed.set()
        self._thread.join()
        self._write(released=True)
        os.close(self._descriptor)

    def _work(self) -> None:
        while not self._closed.wait(HEARTBEAT_S):
            self._beat += 1
            self._write(released=False)

    def _write(self, released: bool) -> None:
        holder = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID"),
            "boot": _boot(),
            "flocked": self._is_flocked,
            "beat": self._beat,
            "released": released,
        }
        try:
            os.pwrite(self._descriptor, json.dumps(holder).ljust(_NUM_BYTES).encode(), 0)
            os.fsync(self._descriptor)
        except OSError as error:
            # A disk that fails for a while costs beats; `check` tells whether somebody drew conclusions.
            self._is_gone = self._is_gone or error.errno == errno.ESTALE


@contextmanager
def locked(run_dir: str | Path, seconds: float, log: Callable[[str], None] = print) -> Iterator[RunLock]:
    """Hold the run directory's lock.

    Waits `seconds` for a living holder, and STALE_AFTER_S for one of another machine that may be dead.

    Raises:
        RuntimeError: another training holds it and lives.
    """
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = _take(folder, seconds, log)
    try:
        yield lock
    finally:
        lock.release()


def _take(folder: Path, seconds: float, log: Callable[[str], None]) -> RunLock:
    start, seen = time.monotonic(), _Seen()
    while True:
        newest = _newest(folder)
        holder, content = _read(newest) if newest else ({"released": True}, b"")
        state = "dead" if holder.get("released") else _state(newest, holder, content, seen)
        if state == "dead":
            lock = _create(folder, _number(newest) + 1)
            if lock is not None:
                if not holder.get("released"):
                    log(f"train: {_who(holder)} left {folder} locked and is dead; taken over")
                return lock
        elif state == "alive" and time.monotonic() - start > seconds:
            raise RuntimeError(
                f"{folder} is in use by another training ({_who(holder)}); wait for it to end, or stop it"
            )
        time.sleep(_LOOK_EVERY_S)


class _Seen:
    """The last file and content that a waiting training has seen, and since when."""

    def __init__(self) -> None:
        self.what: tuple[Path | None, bytes] | None = None
        self.since, self.num_beats = 0.0, -1

    def look(self, path: Path | None, content: bytes) -> None:
        if self.what != (path, content):
            same_file = self.what is not None and self.what[0] == path
            self.num_beats = self.num_beats + 1 if same_file else 0
            self.what, self.since = (path, content), time.monotonic()


def _state(path: Path | None, holder: dict[str, Any], content: bytes, seen: _Seen) -> str:
    """'alive', 'dead', or 'unknown' while a beat is waited for."""
    assert path is not None
    if holder.get("boot") == _boot() and holder.get("flocked"):
        held = _is_flocked(path)
        if held is not None:
            return "alive" if held else "dead"
    seen.look(path, content)
    if time.monotonic() - seen.since > STALE_AFTER_S:
        return "dead"
    return "alive" if seen.num_beats > 0 else "unknown"


def _is_flocked(path: Path) -> bool | None:
    """Whether a process of this machine holds the file's flock; None where the file system has none."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _create(folder: Path, number: int) -> RunLock | None:
    """Take a number; None if another was quicker."""
    path = folder / f"lock-{number:08d}.json"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_flocked = True
    except OSError:  # the file system has none: the beat tells
        is_flocked = False
    if _newest(folder) != path:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        return None
    for older in _locks(folder)[:-1]:
        older.unlink(missing_ok=True)
    return RunLock(path, descriptor, is_flocked)


def _locks(folder: Path) -> list[Path]:
    return sorted(folder.glob("lock-*.json"))


def _newest(folder: Path) -> Path | None:
    return next(reversed(_locks(folder)), None)


def _number(path: Path | None) -> int:
    return int(path.stem.removeprefix("lock-")) if path else 0


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Who holds a lock ({} when it cannot be read yet), and the file's bytes."""
    try:
        content = path.read_bytes()
        return json.loads(content), content
    except (OSError, ValueError):
        return {}, b""


def _who(holder: dict[str, Any]) -> str:
    if not holder:
        return "a process that has not said who it is"
    job = f", job {holder['job']}" if holder.get("job") else ""
    return f"process {holder.get('process')} on {holder.get('host')}{job}"


def _boot() -> str:
    """Names this machine's kernel since it started: processes with the same one see each other's flocks."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else socket.gethostname()
