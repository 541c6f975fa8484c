"""What a driver thinks of its jobs in the queue: which will never end by themselves, and when to stop asking."""

import os
import time
from dataclasses import dataclass

from darkroom.slurm import queue
from darkroom.slurm.commands import Unreachable
from darkroom.slurm.queue import Job
from snakemake_executor_plugin_darkroom.messages import DriverError, say

NUM_RELEASES = 3
# Reasons of a job that only waits for its turn.
USUAL = {"None", "Priority", "Resources", "BeginTime", "Cleaning"}


@dataclass(frozen=True)
class Limits:
    """Seconds after which the driver acts; the environment's DARKROOM_<NAME> changes one."""

    unreachable_s: float = 1800  # the scheduler gives no answer: end with a message
    lost_s: float = 120  # the queue says a job has ended or is gone, the plugin does not: settle it
    stuck_s: float = 900  # one call of the plugin does not return: end with a message
    orphan_s: float = 600  # jobs of a killed driver save after SIGTERM: then they are cancelled

    @classmethod
    def from_environment(cls) -> "Limits":
        """The defaults with what the environment sets."""
        names = {name: f"DARKROOM_{name.upper()}" for name in cls.__dataclass_fields__}
        return cls(**{name: float(os.environ[key]) for name, key in names.items() if key in os.environ})


@dataclass(frozen=True)
class Verdict:
    """How a job ended that the plugin believes to be alive; `error` None for success."""

    error: str | None


class Watch:
    """Judges the jobs of one run by the queue, and keeps count of the scheduler's silence."""

    def __init__(self, run: str, limits: Limits) -> None:
        self._run, self._limits = run, limits
        self._missing: dict[str, float] = {}
        self._releases: dict[str, int] = {}
        self._told: set[tuple[str, str]] = set()
        self._answered = time.monotonic()
        self._is_silent = False

    def look(self) -> dict[str, Job] | None:
        """The run's jobs by id, ended ones too; None while the scheduler does not answer.

        Raises:
            DriverError: it has not answered for too long.
        """
        try:
            seen = queue.jobs_of_run(self._run)
        except Unreachable as error:
            self._note_silence(error)
            return None
        if self._is_silent:
            say("the scheduler answers again")
        self._answered, self._is_silent = time.monotonic(), False
        return seen

    def _note_silence(self, error: Unreachable) -> None:
        limit_s = self._limits.unreachable_s
        if not self._is_silent:
            say(
                f"the scheduler does not answer ({error}); asking again for {limit_s:.0f} s, running jobs go on"
            )
        self._is_silent = True
        if time.monotonic() - self._answered > limit_s:
            raise DriverError(
                f"the scheduler has not answered for {limit_s:.0f} s ({error}); "
                "start the same command again when it does"
            )

    def judge(self, id: str, seen: dict[str, Job]) -> Verdict | None:
        """The end of a job that the plugin still waits for; None while it is to go on waiting.

        Raises:
            Unreachable: the scheduler takes no order at present.
        """
        job = seen.get(id)
        if job is not None and job.is_alive:
            self._missing.pop(id, None)
            if job.is_given_up:
                return self._release(job)
            self._tell_why(job)
            return None
        since = self._missing.setdefault(id, time.monotonic())
        if time.monotonic() - since < self._limits.lost_s:
            return None
        if job is not None and job.state == "COMPLETED":
            return Verdict(None)
        ended = f"ended as {job.state}" if job is not None else "is not known to the scheduler any more"
        return Verdict(f"Job {id} {ended}. ")

    def _release(self, job: Job) -> Verdict | None:
        count = self._releases[job.id] = self._releases.get(job.id, 0) + 1
        if count <= NUM_RELEASES:
            say(f"job {job} is held ({job.reason}): released, {count} of {NUM_RELEASES} times")
            queue.release(job)
            return None
        queue.cancel([job])
        return Verdict(
            f"Job {job.id} was held again after {NUM_RELEASES} releases ({job.reason}) and is cancelled. "
        )

    def _tell_why(self, job: Job) -> None:
        """Say once why a job waits, if it is not for its turn."""
        if job.state == "PENDING" and job.reason not in USUAL and (job.id, job.reason) not in self._told:
            self._told.add((job.id, job.reason))
            remedy = f"; `scontrol release {job.id}` lets it start" if "eld" in job.reason else ""
            say(f"job {job} waits: {job.reason}{remedy}")
