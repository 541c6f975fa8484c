"""One driver for each folder of results, also where machines or clones share it."""

import atexit
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from darkroom.lock import FolderLock, Held, take
from driver.messages import DriverError, say

# In a folder of results; neither git nor DVC nor a manifest knows it.
FOLDER = ".driver"


def hold(outputs: Iterable[str | Path], results: str | Path = "results") -> list[FolderLock]:
    """Hold `results`, and of what it holds each dataset and run that gets `outputs`, until this process ends.

    The latter because a folder of it may be a link to one that another clone has too.

    Raises:
        DriverError: another driver holds one of them, or it cannot be written to.
    """
    results = Path(results)
    paths = {Path(path) for path in outputs if results in Path(path).parents}
    depth = len(results.parts) + 2
    folders = [results, *sorted({Path(*path.parts[:depth]) for path in paths if len(path.parts) > depth})]
    held: list[FolderLock] = []
    try:
        for folder in folders:
            # Of a driver that was killed, one word is enough.
            held.append(take(folder / FOLDER, 0, _unheard if held else say, "snakemake", _end))
    except Held as other:
        _release(held)
        raise DriverError(
            f"another snakemake is at work on {folder} ({other.by}); wait for it or stop it"
        ) from None
    except OSError as error:
        _release(held)
        raise DriverError(f"{folder}: no lock can be written there ({error})") from None
    atexit.register(_release, held)
    return held


def _release(held: list[FolderLock]) -> None:
    while held:
        held.pop().release()


def _end(loss: str) -> None:
    """As Ctrl-C does: jobs are told to end, and nothing more is started."""
    say(loss)
    os.kill(os.getpid(), signal.SIGINT)


def _unheard(_: str) -> None: ...
