"""The jobs that a killed driver left in the queue: stopped before a new driver submits any."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from darkroom.slurm import queue
from darkroom.slurm.commands import Unreachable
from darkroom.slurm.queue import Job
from snakemake_executor_plugin_darkroom.messages import DriverError, say

# A signal goes to a job's steps, and one that comes while a job has begun but its step has not is lost.
ASK_AGAIN_S = 15.0


def end_orphans(folder: Path, patience_s: float) -> None:
    """Stop the jobs of an earlier driver of this folder and wait until they are gone.

    Two jobs must not write the same files. Running ones get SIGTERM, on which a training saves.

    Raises:
        DriverError: the scheduler does not answer, or the jobs do not end.
    """
    try:
        orphans = queue.living_jobs_of_folder(folder)
        if not orphans:
            return
        say(
            f"an earlier snakemake of this folder left jobs behind: {listed(orphans)}; "
            "stopping them first (a training saves and will go on from there)"
        )
        orphans = _ask_to_end(folder, orphans, patience_s)
        if orphans:
            say(f"still there after {patience_s:.0f} s, cancelled: {listed(orphans)}")
            queue.cancel(orphans)
        _await_end(folder, patience_s)
        say("they are gone")
    except Unreachable as error:
        raise DriverError(f"the scheduler does not answer ({error}); start again when it does") from None


def _ask_to_end(folder: Path, orphans: list[Job], patience_s: float) -> list[Job]:
    """SIGTERM to what runs, out of the queue with what waits; the jobs that are still there afterwards."""
    begin, asked = time.monotonic(), dict[str, float]()
    while orphans and (now := time.monotonic()) - begin < patience_s:
        running = [job for job in orphans if job.state == "RUNNING"]
        if due := [job for job in running if now - asked.get(job.id, -math.inf) > ASK_AGAIN_S]:
            queue.terminate(due)
            asked |= {job.id: now for job in due}
        if waiting := [job for job in orphans if job.state not in ("RUNNING", "COMPLETING")]:
            queue.cancel(waiting)
        time.sleep(1)
        orphans = queue.living_jobs_of_folder(folder)
    return orphans


def _await_end(folder: Path, patience_s: float) -> None:
    begin = time.monotonic()
    while orphans := queue.living_jobs_of_folder(folder):
        if time.monotonic() - begin > patience_s:
            raise DriverError(f"jobs of an earlier snakemake do not end: {listed(orphans)}; scancel them")
        time.sleep(1)


def listed(jobs: Sequence[Job]) -> str:
    """Some jobs in a line."""
    names = [str(job) for job in jobs[:10]]
    return ", ".join(names) + (f" and {len(jobs) - 10} more" if len(jobs) > 10 else "")
