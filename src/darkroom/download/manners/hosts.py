"""How often a host is asked: so many connections at once, and a pause between requests, by all jobs together.

What jobs have to know of each other lies in a fixed number of files of a folder that they share: of each host that
somebody asks just now, who holds how many connections and when the next request may begin. A file is read and
written under flock, for a moment. A job holds the flock of a file of its own as long as it lives, so that what a
killed one held is free as soon as the kernel, or the file server, knows of its end; nothing waits for a lease to
expire. Clocks of machines are compared for pauses alone, and a pause that looks longer than any is none.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

NUM_FILES = 256
MAX_BACK_OFF_S = 3_600.0
"""A host that asks for a longer pause is asked again after this one."""
LOOK_AGAIN_S = 0.1
"""Until a host whose connections are all in use is looked at again."""

_log = logging.getLogger(__name__)


class Wait(NamedTuple):
    """Seconds until it is worth asking again, and why: the host wants it, or all connections are in use."""

    seconds: float
    is_asked_for: bool = False
    is_full: bool = False


@dataclass
class _Host:
    """What is known of a host: job -> its connections; when the next request may begin, seconds since 1970."""

    held: dict[str, int] = field(default_factory=dict)
    next: float = 0.0
    is_asked_for: bool = False


class Hosts:
    """The turns of one job; safe to use from many threads.

    Args:
        connections: at once to one host.
        pause_s: between the beginnings of two requests to one host, seconds.
        folder: shared by the jobs; None: this job is alone.

    `on_end` is told the host when a connection is given back.
    """

    def __init__(self, connections: int, pause_s: float, folder: Path | None = None) -> None:
        self._connections, self.pause_s = connections, pause_s
        self.on_end: Callable[[str], None] = lambda host: None
        self._job = secrets.token_hex(8)
        self._alone: dict[str, _Host] = {}
        self._lock = threading.Lock()
        self._folder = folder
        self._alive: IO[bytes] | None = None
        if folder is not None:
            self._join(folder)

    def _join(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._alive = open(folder / f"job-{self._job}", "ab")  # noqa: SIM115 - closed by `close`
            fcntl.flock(self._alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            self._leave(error)

    def _leave(self, error: OSError) -> None:
        """Go on alone, where the others cannot be told of anything (any more)."""
        folder, self._folder = self._folder, None
        if folder is not None:
            _log.warning(
                "%s: no files and locks here (%s); this job counts its own connections and pauses only, so run one"
                " at a time",
                folder,
                error.strerror,
            )

    def close(self) -> None:
        """Give all turns back."""
        if self._alive is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._alive.name)
            self._alive.close()
            self._alive = None

    def try_begin(self, host: str) -> Wait | None:
        """Take a connection to `host` and begin a request; or tell how long to wait."""
        with self._known(host) as known:
            wait = self._pause_left(known)
            if wait is not None:
                return wait
            if sum(known.held.values()) >= self._connections:
                known.held = {job: number for job, number in known.held.items() if self._lives(job)}
            if sum(known.held.values()) >= self._connections:
                return Wait(LOOK_AGAIN_S, is_full=True)
            known.held[self._job] = known.held.get(self._job, 0) + 1
            self._began(known)
            return None

    def try_again(self, host: str) -> Wait | None:
        """Begin a further request on a connection that is held; or tell how long to wait."""
        with self._known(host) as known:
            wait = self._pause_left(known)
            if wait is None:
                self._began(known)
            return wait

    def end(self, host: str) -> None:
        """Give a connection back."""
        with self._known(host) as known:
            left = known.held.pop(self._job, 0) - 1
            if left > 0:
                known.held[self._job] = left
        self.on_end(host)

    def back_off(self, host: str, seconds: float) -> None:
        """Let nobody ask `host` for so long, as it wishes."""
        with self._known(host) as known:
            until = time.time() + min(seconds, MAX_BACK_OFF_S)
            if until > known.next:
                known.next, known.is_asked_for = until, True

    def _began(self, known: _Host) -> None:
        known.next, known.is_asked_for = time.time() + self.pause_s, False

    def _pause_left(self, known: _Host) -> Wait | None:
        left = known.next - time.time()
        # Further away than any pause: another machine's clock is wrong, or this one's was set.
        longest = MAX_BACK_OFF_S if known.is_asked_for else self.pause_s
        return Wait(min(left, longest), known.is_asked_for) if left > 0 else None

    def _lives(self, job: str) -> bool:
        if job == self._job:
            return True
        if self._folder is None:
            return False
        path = self._folder / f"job-{job}"
        try:
            # Over NFS only a file that may be written can be locked so.
            with open(path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return False
        except OSError:  # it is locked, or another user's
            return True
        return False

    @contextlib.contextmanager
    def _known(self, host: str) -> Iterator[_Host]:
        """What is known of a host, for the block, which may change it."""
        file = self._open(host)
        if file is None:
            with self._lock:
                known = self._alone.setdefault(host, _Host())
                yield known
                if not known.held and known.next <= time.time():
                    del self._alone[host]
            return
        with file:
            content = file.read()
            entries, size = _parsed(content), len(content)
            known = entries.setdefault(host, _Host())
            yield known
            now = time.time()
            entries = {name: entry for name, entry in entries.items() if entry.held or entry.next > now}
            told = json.dumps({name: entry.__dict__ for name, entry in entries.items()}).encode()
            try:
                # Over what was there, with spaces to its end: emptied files make file systems wait for the disk.
                os.pwrite(file.fileno(), told.ljust(size), 0)
            except OSError as error:
                self._leave(error)

    def _open(self, host: str) -> IO[bytes] | None:
        """The file that has the host, locked; None where this job is alone."""
        folder = self._folder
        if folder is None:
            return None
        number = int.from_bytes(hashlib.sha256(host.encode()).digest()[:4]) % NUM_FILES
        try:
            path = folder / f"hosts-{number:03}.json"
            file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)  # noqa: SIM115
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            self._leave(error)
            return None
        return file


def _parsed(content: bytes) -> dict[str, _Host]:
    """The hosts of a file; what a killed job left half-written is nothing."""
    try:
        told: dict[str, dict[str, Any]] = json.loads(content or b"{}")
        return {name: _Host(**entry) for name, entry in told.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
