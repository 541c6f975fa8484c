"""The scheduler's queue as a driver sees it: which jobs there are, and stopping or releasing them."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from darkroom.slurm.commands import ask

ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "TIMEOUT",
}  # fmt: skip
# The executor plugin names a driver's jobs [PREFIX_]UUID.
_RUN = re.compile(r"(?:[A-Za-z0-9_-]{1,50}_)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# The scheduler's own words for a job that it gave up starting; a person's hold is JobHeldUser or JobHeldAdmin.
_HELD = re.compile(r"requeued[ _]held", re.IGNORECASE)


@dataclass(frozen=True)
class Job:
    """One job: `state` in the scheduler's long form, `reason` why it waits, `rule` and wildcards, `folder`."""

    id: str
    run: str
    state: str
    reason: str
    rule: str
    folder: str

    @property
    def is_alive(self) -> bool:
        """Whether it waits, runs or is still ending."""
        return self.state not in ENDED

    @property
    def is_given_up(self) -> bool:
        """Whether it waits for a `release` that nobody will give."""
        return self.state in ("REQUEUE_HOLD", "SPECIAL_EXIT") or _HELD.search(self.reason) is not None

    def __str__(self) -> str:
        return f"{self.id} ({self.rule.removeprefix('rule_').replace('_wildcards_', ' ')})"


def jobs_of_run(run: str) -> dict[str, Job]:
    """All jobs that the driver with this run id submitted and the scheduler still knows, by id."""
    return {job.id: job for job in _jobs("--name", run, "--states=all")}


def living_jobs_of_folder(folder: str | Path) -> list[Job]:
    """The jobs that drivers in `folder` submitted and that have not ended; a person's own are not among them."""
    return [job for job in _jobs() if _RUN.fullmatch(job.run) and job.is_alive and _same(job.folder, folder)]


def cancel(jobs: Iterable[Job]) -> None:
    """Take jobs out of the queue: SIGTERM now, SIGKILL when the scheduler's KillWait is over."""
    ask("scancel", *(job.id for job in jobs))


def terminate(jobs: Iterable[Job]) -> None:
    """SIGTERM to running jobs, with no end to their time to save."""
    ask("scancel", "--signal=TERM", *(job.id for job in jobs))


def has_jobs() -> bool:
    """Whether any job of this user's, of whatever driver or folder, has not ended."""
    return bool(ask("squeue", "--me", "--noheader", "--format=%i").strip())


def release(job: Job) -> None:
    """Let a held job start again."""
    ask("scontrol", "release", job.id)


def _jobs(*options: str) -> list[Job]:
    # The folder last: it is the one field that may hold the separator.
    lines = ask("squeue", "--me", "--noheader", "--format=%i|%j|%T|%r|%k|%Z", *options).splitlines()
    return [Job(*line.split("|", 5)) for line in lines if line.count("|") >= 5]


def _same(one: str, other: str | Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
