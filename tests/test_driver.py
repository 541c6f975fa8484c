"""The driver's watch over its folder and its jobs, with a queue that is played by small programs."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doc_pages import DOCS, rows_after

WORKFLOW = Path(__file__).parents[1] / "workflow"
sys.path.insert(0, str(WORKFLOW))

from driver import guard as guards  # noqa: E402
from driver import lock, queue  # noqa: E402
from driver.guard import Guard, Limits  # noqa: E402
from driver.messages import DriverError  # noqa: E402

RUN = "darkroom_123e4567-e89b-42d3-a456-426614174000"
# Plays squeue, scancel and scontrol on one file of jobs; without the file the scheduler is away.
PROGRAM = """#!{python}
import json, pathlib, sys
file = pathlib.Path({file!r})
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
if not file.exists():
    sys.exit("Unable to contact slurm controller (connect failure)")
jobs = json.loads(file.read_text())
if name == "squeue":
    for id, (run, state, reason, rule, folder) in jobs.items():
        if "--name" not in words or run in words:
            print(id, run, state, reason, rule, folder, sep="|")
elif name == "scancel":
    signal = any(word.startswith("--signal") for word in words)
    for id in words:
        if id in jobs and not (signal and jobs[id][2] == "deaf"):
            jobs[id][1] = "FAILED" if signal else "CANCELLED"
else:
    jobs[words[1]][1:3] = ["PENDING", "None"]
with open(str(file) + ".calls", "a") as calls:
    print(name, *words, file=calls)
file.write_text(json.dumps(jobs))
"""


class Queue:
    """The played queue: jobs by id as [run, state, reason, rule, folder]."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "jobs.json"
        (folder / "bin").mkdir()
        for name in ("squeue", "scancel", "scontrol"):
            path = folder / "bin" / name
            path.write_text(PROGRAM.format(python=sys.executable, file=str(self.file)))
            path.chmod(0o755)
        self.folder = str(folder)
        self.write({})

    def write(self, jobs: dict[str, list[str]]) -> None:
        self.file.write_text(json.dumps(jobs))

    def add(
        self, id: str, state: str, reason: str = "None", run: str = RUN, folder: str | None = None
    ) -> None:
        self.write({**self.jobs, id: [run, state, reason, "rule_train", folder or self.folder]})

    @property
    def jobs(self) -> dict[str, list[str]]:
        jobs: dict[str, list[str]] = json.loads(self.file.read_text())
        return jobs

    @property
    def calls(self) -> list[str]:
        calls = Path(f"{self.file}.calls")
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if not line.startswith("squeue")]


class Executor:
    """An executor as the plugin is one: it forgets its jobs when it cannot ask for their state."""

    def __init__(self) -> None:
        self.run_uuid, self.wait, self.next_seconds_between_status_checks = RUN, True, 180
        settings = SimpleNamespace(seconds_between_status_checks=0)
        self.errors: list[Exception] = []
        scheduler = SimpleNamespace(executor_error_callback=self.errors.append)
        self.workflow = SimpleNamespace(remote_execution_settings=settings, scheduler=scheduler)
        self.done: list[str] = []
        self.failed: dict[str, str] = {}
        self.submitted: list[str] = []
        self.forgets = False

    async def check_active_jobs(self, active: list[Any]) -> AsyncIterator[Any]:
        for job in active:
            if not self.forgets:
                yield job

    def run_job(self, job: str) -> None:
        self.report_job_submission(info(job))

    def cancel_jobs(self, active: list[Any]) -> None: ...

    def report_job_submission(self, job: Any) -> None:
        self.submitted.append(job.external_jobid)

    def report_job_success(self, job: Any) -> None:
        self.done.append(job.external_jobid)

    def report_job_error(self, job: Any, msg: str) -> None:
        self.failed[job.external_jobid] = msg


def info(id: str) -> Any:
    return SimpleNamespace(external_jobid=id)


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    played = Queue(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return played


@pytest.fixture
def executor() -> Executor:
    return Executor()


def make_guard(executor: Executor, **limits: float) -> Guard:
    guard = Guard(executor, Limits(**limits))
    for id in ("1", "2", "3"):
        executor.report_job_submission(info(id))
    return guard


def check(executor: Executor, *active: Any) -> list[str]:
    """The ids that a round of checks hands back."""

    async def ids() -> list[str]:
        return [job.external_jobid async for job in executor.check_active_jobs(list(active))]

    return asyncio.run(ids())


def test_a_job_that_the_plugin_forgets_is_asked_about_again(jobs: Queue, executor: Executor) -> None:
    make_guard(executor)
    jobs.add("1", "RUNNING")
    executor.forgets = True
    assert check(executor, info("1")) == ["1"]


def test_jobs_are_kept_while_the_scheduler_is_away_and_it_is_said_once(
    jobs: Queue, executor: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    make_guard(executor)
    jobs.add("1", "RUNNING")
    known = jobs.jobs
    executor.forgets = True
    jobs.file.unlink()
    assert check(executor, info("1")) == check(executor, info("1")) == ["1"]
    jobs.write(known)
    assert check(executor, info("1")) == ["1"]
    told = capsys.readouterr().err
    assert told.count("the scheduler does not answer (squeue: Unable to contact") == 1
    assert told.count("answers again") == 1


def test_a_scheduler_that_stays_away_ends_the_driver_with_a_message(jobs: Queue, executor: Executor) -> None:
    make_guard(executor, unreachable_s=0.2)
    jobs.file.unlink()
    check(executor, info("1"))
    time.sleep(0.3)
    with pytest.raises(DriverError, match=r"has not answered for 0 s .* start the same command again"):
        check(executor, info("1"))


@pytest.mark.parametrize("state", ["CANCELLED", "PREEMPTED", None])
def test_a_job_that_ended_unnoticed_is_reported_as_failed(
    jobs: Queue, executor: Executor, state: str | None
) -> None:
    make_guard(executor, lost_s=0.2)
    if state:
        jobs.add("1", state)
    job = info("1")
    assert check(executor, job) == ["1"]
    time.sleep(0.3)
    assert check(executor, job) == []
    assert (state or "is not known") in executor.failed["1"]


def test_a_job_that_completed_unnoticed_is_reported_as_done(jobs: Queue, executor: Executor) -> None:
    make_guard(executor, lost_s=0)
    jobs.add("1", "COMPLETED")
    assert check(executor, info("1")) == []
    assert executor.done == ["1"]


def test_a_held_job_is_released_three_times_and_then_given_up(
    jobs: Queue, executor: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    make_guard(executor)
    job = info("1")
    for _ in range(3):
        jobs.add("1", "PENDING", "launch failed requeued held")
        assert check(executor, job) == ["1"]
        assert jobs.jobs["1"][1:3] == ["PENDING", "None"]
    jobs.add("1", "PENDING", "launch failed requeued held")
    assert check(executor, job) == []
    assert "held again after 3 releases" in executor.failed["1"]
    assert jobs.jobs["1"][1] == "CANCELLED"
    assert (
        "job 1 (train) is held (launch failed requeued held): released, 1 of 3 times"
        in capsys.readouterr().err
    )


def test_why_a_job_waits_is_said_once(
    jobs: Queue, executor: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    make_guard(executor)
    jobs.add("1", "PENDING", "PartitionTimeLimit")
    jobs.add("2", "PENDING", "Priority")
    jobs.add("3", "PENDING", "JobHeldUser")
    for _ in range(2):
        assert check(executor, info("1"), info("2"), info("3")) == ["1", "2", "3"]
    held = "job 3 (train) waits: JobHeldUser; `scontrol release 3` lets it start\n"
    assert capsys.readouterr().err == "job 1 (train) waits: PartitionTimeLimit\n" + held


def test_a_job_that_was_accepted_though_the_submission_failed_is_cancelled(
    jobs: Queue, executor: Executor
) -> None:
    make_guard(executor)
    jobs.add("1", "RUNNING")
    jobs.add("9", "RUNNING")
    assert check(executor, info("1")) == ["1"]
    assert jobs.calls == ["scancel 9"]


def test_a_submission_waits_for_the_scheduler(jobs: Queue, executor: Executor) -> None:
    make_guard(executor)
    jobs.file.unlink()
    submission = threading.Thread(target=executor.run_job, args=("7",))
    submission.start()
    submission.join(1.5)
    assert submission.is_alive() and "7" not in executor.submitted
    jobs.write({})
    submission.join(10)
    assert "7" in executor.submitted


def test_a_submission_ends_the_driver_when_the_scheduler_stays_away(jobs: Queue, executor: Executor) -> None:
    make_guard(executor, unreachable_s=0)
    jobs.file.unlink()
    executor.run_job("7")
    assert "7" not in executor.submitted
    assert "has not answered" in str(executor.errors[0])


def test_the_end_cancels_what_is_left_and_submits_nothing_more(jobs: Queue, executor: Executor) -> None:
    guard = make_guard(executor)
    jobs.add("1", "RUNNING")
    jobs.add("2", "COMPLETED")
    executor.cancel_jobs([])
    executor.run_job("7")
    guard.end()
    assert "7" not in executor.submitted
    assert jobs.calls == ["scancel 1"]


def test_a_plugin_that_never_returns_ends_the_driver() -> None:
    script = (
        "import time; from driver.guard import Guard, Limits; from test_driver import Executor\n"
        "executor = Executor(); executor.run_job = lambda job: time.sleep(60)\n"
        "guard = Guard(executor, Limits(stuck_s=1)); executor.run_job('1')\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{WORKFLOW}{os.pathsep}{Path(__file__).parent}"}
    environment["PATH"] = f"{Path(__file__).parent / 'no-programs'}{os.pathsep}{environment['PATH']}"
    script = "import driver.queue as q; q.jobs_of_run = lambda run: {}\n" + script
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 1
    assert "has not returned for 1 s; giving up" in done.stderr


def test_jobs_of_a_killed_driver_are_stopped_but_not_a_persons_own(
    jobs: Queue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    jobs.add("1", "RUNNING")
    jobs.add("2", "PENDING")
    jobs.add("3", "RUNNING", run="interactive")
    jobs.add("4", "RUNNING", folder=str(other))
    guards.end_orphans(tmp_path, 10)
    states = {id: job[1] for id, job in jobs.jobs.items()}
    assert states == {"1": "FAILED", "2": "CANCELLED", "3": "RUNNING", "4": "RUNNING"}
    assert "left jobs behind: 1 (train), 2 (train); stopping them first" in capsys.readouterr().err


def test_a_job_of_a_killed_driver_that_does_not_heed_sigterm_is_cancelled(
    jobs: Queue, tmp_path: Path
) -> None:
    jobs.add("1", "RUNNING", "deaf")
    guards.end_orphans(tmp_path, 1.5)
    assert jobs.calls == ["scancel --signal=TERM 1", "scancel 1"]


def test_nothing_starts_while_the_scheduler_cannot_say_what_still_runs(jobs: Queue, tmp_path: Path) -> None:
    jobs.file.unlink()
    with pytest.raises(DriverError, match="the scheduler does not answer"):
        guards.end_orphans(tmp_path, 1)


def test_the_environment_sets_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_LOST_S", "7")
    assert Limits.from_environment() == Limits(lost_s=7)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A lock file that a driver on another machine left or holds, on a disk that carries no locks."""
    path = tmp_path / "driver.lock"
    path.write_text("other-login-node (process 71)\n")
    yield path


def test_a_driver_on_another_machine_is_noticed_by_its_beating(elsewhere: Path) -> None:
    beat = f"import os, time\nfor _ in range(40): time.sleep(0.1); os.utime({str(elsewhere)!r})"
    other = subprocess.Popen([sys.executable, "-c", beat])
    with pytest.raises(DriverError, match=r"at work in this folder, on other-login-node \(process 71\)"):
        lock.hold(elsewhere, watch_s=3)
    other.wait()


def test_a_dead_driver_of_another_machine_is_no_hindrance(elsewhere: Path) -> None:
    with lock.hold(elsewhere, watch_s=0.3):
        assert elsewhere.read_text().endswith(f"(process {os.getpid()})\n")


def test_a_run_name_is_told_from_a_persons_job_name() -> None:
    assert queue._RUN.fullmatch(RUN) and queue._RUN.fullmatch(RUN.removeprefix("darkroom_"))
    assert not queue._RUN.fullmatch("darkroom_train")


def test_the_docs_state_the_limits() -> None:
    text = (DOCS / "reliability.md").read_text(encoding="utf-8")
    told = {
        name.strip("`"): float(value)
        for name, value, _ in rows_after(text, "| Variable | Default | What then |")
    }
    assert told == {f"DARKROOM_{name.upper()}": value for name, value in asdict(Limits()).items()}
