"""The end of a driver, and the jobs that a killed one left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from played_slurm import PlayedExecutor, PlayedJob, Queue, play, start

from snakemake_executor_plugin_darkroom.messages import DriverError
from snakemake_executor_plugin_darkroom.orphans import end_orphans


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    return play(tmp_path, monkeypatch)


def test_the_end_cancels_what_is_left_and_submits_nothing_more(jobs: Queue) -> None:
    executor = start(jobs)
    executor.submitted.clear()
    jobs.add("1", "RUNNING")
    jobs.add("2", "COMPLETED")
    executor.cancel_jobs([])
    executor.run_job(PlayedJob())
    executor._end()
    assert not executor.submitted
    assert jobs.calls == ["scancel 1"]


def test_a_plugin_that_never_returns_ends_the_driver(jobs: Queue) -> None:
    script = (
        "import sys, threading, time; from pathlib import Path\n"
        "from played_slurm import PlayedExecutor, PlayedJob\n"
        "import snakemake_executor_plugin_slurm as plugin\n"
        "plugin.Executor.run_job = lambda self, job: time.sleep(60)\n"
        "executor = PlayedExecutor(Path(sys.argv[1]))\n"
        "executor.run_jobs([PlayedJob()])\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "DARKROOM_STUCK_S": "1"}
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    done = subprocess.run(
        [sys.executable, "-c", script, jobs.folder], env=environment, capture_output=True, text=True, timeout=300
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "has not returned for 1 s; giving up" in done.stderr


def test_before_the_first_submission_the_jobs_of_a_killed_driver_are_ended(
    jobs: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    executor = PlayedExecutor(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("atexit.register", lambda *_: None)
    jobs.add("1", "PENDING")
    executor.run_jobs([PlayedJob()])
    end = time.monotonic() + 120
    while not executor.submitted and time.monotonic() < end:
        time.sleep(0.1)
    calls = [call.split()[0] for call in jobs.calls]
    assert calls == ["scancel", "sbatch"] and jobs.jobs["1"][1] == "CANCELLED"


def test_jobs_of_a_killed_driver_are_stopped_but_not_a_persons_own(
    jobs: Queue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    jobs.add("1", "RUNNING")
    jobs.add("2", "PENDING")
    jobs.add("3", "RUNNING", run="interactive")
    jobs.add("4", "RUNNING", folder=str(other))
    end_orphans(tmp_path, 10)
    states = {id: job[1] for id, job in jobs.jobs.items()}
    assert states == {"1": "FAILED", "2": "CANCELLED", "3": "RUNNING", "4": "RUNNING"}
    assert "left jobs behind: 1 (train), 2 (train); stopping them first" in capsys.readouterr().err


def test_a_job_of_a_killed_driver_that_does_not_heed_sigterm_is_cancelled(
    jobs: Queue, tmp_path: Path
) -> None:
    jobs.add("1", "RUNNING", "deaf")
    end_orphans(tmp_path, 1.5)
    assert jobs.calls == ["scancel --signal=TERM 1", "scancel 1"]


def test_a_job_of_a_killed_driver_whose_step_had_not_begun_is_asked_again(
    jobs: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakemake_executor_plugin_darkroom.orphans.ASK_AGAIN_S", 0.5)
    jobs.add("1", "RUNNING", "deaf")
    end_orphans(tmp_path, 2.5)
    assert jobs.calls[:2] == ["scancel --signal=TERM 1"] * 2 and jobs.calls[-1] == "scancel 1"


def test_nothing_starts_while_the_scheduler_cannot_say_what_still_runs(jobs: Queue, tmp_path: Path) -> None:
    jobs.file.unlink()
    with pytest.raises(DriverError, match="the scheduler does not answer"):
        end_orphans(tmp_path, 1)
