"""A server as a process beside the job, which ends with the job however that ends.

Between the two stands a guard, this file run by itself: a process that notices when the job is gone, by the pipe
that the job holds, and then ends the server and all that it started.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_TERM_S, _KILL_S = 10.0, 5.0
_LOOK_S = 0.1
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for the block, with its output in `log`.

    The process that is given is the guard. It ends when the command does, with its status; 127: there is none.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as out:
        guard = subprocess.Popen(
            [sys.executable, "-P", __file__, *command],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield guard
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()


def tail(log: Path, num_lines: int = 20) -> str:
    """The last lines of a log."""
    with open(log, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 10_000, 0))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-num_lines:])


def _guard(command: Sequence[str]) -> int:
    """Run a command until it ends, or until stdin does."""
    libc = ctypes.CDLL(None, use_errno=True)
    # What loses its parent becomes a child of this process, and is found.
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
        )
    except OSError as error:
        print(error, flush=True)
        return 127
    try:
        while server.poll() is None:
            if select.select([0], [], [], _LOOK_S)[0] and not os.read(0, 1):
                return 0
        return server.returncode
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end(signal.SIGTERM, _TERM_S)
        _end(signal.SIGKILL, _KILL_S)


def _end(with_signal: int, seconds: float) -> None:
    """Send all descendants a signal, those too that they start meanwhile, until none is left or time is over."""
    told: set[int] = set()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        _reap()
        left = _descendants()
        if not left:
            return
        for pid in left - told:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, with_signal)
        told |= left
        time.sleep(_LOOK_S / 2)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _descendants() -> set[int]:
    """The processes that this one started, directly or not, and that have not ended."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            # The name before may hold anything, and ends with the last parenthesis.
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    found: set[int] = set()
    new = {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
