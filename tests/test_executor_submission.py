"""How the executor submits: what it waits for, what it refuses, and that no job is sent twice."""

import threading
from pathlib import Path

import pytest
from played_slurm import PlayedExecutor, PlayedJob, Queue, play, start

from darkroom import pinned
from darkroom.slurm import queue

USER_LIMIT = (
    "sbatch: error: QOSMaxSubmitJobPerUserLimit; sbatch: error: Batch job submission failed: "
    "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)
GROUP_LIMIT = USER_LIMIT.replace("QOSMaxSubmitJobPerUserLimit", "AssocGrpSubmitJobsLimit")


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    return play(tmp_path, monkeypatch)


def test_a_submission_reaches_sbatch_with_the_account_as_given(jobs: Queue) -> None:
    executor = PlayedExecutor(Path(jobs.folder))
    plain, paid = PlayedJob(), PlayedJob(slurm_account="my lab")
    executor.run_job(plain)
    executor.run_job(paid)
    assert executor.submitted == [plain, paid], plain.errors
    assert set(jobs.jobs) == {"1", "2"}
    assert " -A " not in jobs.calls[0] and " -A my lab " in jobs.calls[1]


def test_a_submission_waits_for_the_scheduler(jobs: Queue) -> None:
    executor = PlayedExecutor(Path(jobs.folder))
    jobs.file.unlink()
    submission = threading.Thread(target=executor.run_job, args=(PlayedJob(),))
    submission.start()
    submission.join(1.5)
    assert submission.is_alive() and not executor.submitted
    jobs.write({})
    submission.join(10)
    assert len(executor.submitted) == 1


def test_a_submission_ends_the_driver_when_the_scheduler_stays_away(
    jobs: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = start(jobs, monkeypatch, unreachable_s=0)
    executor.submitted.clear()
    jobs.file.unlink()
    executor.run_job(PlayedJob())
    assert not executor.submitted
    assert "has not answered" in str(executor.given_up[0])


def test_no_job_is_submitted_whose_code_has_changed(
    jobs: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = PlayedExecutor(tmp_path)
    (tmp_path / "Snakefile").write_text("rule a: pass")
    monkeypatch.setenv(pinned.VARIABLE, "")
    pinned.hold(pinned.take_snapshot(tmp_path), tmp_path / "pinned")
    executor.run_job(PlayedJob())
    (tmp_path / "Snakefile").write_text("rule b: pass")
    monkeypatch.setattr(pinned, "_looked_at", float("-inf"))
    executor.run_job(PlayedJob())
    executor.run_job(PlayedJob())
    assert len(executor.submitted) == len(jobs.jobs) == 1
    assert "Snakefile; put it back, or start snakemake again" in str(executor.given_up[0])


def test_an_error_on_the_way_to_sbatch_ends_the_driver(jobs: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(run: str) -> None:
        raise RuntimeError("unforeseen")

    executor = PlayedExecutor(Path(jobs.folder))
    monkeypatch.setattr(queue, "jobs_of_run", fail)
    executor.run_job(PlayedJob())
    assert not jobs.jobs and "unforeseen" in str(executor.given_up[0])


@pytest.mark.parametrize(
    "words",
    [
        USER_LIMIT,
        GROUP_LIMIT,
        USER_LIMIT.split("; ")[1],
        "sbatch: error: Batch job submission failed: Resource temporarily unavailable",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    ],
)
def test_a_refusal_that_passes_is_waited_for_and_costs_no_attempt(
    jobs: Queue, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    executor = start(jobs)
    jobs.add("1", "RUNNING")
    jobs.refuse(words, words)
    first, second = PlayedJob(), PlayedJob()
    executor.submitted.clear()
    executor.run_job(first)
    executor.run_job(second)
    # The second waits behind the first and does not ask.
    assert not executor.submitted and len([c for c in jobs.calls if c.startswith("sbatch")]) == 1
    executor._lines.serve()
    assert not executor.submitted
    executor._lines.serve()
    assert executor.submitted == [first, second] and not executor.failed
    assert first.attempt == second.attempt == 1 and not first.errors
    told = capsys.readouterr().err
    assert told.count("sbatch does not take train at present (") == 1 and "costs no attempt" in told


def test_jobs_of_another_partition_do_not_wait_for_the_limit_of_one(jobs: Queue) -> None:
    executor = start(jobs)
    jobs.add("1", "RUNNING")
    jobs.refuse(USER_LIMIT)
    limited, other = PlayedJob(slurm_partition="gpu"), PlayedJob(slurm_partition="cpu")
    executor.submitted.clear()
    executor.run_job(limited)
    executor.run_job(other)
    assert executor.submitted == [other]


def test_a_limit_that_no_job_of_ones_own_can_be_the_cause_of_is_an_error(jobs: Queue) -> None:
    executor = PlayedExecutor(Path(jobs.folder))
    jobs.refuse(*[USER_LIMIT] * 9)
    job = PlayedJob()
    executor.run_job(job)
    assert not executor.failed
    executor._lines.serve()
    executor._lines.serve()
    assert executor.failed == [job] and "QOSMaxSubmitJobPerUserLimit" in job.errors[0]


@pytest.mark.parametrize(
    "words",
    [
        "sbatch: error: Batch job submission failed: Invalid qos specification",
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
        "sbatch: error: invalid partition specified: nope; sbatch: error: Batch job submission failed: "
        "Invalid partition name specified",
        USER_LIMIT.replace("QOSMaxSubmitJobPerUserLimit", "QOSMaxWallDurationPerJobLimit"),
        "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds limit)",
    ],
)
def test_a_refusal_that_stays_is_an_error_at_once_and_is_not_repeated(jobs: Queue, words: str) -> None:
    executor = PlayedExecutor(Path(jobs.folder))
    jobs.refuse(*[words] * 9)
    job = PlayedJob(retries=3)
    executor.run_job(job)
    assert executor.failed == [job] and words.split("; ")[0] in job.errors[0]
    # Snakemake restarts a job while this is below the retries.
    assert job.attempt - 1 == job.restart_times


def test_a_job_is_not_sent_again_while_one_that_was_taken_in_spite_of_an_error_lives(jobs: Queue) -> None:
    executor = PlayedExecutor(Path(jobs.folder))
    jobs.refuse("taken sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    executor.run_job(PlayedJob())
    assert set(jobs.jobs) == {"1"} and not executor.submitted
    executor._lines.serve()
    assert {id: job[1] for id, job in jobs.jobs.items()} == {"1": "CANCELLED", "2": "PENDING"}
    assert len(executor.submitted) == 1
