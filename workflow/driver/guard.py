"""Watches the jobs that a driver has on a cluster, so that it neither waits forever nor leaves any behind.

The executor plugin forgets its jobs when a status query fails, takes some ends for running, and waits for a
held job without end. A `Guard` wraps its checks: whatever the plugin neither reports nor hands back is asked
about again, and the queue itself is the judge of what the plugin still believes to be running.
"""

import asyncio
import atexit
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driver import queue
from driver.messages import DriverError, say
from driver.queue import Job, Unreachable

NUM_RELEASES = 3


@dataclass(frozen=True)
class Limits:
    """Seconds after which the guard acts; the environment's DARKROOM_<NAME> changes one."""

    unreachable_s: float = 1800  # the scheduler gives no answer: end with a message
    lost_s: float = 120  # the queue says a job has ended or is gone, the plugin does not: settle it
    stuck_s: float = 900  # one call of the plugin does not return: end with a message
    orphan_s: float = 600  # jobs of a killed driver save after SIGTERM: then they are cancelled

    @classmethod
    def from_environment(cls) -> "Limits":
        """The defaults with what the environment sets."""
        names = {name: f"DARKROOM_{name.upper()}" for name in cls.__dataclass_fields__}
        return cls(**{name: float(os.environ[key]) for name, key in names.items() if key in os.environ})


def start(workflow: Any) -> None:
    """Clear what a killed driver left in the queue, then guard this driver's jobs until it ends."""
    if workflow.executor_plugin.name != "slurm":
        return
    limits = Limits.from_environment()
    end_orphans(Path.cwd(), limits.orphan_s)
    guard = Guard(workflow.scheduler._executor, limits)
    atexit.register(guard.end)
    # Ctrl-C cancels the jobs; by default a SIGTERM waits for them, which takes days.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


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
            f"an earlier snakemake of this folder left jobs behind: {_listed(orphans)}; "
            "stopping them first (a training saves and will go on from there)"
        )
        begin, asked = time.monotonic(), set[str]()
        while orphans and time.monotonic() - begin < patience_s:
            running = [job for job in orphans if job.state == "RUNNING"]
            if new := [job for job in running if job.id not in asked]:
                queue.terminate(new)
                asked |= {job.id for job in new}
            if waiting := [job for job in orphans if job.state not in ("RUNNING", "COMPLETING")]:
                queue.cancel(waiting)
            time.sleep(1)
            orphans = queue.living_jobs_of_folder(folder)
        if orphans:
            say(f"still there after {patience_s:.0f} s, cancelled: {_listed(orphans)}")
            queue.cancel(orphans)
        begin = time.monotonic()
        while orphans := queue.living_jobs_of_folder(folder):
            if time.monotonic() - begin > patience_s:
                raise DriverError(
                    f"jobs of an earlier snakemake do not end: {_listed(orphans)}; scancel them"
                )
            time.sleep(1)
        say("they are gone")
    except Unreachable as error:
        raise DriverError(f"the scheduler does not answer ({error}); start again when it does") from None


class Guard:
    """Wraps the checks, submissions and cancellation of an executor; see the module."""

    def __init__(self, executor: Any, limits: Limits) -> None:
        self._executor, self._limits, self._run = executor, limits, executor.run_uuid
        self._submitting = threading.Lock()
        self._submitted: set[str] = set()
        self._settled: set[int] = set()
        self._missing: dict[str, float] = {}
        self._releases: dict[str, int] = {}
        self._told: set[tuple[str, str]] = set()
        self._answered = time.monotonic()
        self._is_silent = self._is_ending = False
        self._calls: dict[int, float] = {}
        self._ask, self._submit, self._cancel = (
            executor.check_active_jobs,
            executor.run_job,
            executor.cancel_jobs,
        )
        executor.check_active_jobs, executor.run_job = self._check, self._submit_when_possible
        executor.cancel_jobs, executor.sleep = self._cancel_all, self._sleep
        for name in ("report_job_success", "report_job_error", "report_job_submission"):
            setattr(executor, name, self._noting(name, getattr(executor, name)))
        threading.Thread(target=self._watch, name="cluster-guard", daemon=True).start()

    def end(self) -> None:
        """Leave no job in the queue: also those that were being submitted when the end came."""
        self._is_ending = True
        try:
            left = [job for job in queue.jobs_of_run(self._run).values() if job.is_alive]
            if left:
                queue.cancel(left)
                say(f"cancelled: {_listed(left)}")
        except Unreachable:
            if self._submitted:
                say(
                    f"could not cancel this run's jobs; they go on. `scancel --name={self._run}` stops them, "
                    "and so does the next snakemake in this folder"
                )

    async def _check(self, active: list[Any]) -> AsyncIterator[Any]:
        """The executor's check of its jobs; every job that is not settled is handed back."""
        self._settled.clear()
        with self._timed():
            async for _ in self._ask(active):
                pass
        left = [job for job in active if id(job) not in self._settled]
        seen = self._look() if left else None
        for job in left:
            try:
                is_settled = seen is not None and self._settle(job, seen)
            except Unreachable:
                is_settled = False
            if not is_settled:
                yield job

    def _look(self) -> dict[str, Job] | None:
        """This run's jobs in the queue; None while the scheduler does not answer.

        Raises:
            DriverError: it has not answered for too long.
        """
        # While a job is being submitted, the queue may know it before we do.
        is_quiet = self._submitting.acquire(blocking=False)
        try:
            seen = queue.jobs_of_run(self._run)
            if is_quiet and (
                strays := [j for j in seen.values() if j.is_alive and j.id not in self._submitted]
            ):
                say(f"submitted though the submission was reported as failed, cancelled: {_listed(strays)}")
                queue.cancel(strays)
        except Unreachable as error:
            self._note_silence(error)
            return None
        finally:
            if is_quiet:
                self._submitting.release()
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
            self._is_ending = True
            raise DriverError(
                f"the scheduler has not answered for {limit_s:.0f} s ({error}); "
                "start the same command again when it does"
            )

    def _settle(self, info: Any, seen: dict[str, Job]) -> bool:
        """Report a job that will never end by itself; whether it was reported."""
        job = seen.get(info.external_jobid)
        if job is not None and job.is_alive:
            self._missing.pop(job.id, None)
            return self._settle_held(info, job) if job.is_given_up else self._tell_why(job)
        since = self._missing.setdefault(info.external_jobid, time.monotonic())
        if time.monotonic() - since < self._limits.lost_s:
            return False
        if job is not None and job.state == "COMPLETED":
            self._executor.report_job_success(info)
        else:
            ended = f"ended as {job.state}" if job is not None else "is not known to the scheduler any more"
            self._executor.report_job_error(info, msg=f"Job {info.external_jobid} {ended}. ")
        return True

    def _settle_held(self, info: Any, job: Job) -> bool:
        count = self._releases[job.id] = self._releases.get(job.id, 0) + 1
        if count <= NUM_RELEASES:
            say(f"job {job} is held ({job.reason}): released, {count} of {NUM_RELEASES} times")
            queue.release(job)
            return False
        queue.cancel([job])
        msg = f"Job {job.id} was held again after {NUM_RELEASES} releases ({job.reason}) and is cancelled. "
        self._executor.report_job_error(info, msg=msg)
        return True

    def _tell_why(self, job: Job) -> bool:
        """Say once why a job waits, if it is not for its turn."""
        usual = {"None", "Priority", "Resources", "BeginTime", "Cleaning"}
        if job.state == "PENDING" and job.reason not in usual and (job.id, job.reason) not in self._told:
            self._told.add((job.id, job.reason))
            remedy = f"; `scontrol release {job.id}` lets it start" if "eld" in job.reason else ""
            say(f"job {job} waits: {job.reason}{remedy}")
        return False

    def _submit_when_possible(self, job: Any) -> None:
        """Submit a job when the scheduler answers, so that an outage costs no attempt."""
        with self._submitting:
            while not self._is_ending:
                try:
                    queue.jobs_of_run(self._run)
                    break
                except Unreachable as error:
                    try:
                        self._note_silence(error)
                    except DriverError as lost:
                        self._executor.workflow.scheduler.executor_error_callback(lost)
                        return
                time.sleep(1)
            if not self._is_ending:
                self._answered = time.monotonic()
                with self._timed():
                    self._submit(job)

    def _cancel_all(self, active: list[Any]) -> None:
        self._is_ending = True
        self._cancel(active)

    async def _sleep(self) -> None:
        """The executor's pause between checks, but never above what the profile sets; it ends with the driver."""
        settings = self._executor.workflow.remote_execution_settings
        pause_s = min(
            self._executor.next_seconds_between_status_checks, settings.seconds_between_status_checks
        )
        end = time.monotonic() + pause_s
        while self._executor.wait and time.monotonic() < end:
            await asyncio.sleep(0.5)

    def _noting(self, name: str, report: Any) -> Any:
        def noted(info: Any, *args: Any, **kwargs: Any) -> None:
            if name == "report_job_submission":
                self._submitted.add(info.external_jobid)
            else:
                self._settled.add(id(info))
            report(info, *args, **kwargs)

        return noted

    @contextmanager
    def _timed(self) -> Any:
        me = threading.get_ident()
        self._calls[me] = time.monotonic()
        try:
            yield
        finally:
            del self._calls[me]

    def _watch(self) -> None:
        """End the driver when the plugin waits forever for a command of the scheduler."""
        while True:
            time.sleep(1)
            begun = min(self._calls.copy().values(), default=time.monotonic())
            if time.monotonic() - begun > self._limits.stuck_s:
                say(f"a call to the scheduler has not returned for {self._limits.stuck_s:.0f} s; giving up")
                self.end()
                os._exit(1)


def _listed(jobs: list[Job]) -> str:
    names = [str(job) for job in jobs[:10]]
    return ", ".join(names) + (f" and {len(jobs) - 10} more" if len(jobs) > 10 else "")
