"""One driver a folder, also where the folder is shared by machines."""

import atexit
import contextlib
import fcntl
import os
import socket
import threading
import time
from pathlib import Path
from typing import TextIO

from driver.messages import DriverError, say

# A living driver touches its lock this often; a lock of another machine is watched for `WATCH_S`.
BEAT_S = 10.0
WATCH_S = 30.0


def hold(path: str | Path, watch_s: float = WATCH_S) -> TextIO:
    """Lock `path` until this process ends; the open file returned must be kept.

    The kernel drops the lock with the process, so a killed driver leaves none. Not every shared file
    system carries locks to other machines: there the file's holder and its beating time tell.

    Raises:
        DriverError: another driver holds it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    held = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise DriverError("another snakemake is at work in this folder; wait for it or stop it") from None
    held.seek(0)
    holder = held.read().strip()
    if holder and holder.split()[0] != socket.gethostname():
        say(f"the last snakemake of this folder ran on {holder}; looking {watch_s:.0f} s for signs of life")
        if _beats(path, watch_s):
            held.close()
            raise DriverError(f"another snakemake is at work in this folder, on {holder}; stop it there")
    held.truncate(0)
    held.write(f"{socket.gethostname()} (process {os.getpid()})\n")
    held.flush()
    threading.Thread(target=_beat, args=(path,), name="driver-lock", daemon=True).start()
    # No name is left behind by an orderly end: the next driver need not look for signs of life.
    atexit.register(_forget, path)
    return held


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.truncate(path, 0)


def _beats(path: Path, watch_s: float) -> bool:
    """Whether the file's time changes while we look; two machines' clocks are never compared."""
    first, end = path.stat().st_mtime_ns, time.monotonic() + watch_s
    while time.monotonic() < end:
        time.sleep(min(1.0, watch_s / 10))
        if path.stat().st_mtime_ns != first:
            return True
    return False


def _beat(path: Path) -> None:
    while True:
        time.sleep(BEAT_S)
        with contextlib.suppress(OSError):
            os.utime(path)
