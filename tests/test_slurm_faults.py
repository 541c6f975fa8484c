"""Whatever a cluster does to a training, it goes on or ends with a clear message; no sample is lost or doubled.

Real jobs of a real SLURM through the real executor plugin. Several faults hit the same training in turn, and
several trainings go on side by side. `conftest.py` prints the table of docs/reliability.md as measured.
"""

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from cluster import Cluster, Settings
from cluster.machine import kill, processes_with
from conftest import TABLE_ROW, TinyProject
from fault_runs import CHECKPOINT_EVERY_STEPS, ONE_RANK, TWO_RANKS, FaultRun, Outcome

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

RECOVERED, AFTER_ERROR = "recovered", "clean error, then recovered"

# What happens to a training in the job of that number; the name in the table is the docstring.
Fault = Callable[[FaultRun, str], None]


def requeue(run: FaultRun, job: str) -> None:
    """`scontrol requeue`"""
    run.cluster.run("scontrol", "requeue", job)
    run.restart_at_once(job)


def wall_time(run: FaultRun, job: str) -> None:
    """wall time reached"""
    run.pause(job)
    run.cluster.run("scontrol", "update", f"jobid={job}", "timelimit=1")
    run.wait_for(lambda: f"SLURM-job '{job}' failed, SLURM status is: 'TIMEOUT'" in run.told(), "timeout")


def cancelled_job(run: FaultRun, job: str) -> None:
    """`scancel` of the job from outside"""
    run.cluster.run("scancel", job)
    run.wait_for(lambda: f"SLURM-job '{job}' failed, SLURM status is: 'CANCELLED'" in run.told(), "end")


def killed_driver(run: FaultRun, job: str) -> None:
    """driver killed, started again"""
    run.pause(job)
    run.stop()
    assert run.living_jobs() == [job], "the job should outlive its driver, or nothing is tested"
    run.start()
    run.wait_for(lambda: f"left jobs behind: {job} (train_run demo)" in run.told(), "message")
    run.resume(job)


def interrupted_driver(run: FaultRun, job: str) -> None:
    """Ctrl-C, started again"""
    run.signal(signal.SIGINT)
    run.end(1)
    run.start()


def torn_checkpoint(run: FaultRun, job: str) -> None:
    """torn checkpoint"""
    run.signal(signal.SIGTERM)
    run.end(1)
    torn = run.checkpoints()[-1]
    state = torn / "state.safetensors"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    run.start()
    run.wait_for(lambda: f"{torn.name}: passed over" in run.job_logs(), "message")


def corrupted_shard(run: FaultRun, job: str) -> None:
    """corrupted shard, then made again"""
    run.signal(signal.SIGINT)
    run.end(1)
    shard = run.results("cache") / "part-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    run.start("train", "--retries", "0")
    run.end(1)
    assert "part-00001.safetensors: changed since" in run.job_logs()
    shard.unlink()
    run.start()


def signal_before_the_limit(run: FaultRun, job: str) -> None:
    """SIGUSR1 before the wall time"""
    run.cluster.run("scancel", "--signal=USR1", job)
    run.wait_for(lambda: "stopped by a signal" in run.job_logs(), "message")


def killed_rank(run: FaultRun, job: str) -> None:
    """one rank of two killed"""
    marks = {"SLURM_JOB_ID": job, "SLURM_PROCID": "1", "SLURM_CLUSTER_NAME": run.cluster.name}
    for pid in processes_with(marks):
        kill(pid)
    run.wait_for(lambda: f"SLURM-job '{job}' failed" in run.told(), "end")


def held_job(run: FaultRun, job: str) -> None:
    """job left 'requeued held'"""
    run.wait_for(lambda: "is held (launch failed requeued held): released, 1 of" in run.told(), "release")
    for node, state in run.cluster.node_states().items():
        if state.startswith("drain"):
            run.cluster.run("scontrol", "update", f"nodename={node}", "state=resume")
    run.restart_at_once(run.living_jobs()[0])


def out_of_memory(run: FaultRun, job: str) -> None:
    """killed for memory"""
    run.wait_for(lambda: "exceeded memory limit" in run.job_logs(), "kill")
    run.wait_for(lambda: "trying again: " in run.told(), "second attempt")


def preemption(run: FaultRun, job: str) -> None:
    """preemption by a higher partition"""
    run.pause(job)
    whole = ("--partition=gpu", "--nodes=2", "--exclusive", f"--output={run.folder}/higher.log")
    run.cluster.run("sbatch", *whole, "--wrap=sleep 2")
    run.restart_at_once(job)


def controller_down(run: FaultRun, job: str) -> None:
    """controller down for 30 s"""
    run.pause(job)
    run.cluster.stop_controller()
    time.sleep(30)
    run.wait_for(lambda: "the scheduler does not answer" in run.told(), "message")
    run.cluster.start_controller()
    run.wait_for(lambda: "the scheduler answers again" in run.told(), "message")
    run.resume(job)


def node_crash(run: FaultRun, job: str) -> None:
    """node crash"""
    run.cluster.crash_node(run.cluster.run("squeue", "-h", "-j", job, "-o", "%N").strip())
    run.restart_at_once(job)


def full_disk(run: FaultRun, job: str) -> None:
    """disk full, then freed"""
    filler = run.folder / "checkpoints" / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass
    run.wait_for(lambda: re.search(r"step-\d+ could not be written", run.job_logs()), "message")
    whole = run.checkpoints()
    filler.unlink()
    run.wait_for(lambda: run.checkpoints()[-1] not in whole, "checkpoint after the disk was freed")


# Each is one training: what happens to it, in turn, and how many steps that may repeat. What tells the training
# to stop costs none; what does not, an interval of checkpoints, or two when one was being written.
LOST = 2 * CHECKPOINT_EVERY_STEPS
Faults = dict[Fault, int]
BAD_DAY: Faults = {
    requeue: 0, wall_time: 0, cancelled_job: 0, killed_driver: 0, interrupted_driver: 0,
    torn_checkpoint: LOST, corrupted_shard: 0,
}  # fmt: skip
TWO_RANKS_HIT: Faults = {signal_before_the_limit: 0, killed_rank: LOST}
BAD_CLUSTER: Faults = {
    held_job: 0, out_of_memory: 0, full_disk: 0, preemption: 0, controller_down: 0, node_crash: LOST,
}  # fmt: skip
FAULTS = {**BAD_DAY, **TWO_RANKS_HIT, **BAD_CLUSTER}
# These hit before the first step.
EARLY = {held_job, out_of_memory}


def title(fault: Fault) -> str:
    """The name of a fault in the table."""
    return (fault.__doc__ or "").strip()


class Lab:
    """Copies of a project whose data stages are done, and what was measured on them."""

    def __init__(self, finished: Path, folder: Path, cluster: Cluster, pool: ThreadPoolExecutor) -> None:
        self._finished, self._folder, self._cluster = finished, folder, cluster
        self.undisturbed = {ranks: pool.submit(self._train, ranks) for ranks in (1, 2)}

    @contextmanager
    def project(self, name: str, cluster: Cluster | None = None, **resources: Any) -> Iterator[FaultRun]:
        """A project of its own, of which nothing is left running; `resources` are the training's."""
        run = FaultRun(
            self._finished, self._folder / name, cluster or self._cluster, {**ONE_RANK, **resources}
        )
        try:
            yield run
        finally:
            run.stop()
            if left := run.living_jobs():
                run.cluster.run("scancel", *left)

    def _train(self, num_ranks: int) -> FaultRun:
        """What comes of the training when nothing happens to it."""
        with self.project(f"undisturbed-{num_ranks}", **(TWO_RANKS if num_ranks == 2 else {})) as run:
            run.start()
            run.end()
            assert run.steps_repeated() == run.orphans == 0
        return run

    def bad_day(self, faults: Sequence[Fault]) -> dict[Fault, Outcome]:
        """What the others on a cluster and oneself may do to a training."""
        with self.project("bad-day") as run:
            return self._hit(run, faults, 1)

    def two_ranks_hit(self, faults: Sequence[Fault]) -> dict[Fault, Outcome]:
        """What hits a training of two ranks."""
        with self.project("two-ranks", **TWO_RANKS) as run:
            return self._hit(run, faults, 2)

    def bad_cluster(self, faults: Sequence[Fault]) -> dict[Fault, Outcome]:
        """What a cluster that fails in every way does to a training."""
        folder = self._folder / "bad-cluster-machine"
        folder.mkdir()
        prolog, broken = folder / "prolog", folder / "broken"
        # A node whose prolog fails gives its job back, and the scheduler holds it.
        prolog.write_text(f"#!/bin/sh\nrm {broken} 2>/dev/null && exit 1\nexit 0\n")
        prolog.chmod(0o755)
        if held_job in faults:
            broken.touch()
        # A busy machine's nodes may be slow to answer a controller that has come back.
        settings = Settings(enforce_memory=True, node_timeout_s=20, kill_wait_s=30, extra=f"Prolog={prolog}")
        resources = {"slurm_partition": "gpu-low"}
        if out_of_memory in faults:
            resources["mem_mb"] = "attempt ** 3 * 400"
        with (
            small_disk(folder / "disk") as is_small,
            Cluster(settings) as cluster,
            self.project("bad-cluster", cluster, **resources) as run,
        ):
            (run.folder / "checkpoints").symlink_to(folder / "disk")
            return self._hit(run, [f for f in faults if is_small or f is not full_disk], 1)

    def _hit(self, run: FaultRun, faults: Sequence[Fault], num_ranks: int) -> dict[Fault, Outcome]:
        """Let a training be hit by one fault after the other, and measure what each cost."""
        repeated = []
        run.start()
        for fault in faults:
            try:
                job = "" if fault in EARLY else run.progress()
                repeated.append(run.steps_repeated())
                fault(run, job)
            except Exception as error:
                error.add_note(f"while it was hit by: {title(fault)}")
                raise
        run.end()
        undisturbed = self.undisturbed[num_ranks].result()
        differ = run.steps_that_differ(undisturbed)
        assert run.weights() == undisturbed.weights()
        costs = [after - before for before, after in pairwise([*repeated, run.steps_repeated()])]
        ended = {corrupted_shard: AFTER_ERROR}
        return {
            fault: Outcome(ended.get(fault, RECOVERED), cost, differ, run.orphans)
            for fault, cost in zip(faults, costs, strict=True)
        }

    def killed_part(self) -> None:
        """Kill the job of a part half-way; its files come out the same, and none was there half-written."""
        with self.project("part") as run:
            parts = [run.results("download") / f"part-00000.{kind}" for kind in ("tar", "parquet", "json")]
            written = [part.read_bytes() for part in parts]
            for part in parts:
                part.unlink()
            run.start(str(parts[0].relative_to(run.folder)))
            log = run.folder / "logs/datasets/demo/download/part-00000.log"
            run.wait_for(lambda: log.exists() and "URLs," in log.read_text(), "progress of the download")
            run.cluster.run("scancel", "--signal=KILL", *run.living_jobs())
            run.wait_for(lambda: "trying again: " in run.told(), "second attempt")
            assert not any(part.exists() for part in parts)
            run.end()
            assert [part.read_bytes() for part in parts] == written and run.orphans == 0


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a disk of 32 MB at `folder`; whether that was allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "darkroom-test", str(folder)]
    is_small = subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    try:
        yield is_small
    finally:
        if is_small:
            subprocess.run(["umount", "--lazy", folder], check=True)


Futures = Mapping[Callable[..., Any], Future[Any]]


@pytest.fixture(scope="module")
def under_way(
    trained_project: TinyProject,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Futures]:
    """The chosen faults, side by side: fault -> the outcomes of its training, `Lab.killed_part` -> None.

    `Lab.project` -> the trainings to which nothing happens, of one process and of two ranks on one node.
    """
    calls = [item.callspec for item in request.session.items if hasattr(item, "callspec")]
    chosen = [call.params["fault"] for call in calls if "fault" in call.params]
    # As long between SIGTERM and SIGKILL as on a cluster whose settings nobody touched.
    with Cluster(Settings(kill_wait_s=30)) as cluster, ThreadPoolExecutor(6) as pool:
        lab = Lab(trained_project.folder, tmp_path_factory.mktemp("faults"), cluster, pool)
        futures: dict[Callable[..., Any], Future[Any]] = {}
        for train, all_faults in (
            (lab.bad_cluster, BAD_CLUSTER), (lab.bad_day, BAD_DAY), (lab.two_ranks_hit, TWO_RANKS_HIT),
        ):  # fmt: skip
            if faults := [fault for fault in all_faults if fault in chosen]:
                futures |= dict.fromkeys(faults, pool.submit(train, faults))
        futures[Lab.killed_part] = pool.submit(lab.killed_part)
        futures[Lab.project] = pool.submit(lambda: [future.result() for future in lab.undisturbed.values()])
        yield futures


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_training_survives(
    fault: Fault, under_way: Futures, record_property: Callable[[str, object], None]
) -> None:
    outcome = under_way[fault].result().get(fault)
    if outcome is None:
        pytest.skip("no small disk may be mounted here")
    record_property(TABLE_ROW, outcome.row(title(fault)))
    assert outcome.steps_repeated <= FAULTS[fault]
    assert (outcome.steps_that_differ, outcome.orphans) == (0, 0)


def test_a_part_whose_job_is_killed_half_way_leaves_no_half_written_file(under_way: Futures) -> None:
    under_way[Lab.killed_part].result()


def test_one_process_and_one_node_train_by_the_rule_of_several_nodes(under_way: Futures) -> None:
    alone, on_one_node = under_way[Lab.project].result()
    losses = [
        pl.read_parquet(run.results("train") / "history.parquet")["loss"] for run in (alone, on_one_node)
    ]
    # The same samples with the same noise: only the order of sums differs.
    np.testing.assert_allclose(losses[0][:12], losses[1][:12], rtol=0.02)
