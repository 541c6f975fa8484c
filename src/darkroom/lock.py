"""One holder of a folder at a time, on whatever machine, also where the file system has no flock.

Locks are numbered files, `lock-00000003.json`, and the highest number is the one that holds. A process takes
the next number when that one was released or its holder is dead, and creating a file exclusively decides between
two that try. The holder beats: it rewrites its file every HEARTBEAT_S.

Dead is: on the same machine, that the kernel has dropped the file's flock, or, where the file system has none,
that the holder's process is gone; both are seen at once. Elsewhere, that the beat did not change for
STALE_AFTER_S, by the clock of the one who waits; clocks are never compared. A holder that was given up while it
only slept finds a higher number before it writes, and ends.
"""

import contextlib
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
_LOOK_EVERY_S = 0.2
# Rewritten in place at this size, so that a beat needs no new block on a full disk.
_NUM_BYTES = 4096


class Held(RuntimeError):
    """Another process holds the folder and lives; `by` says who."""

    def __init__(self, folder: Path, what: str, by: str) -> None:
        super().__init__(f"{folder} is in use by another {what} ({by}); wait for it to end, or stop it")
        self.by = by


class FolderLock:
    """A held lock: its holder checks before it writes anything that another must not overwrite.

    `on_loss`, if given, is called on the lock's thread when another process has taken the lock over.
    """

    def __init__(
        self, path: Path, descriptor: int, is_flocked: bool, what: str, on_loss: Callable[[str], None] | None
    ) -> None:
        self._path, self._descriptor = path, descriptor
        self._what, self._on_loss = what, on_loss
        self._holder = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID"),
            "folder": os.getcwd(),
            "boot": _boot(),
            "started": _started(os.getpid()),
            "flocked": is_flocked,
        }
        self._beat, self._is_gone = 0, False
        self._closed = threading.Event()
        self._write(released=False)
        self._thread = threading.Thread(target=self._work, name="darkroom-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise a RuntimeError if another process has taken this one for dead and the lock over."""
        newest = _newest(self._path.parent)
        if newest != self._path or self._is_gone:
            by = _who(_read(newest)[0]) if newest else "someone who removed the lock"
            raise RuntimeError(
                f"{self._path.parent} was taken over by {by}: this {self._what} was silent for "
                f"{STALE_AFTER_S:g} s; it ends and writes no more"
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
            if self._on_loss is not None:
                try:
                    self.check()
                except RuntimeError as loss:
                    self._on_loss(str(loss))
                    return
                except OSError:  # a disk that fails for a while: the next beat looks again
                    continue

    def _write(self, released: bool) -> None:
        holder = {**self._holder, "beat": self._beat, "released": released}
        try:
            os.pwrite(self._descriptor, json.dumps(holder).ljust(_NUM_BYTES).encode(), 0)
            os.fsync(self._descriptor)
        except OSError as error:
            # A disk that fails for a while costs beats; `check` tells whether somebody drew conclusions.
            self._is_gone = self._is_gone or error.errno == errno.ESTALE


@contextmanager
def locked(
    folder: str | Path, seconds: float, log: Callable[[str], None] = print, what: str = "training"
) -> Iterator[FolderLock]:
    """Hold a folder's lock until the block ends; see `take`."""
    lock = take(folder, seconds, log, what)
    try:
        yield lock
    finally:
        lock.release()


def take(
    folder: str | Path,
    seconds: float,
    log: Callable[[str], None] = print,
    what: str = "training",
    on_loss: Callable[[str], None] | None = None,
) -> FolderLock:
    """Take a folder's lock, which is made if need be; it ends with `release` or with this process.

    Waits `seconds` for a living holder, and STALE_AFTER_S for one of another machine that may be dead.

    Args:
        log: hears of a lock that a dead holder left.
        what: the holder, in messages.
        on_loss: see `FolderLock`.
    Raises:
        Held: another process holds it and lives.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    start, seen, has_told = time.monotonic(), _Seen(), False
    while True:
        newest = _newest(folder)
        holder, content = _read(newest) if newest else ({"released": True}, b"")
        state = "dead" if holder.get("released") else _state(newest, holder, content, seen)
        if state == "dead":
            lock = _create(folder, _number(newest) + 1, what, on_loss)
            if lock is not None:
                if not holder.get("released"):
                    log(f"{what}: {_who(holder)} left {folder} locked and is dead; taken over")
                return lock
        elif state == "alive" and time.monotonic() - start > seconds:
            raise Held(folder, what, _who(holder))
        elif state == "unknown" and not has_told:
            has_told = True
            log(f"{what}: {_who(holder)} holds {folder}; looking {STALE_AFTER_S:g} s for signs of life")
        time.sleep(_LOOK_EVERY_S)


class _Seen:
    """The last file and content that a waiting process has seen, and since when."""

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
    if holder.get("boot") == _boot():
        # Both: a file server that starts again forgets locks, and a container may not see the process.
        signs = {_is_flocked(path) if holder.get("flocked") else None, _is_running(holder)}
        if signs != {None}:
            return "alive" if True in signs else "dead"
    seen.look(path, content)
    if time.monotonic() - seen.since > STALE_AFTER_S:
        return "dead"
    return "alive" if seen.num_beats > 0 else "unknown"


def _is_flocked(path: Path) -> bool | None:
    """Whether a process of this machine holds the file's flock; None where the file system has none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        # Shared, so that two who look do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _is_running(holder: dict[str, Any]) -> bool | None:
    """Whether the holder's process runs on this machine; None where that cannot be seen.

    Not the number alone, which is given again, but when it started, and as seen from which container.
    """
    started, process = holder.get("started"), holder.get("process")
    mine = _started(os.getpid())
    if started is None or mine is None or started[0] != mine[0] or not isinstance(process, int):
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    found = _started(process)
    return None if found is None else found == started


def _started(process: int) -> list[str] | None:
    """The process's namespace and start in clock ticks since the machine's; None if /proc does not say.

    A process that has ended and is not yet waited for has no start any more.
    """
    try:
        space = os.readlink("/proc/self/ns/pid")
        # After the name, which may hold anything: state first, the start as the 20th field.
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return [space, "ended" if fields[0] in "ZX" else fields[19]]


def _create(folder: Path, number: int, what: str, on_loss: Callable[[str], None] | None) -> FolderLock | None:
    """Take a number; None if another was quicker."""
    path = folder / f"lock-{number:08d}.json"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if _newest(folder) != path:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        return None
    for older in _locks(folder)[:-1]:
        older.unlink(missing_ok=True)
    # Some file systems say yes to every flock: only one that keeps a second out counts.
    return FolderLock(path, descriptor, _is_flocked(path) is True, what, on_loss)


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
    return f"process {holder.get('process')} on {holder.get('host')}{job}, in {holder.get('folder')}"


def _boot() -> str:
    """Names this machine's kernel since it started: processes with the same one see each other's flocks."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else socket.gethostname()
