"""Jobs that Snakemake's generic executor has in a queue: none outlives its driver, and none meets the next one's.

The executor cancels only what it happens not to be looking at, in two seconds; and it takes up jobs of an earlier
driver, whatever configuration those have. The executor for SLURM sees to its own jobs.
"""

import atexit
import contextlib
import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darkroom.pbs import commands, records
from darkroom.pbs.commands import Unreachable
from darkroom.pbs.records import Record
from driver.messages import DriverError, say

# To save, a job has what the scheduler gives it after its SIGTERM.
PATIENCE_S = 600.0
# For qsub, which goes on by itself where the driver is told to end while it asks.
ANSWERS_S = 30.0
_NUM_NAMED = 10  # jobs that a message names


def watch_over(workflow: Any) -> None:
    """End what an earlier driver of this folder left in the queue, and see to it that this one leaves nothing.

    Raises:
        DriverError: the scheduler does not answer, the jobs do not end, or this folder has a name with which the
            executor submits nothing.
    """
    root = Path.cwd() / records.FOLDER
    end_left(root)
    if not workflow.local_exec and workflow.executor_plugin.name == "cluster-generic":
        if odd := re.search(r'["$`\\]', str(root)):
            raise DriverError(
                f"{Path.cwd()}: the executor cluster-generic takes no folder with {odd[0]} in its name"
            )
        (root / records.SILENT).unlink(missing_ok=True)
        # Ctrl-C cancels the jobs; by default a SIGTERM waits for them, which takes days.
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        atexit.register(_end, root, os.getpid())


def end_left(root: Path, patience_s: float = PATIENCE_S) -> None:
    """Take jobs of an earlier driver out of the queue and wait until they are gone: two must not write the same.

    Raises:
        DriverError: the scheduler does not answer, or the jobs do not end.
    """
    found = records.left(root)
    if not found:
        return
    begun = time.monotonic()
    try:
        living = _living(found)
        if living:
            say(
                f"an earlier snakemake of this folder left jobs behind: {_listed(living)}; stopping them first"
            )
            commands.cancel([str(record.id) for record in living])
            while _living(living):
                if time.monotonic() - begun > patience_s:
                    raise DriverError(
                        f"jobs of an earlier snakemake do not end: {_listed(living)}; qdel them"
                    )
                time.sleep(1)
            say("they are gone")
    except Unreachable as error:
        raise DriverError(
            f"jobs of an earlier snakemake may still be there: {_listed(found)}, and the scheduler does not answer"
            f" ({error}); start again where it does"
        ) from None
    for record in found:
        record.remove()


def _end(root: Path, driver: int) -> None:
    """Leave no job in the queue: also those that were being submitted, or looked at, when the end came."""
    if os.getpid() != driver:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    deadline = time.monotonic() + ANSWERS_S
    while any(record.is_being_submitted for record in records.left(root)) and time.monotonic() < deadline:
        time.sleep(0.2)
    left = records.left(root)
    if unanswered := [record for record in left if record.id is None]:
        say(f"qsub has not said whether it took {_listed(unanswered)}; `qstat -u $USER` tells")
    try:
        if living := _living(left):
            commands.cancel([str(record.id) for record in living])
            say(f"cancelled: {_listed(living)}")
    except Unreachable as error:
        numbers = " ".join(str(record.id) for record in left if record.id)
        say(
            f"could not cancel this run's jobs ({error}); they go on. `qdel {numbers}` stops them, and so does the"
            " next snakemake in this folder"
        )


def _living(found: Sequence[Record]) -> list[Record]:
    """Those that wait or run."""
    living = []
    for dialect in {record.dialect for record in found}:
        submitted = {record.id: record for record in found if record.id and record.dialect == dialect}
        if submitted:
            seen = commands.look([str(id) for id in submitted], dialect)
            living += [submitted[id] for id, job in seen.items() if not job.has_ended]
    return living


def _listed(found: Sequence[Record]) -> str:
    more = f" and {len(found) - _NUM_NAMED} more" if len(found) > _NUM_NAMED else ""
    return ", ".join(map(str, found[:_NUM_NAMED])) + more
