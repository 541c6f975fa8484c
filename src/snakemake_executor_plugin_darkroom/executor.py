"""The SLURM plugin's executor, watched so that it neither waits forever nor leaves jobs behind.

The plugin forgets its jobs when a status query fails, takes some ends for running, waits for a held job without
end, and spends an attempt on every refused submission. Here whatever it neither reports nor hands back is asked
about again, the queue itself is the judge of what it still believes to be running, and a submission that is
refused for the time being is repeated.

Everything overridden is public: `run_jobs`, `run_job`, `check_active_jobs`, `cancel_jobs`, `sleep` and
`report_...` of Snakemake's interface, `get_account_arg` of the plugin. Not documented by the plugin, but with no
other way to them: `run_uuid`, the name of its jobs in the queue, `array_jobs`, and the words of a refused
submission. tests/test_driver.py runs the real plugin and fails if they change.
"""

import asyncio
import atexit
import contextlib
import os
import shlex
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import snakemake_executor_plugin_slurm as plugin

from darkroom.pinned import PinError, check_code
from darkroom.slurm import queue
from darkroom.slurm.commands import Unreachable
from darkroom.slurm.queue import Job
from snakemake_executor_plugin_darkroom.messages import DriverError, say
from snakemake_executor_plugin_darkroom.orphans import end_orphans, listed
from snakemake_executor_plugin_darkroom.submission import Lines
from snakemake_executor_plugin_darkroom.watch import Limits, Watch

ExecutorSettings = plugin.ExecutorSettings

# A refused submission is repeated after as long a pause at most.
LONGEST_PAUSE_S = 30.0


class Executor(plugin.Executor):  # type: ignore[misc]
    """See the module."""

    def __init__(self, workflow: Any, logger: Any) -> None:
        # The thread that checks jobs starts in Snakemake's own __init__, before `__post_init__`.
        self._refusal: str | None = None
        self._submitted: set[str] = set()
        self._settled: set[int] = set()
        self._calls: dict[int, float] = {}
        self._has_begun = self._is_ending = False
        super().__init__(workflow, logger)

    def __post_init__(self, test_mode: bool = False) -> None:
        super().__post_init__(test_mode)
        if self.array_jobs:
            raise DriverError(
                "darkroom-array-jobs: jobs are watched, released and sent again one by one; leave it out"
            )
        longest_s = self.workflow.remote_execution_settings.seconds_between_status_checks
        self._limits = Limits.from_environment()
        self._watch = Watch(self.run_uuid, self._limits)
        self._lines = Lines(self._submit, min(max(1.0, longest_s), LONGEST_PAUSE_S))

    # Begin and end

    def run_jobs(self, jobs: list[Any]) -> None:
        """Submit jobs; before the first ones, what a killed driver of this folder left behind is ended."""
        if not self._has_begun:
            self._begin()
        super().run_jobs(jobs)

    def _begin(self) -> None:
        # Not in `__post_init__`: there Snakemake has not called the workflow's `onstart`, which holds the folder.
        self._has_begun = True
        # Ctrl-C cancels the jobs; by default a SIGTERM waits for them, which takes days.
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        end_orphans(Path.cwd(), self._limits.orphan_s)
        atexit.register(self._end)
        for target in (self._watch_calls, self._serve_lines):
            threading.Thread(target=target, name=f"darkroom-{target.__name__}", daemon=True).start()

    def _end(self) -> None:
        """Leave no job in the queue: also those that were being submitted when the end came."""
        self._is_ending = True
        try:
            left = [job for job in queue.jobs_of_run(self.run_uuid).values() if job.is_alive]
            if left:
                queue.cancel(left)
                say(f"cancelled: {listed(left)}")
        except Unreachable:
            if self._submitted:
                say(
                    f"could not cancel this run's jobs; they go on. `scancel --name={self.run_uuid}` stops them, "
                    "and so does the next snakemake in this folder"
                )

    def cancel_jobs(self, active_jobs: list[Any]) -> None:
        """Cancel the jobs, and submit no more."""
        self._is_ending = True
        super().cancel_jobs(active_jobs)

    def shutdown(self) -> None:
        """End; what waits to be submitted is not any more."""
        self._is_ending = True
        super().shutdown()

    # Submission

    def run_job(self, job: Any) -> None:
        """Submit a job, or let it wait behind those that are refused for the time being."""
        self._lines.add(job)

    def _submit(self, job: Any) -> bool:
        """Submit a job when the scheduler answers; False when it is to be sent again later."""
        try:
            # The job would refuse to run itself, once for each of its attempts.
            check_code(pause_s=1)
            while not self._is_ending and not self._is_clear():
                time.sleep(1)
            if self._is_ending:
                return True
            self._refusal = None
            with self._timed():
                # Snakemake calls executors outside of an event loop, so the plugin reports before it returns.
                super().run_job(job)
            return self._refusal is None
        except PinError as error:
            self._give_up(DriverError(str(error)))
            return True
        except Exception as error:
            # In a thread that nobody waits for: without this the driver would go on waiting for the job.
            self._give_up(error)
            return True

    def _give_up(self, error: Exception) -> None:
        self._is_ending = True
        self.workflow.scheduler.executor_error_callback(error)

    def _is_clear(self) -> bool:
        """Whether the scheduler answers and knows no job of this run that we do not."""
        seen = self._watch.look()
        return seen is not None and not self._cancel_strays(seen)

    def _cancel_strays(self, seen: dict[str, Job]) -> bool:
        """Cancel the jobs that were taken though sbatch failed; whether there are any."""
        strays = [job for job in seen.values() if job.is_alive and job.id not in self._submitted]
        new = [job for job in strays if job.state != "COMPLETING"]
        try:
            if new:
                queue.cancel(new)
                say(f"submitted though the submission was reported as failed, cancelled: {listed(new)}")
        except Unreachable:
            return True
        return bool(strays)

    def _serve_lines(self) -> None:
        while not self._is_ending:
            time.sleep(self._lines.pause_s)
            self._lines.serve()

    def get_account_arg(self, job: Any) -> Iterator[str]:
        """The account as it is given: sbatch says itself when it does not take it.

        The plugin asks the database for each job, which not every cluster has, and guesses where none is given.
        """
        account = str(job.resources.get("slurm_account") or "").strip()
        yield f" -A {shlex.quote(account)}" if account else ""

    def report_job_submission(self, job_info: Any, register_job: bool = True) -> None:
        """Note the job's number before Snakemake does."""
        self._submitted.add(job_info.external_jobid)
        super().report_job_submission(job_info, register_job)

    def report_job_success(self, job_info: Any) -> None:
        """Note that the job is settled."""
        self._settled.add(id(job_info))
        super().report_job_success(job_info)

    def report_job_error(self, job_info: Any, msg: str | None = None, **kwargs: Any) -> None:
        """Note that the job is settled; a refused submission that may pass is no error yet."""
        if job_info.external_jobid is not None:
            self._settled.add(id(job_info))
        else:
            # The plugin adds the whole command.
            words = (msg or "").split("    sbatch call:")[0]
            words = words.removeprefix("SLURM sbatch failed. The error message was '").rstrip("'.\n ")
            if self._lines.may_pass(job_info.job, words):
                self._refusal = words
                return
            # The same request would be refused as often as there are retries.
            job_info.job.attempt = job_info.job.restart_times + 1
        super().report_job_error(job_info, msg, **kwargs)

    # Checks

    async def check_active_jobs(self, active_jobs: list[Any]) -> AsyncIterator[Any]:
        """The plugin's check of its jobs; every job that is not settled is handed back."""
        self._settled.clear()
        with self._timed():
            async for _ in super().check_active_jobs(active_jobs):
                pass
        left = [job for job in active_jobs if id(job) not in self._settled]
        seen = self._look() if left else None
        for job in left:
            if seen is None or not self._settle(job, seen):
                yield job

    def _look(self) -> dict[str, Job] | None:
        # While a job is being submitted, the queue may know it before we do.
        is_quiet = self._lines.submitting.acquire(blocking=False)
        try:
            seen = self._watch.look()
            if is_quiet and seen is not None:
                self._cancel_strays(seen)
            return seen
        except DriverError:
            self._is_ending = True
            raise
        finally:
            if is_quiet:
                self._lines.submitting.release()

    def _settle(self, job_info: Any, seen: dict[str, Job]) -> bool:
        """Report a job that will never end by itself; whether it was reported."""
        try:
            verdict = self._watch.judge(job_info.external_jobid, seen)
        except Unreachable:
            return False
        if verdict is None:
            return False
        if verdict.error is None:
            self.report_job_success(job_info)
        else:
            self.report_job_error(job_info, msg=verdict.error)
        return True

    async def sleep(self) -> None:
        """The plugin's pause between checks, but never above what the profile sets; it ends with the driver."""
        longest_s = self.workflow.remote_execution_settings.seconds_between_status_checks
        end = time.monotonic() + min(self.next_seconds_between_status_checks, longest_s)
        while self.wait and time.monotonic() < end:
            await asyncio.sleep(0.5)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        me = threading.get_ident()
        self._calls[me] = time.monotonic()
        try:
            yield
        finally:
            del self._calls[me]

    def _watch_calls(self) -> None:
        """End the driver when the plugin waits forever for a command of the scheduler."""
        while True:
            time.sleep(1)
            begun = min(self._calls.copy().values(), default=time.monotonic())
            if time.monotonic() - begun > self._limits.stuck_s:
                say(f"a call to the scheduler has not returned for {self._limits.stuck_s:.0f} s; giving up")
                self._end()
                os._exit(1)
