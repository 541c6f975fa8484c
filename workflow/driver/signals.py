"""A driver that alone is told to end, as by `kill`, tells its jobs, so that a training saves.

Ctrl-C on a terminal reaches the jobs by itself. On a cluster the executor cancels them.
"""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

# As long as the jobs have to end by themselves.
AGAIN_AFTER_S = 2.0
# As long as this process needs for its own end.
CLEARS_UP_S = 5.0


def hand_on() -> None:
    """From now on, end as after Ctrl-C on SIGTERM and on a hangup too, and tell the jobs of this machine."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # What whoever started this has it ignore, as `nohup` does, stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


_ending_since: float | None = None


def _end(number: int, frame: FrameType | None) -> None:
    global _ending_since
    now = time.monotonic()
    # Whoever is impatient is heard by the jobs: they end first, and then this process, which clears up.
    if _ending_since is not None and (now - _ending_since < CLEARS_UP_S or _ends_of_jobs()):
        return
    _ending_since = _ending_since or now
    # After a `kill -INT` of the driver they know of nothing, and a shell may have had them ignore Ctrl-C.
    again = threading.Timer(AGAIN_AFTER_S, _tell, [signal.SIGTERM])
    again.daemon = True
    again.start()
    if number != signal.SIGINT:
        _tell(signal.SIGINT)
    signal.default_int_handler(number, frame)


def _tell(number: int) -> None:
    for process in _ends_of_jobs():
        with contextlib.suppress(OSError):
            os.kill(process, number)


def _ends_of_jobs() -> list[int]:
    """The processes that have none below them: shells and launchers wait for these."""
    children = _children()
    waiting, ends = [os.getpid()], list[int]()
    while waiting:
        below = children.get(waiting.pop(), [])
        waiting += below
        ends += [process for process in below if process not in children]
    return ends


def _children() -> dict[int, list[int]]:
    """Process -> the processes that it started and that are still there."""
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may hold anything: the state, then the parent.
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] not in "ZX":
                found.setdefault(int(fields[1]), []).append(int(path.parent.name))
    return found
