"""The executor's watch over its jobs: the real plugin, on a queue that is played by small programs."""

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as plugin
from doc_pages import DOCS, rows_after
from played_slurm import RUN, PlayedExecutor, Queue, info, play, start
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

import snakemake_executor_plugin_darkroom as package
from darkroom.slurm import queue
from snakemake_executor_plugin_darkroom.messages import DriverError
from snakemake_executor_plugin_darkroom.watch import Limits


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    return play(tmp_path, monkeypatch)


def check(executor: PlayedExecutor, *active: Any) -> list[str]:
    """The ids that a round of checks hands back."""

    async def ids() -> list[str]:
        return [job.external_jobid async for job in executor.check_active_jobs(list(active))]

    return asyncio.run(ids())


def test_snakemake_finds_the_executor_by_name() -> None:
    found = ExecutorPluginRegistry().get_plugin("darkroom")
    assert found.executor is package.Executor and found.common_settings.non_local_exec
    # What the plugin starts inside a job.
    assert ExecutorPluginRegistry().is_installed("slurm-jobstep")


def test_arrays_of_jobs_are_refused(jobs: Queue) -> None:
    with pytest.raises(DriverError, match="darkroom-array-jobs"):
        PlayedExecutor(Path(jobs.folder), array_jobs="all")


def test_the_checks_survive_that_they_begin_before_the_executor_is_ready(
    jobs: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where Snakemake has its temporary folders.
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake").mkdir()
    whole = plugin.Executor.__post_init__

    def slow(self: Any, test_mode: bool = False) -> None:
        time.sleep(0.5)
        whole(self, test_mode)

    monkeypatch.setattr(plugin.Executor, "__post_init__", slow)
    executor = PlayedExecutor(Path(jobs.folder), init_s=0)
    assert executor.wait_thread.is_alive()
    executor._lines.serve()
    executor.shutdown()
    assert not executor.wait_thread.is_alive()


def test_a_job_that_the_plugin_forgets_is_asked_about_again(jobs: Queue) -> None:
    executor = start(jobs)
    jobs.add("1", "RUNNING")
    jobs.database.unlink()
    assert check(executor, info("1")) == ["1"]


def test_jobs_are_kept_while_the_scheduler_is_away_and_it_is_said_once(
    jobs: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = start(jobs)
    jobs.add("1", "RUNNING")
    known = jobs.jobs
    jobs.database.unlink()
    jobs.file.unlink()
    assert check(executor, info("1")) == check(executor, info("1")) == ["1"]
    jobs.write(known)
    assert check(executor, info("1")) == ["1"]
    told = capsys.readouterr().err
    assert told.count("the scheduler does not answer (squeue: Unable to contact") == 1
    assert told.count("answers again") == 1


def test_a_scheduler_that_stays_away_ends_the_driver_with_a_message(
    jobs: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = start(jobs, monkeypatch, unreachable_s=0.2)
    jobs.file.unlink()
    time.sleep(0.3)
    with pytest.raises(DriverError, match=r"has not answered for 0 s .* start the same command again"):
        check(executor, info("1"))


@pytest.mark.parametrize("state", ["CANCELLED", "PREEMPTED", None])
def test_a_job_that_ended_unnoticed_is_reported_as_failed(
    jobs: Queue, monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    executor = start(jobs, monkeypatch, lost_s=0.2)
    if state:
        jobs.add("1", state)
    job = info("1")
    assert check(executor, job) == ["1"]
    time.sleep(0.3)
    assert check(executor, job) == []
    assert executor.failed == [job.job] and (state or "is not known") in job.job.errors[0]
    # A job that ran may be sent again.
    assert job.job.attempt == 1


def test_a_job_that_completed_unnoticed_is_reported_as_done(
    jobs: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = start(jobs, monkeypatch, lost_s=0)
    jobs.add("1", "COMPLETED")
    job = info("1")
    assert check(executor, job) == []
    assert executor.done == [job.job]


def test_a_held_job_is_released_three_times_and_then_given_up(
    jobs: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = start(jobs)
    job = info("1")
    for _ in range(3):
        jobs.add("1", "PENDING", "launch failed requeued held")
        assert check(executor, job) == ["1"]
        assert jobs.jobs["1"][1:3] == ["PENDING", "None"]
    jobs.add("1", "PENDING", "launch failed requeued held")
    assert check(executor, job) == []
    assert "held again after 3 releases" in job.job.errors[0]
    assert jobs.jobs["1"][1] == "CANCELLED"
    told = "job 1 (train) is held (launch failed requeued held): released, 1 of 3 times"
    assert told in capsys.readouterr().err


def test_why_a_job_waits_is_said_once(jobs: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    executor = start(jobs)
    jobs.add("1", "PENDING", "PartitionTimeLimit")
    jobs.add("2", "PENDING", "Priority")
    jobs.add("3", "PENDING", "JobHeldUser")
    for _ in range(2):
        assert check(executor, info("1"), info("2"), info("3")) == ["1", "2", "3"]
    held = "job 3 (train) waits: JobHeldUser; `scontrol release 3` lets it start\n"
    assert capsys.readouterr().err == "job 1 (train) waits: PartitionTimeLimit\n" + held


def test_a_job_that_was_accepted_though_the_submission_failed_is_cancelled(jobs: Queue) -> None:
    executor = start(jobs)
    jobs.add("1", "RUNNING")
    jobs.add("9", "RUNNING")
    assert check(executor, info("1")) == ["1"]
    assert jobs.calls == ["scancel 9"]


def test_the_pause_between_checks_is_never_longer_than_the_profile_says(jobs: Queue) -> None:
    executor = PlayedExecutor(Path(jobs.folder), pause_s=0.6)
    executor.next_seconds_between_status_checks = 180
    begin = time.monotonic()
    asyncio.run(executor.sleep())
    assert 0.5 < time.monotonic() - begin < 90


def test_the_environment_sets_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_LOST_S", "7")
    assert Limits.from_environment() == Limits(lost_s=7)


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
