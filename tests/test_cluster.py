"""The tests' cluster does what real ones do: places, preempts, requeues, loses nodes; and leaves no trace."""

import time
from pathlib import Path

import pytest
from cluster import Cluster, Settings
from cluster.machine import processes_with

pytestmark = pytest.mark.slurm


def state_of(cluster: Cluster, number: str) -> str:
    return next(job["state"] for job in cluster.jobs() if job["id"] == number)


def submit(cluster: Cluster, *options: str, command: str) -> str:
    log = f"--output={cluster.folder}/%j.log"
    return cluster.run("sbatch", "--parsable", log, *options, f"--wrap={command}").strip()


def wait_for_state(cluster: Cluster, number: str, state: str, timeout_s: float = 300) -> None:
    cluster.wait_for(lambda: state_of(cluster, number) == state, timeout_s, f"job {number} {state}")


def test_a_step_has_two_nodes_with_names_and_gpus_of_their_own(slurm_cluster: Cluster) -> None:
    script = "echo $SLURMD_NODENAME $SLURM_PROCID $CUDA_VISIBLE_DEVICES $(hostname)"
    step = [
        "srun",
        "-p",
        "gpu",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=2",
        "bash",
        "-c",
        script,
    ]
    lines = slurm_cluster.run(*step).splitlines()
    assert sorted(line.split()[:3] for line in lines) == [["n1", "0", "0,1"], ["n2", "1", "0,1"]]
    if slurm_cluster.has_host_names:
        assert sorted(line.split()[3] for line in lines) == ["n1", "n2"]
        assert "127.0.0.1" in slurm_cluster.run("srun", "-w", "n1", "getent", "hosts", "n2")


def test_a_higher_partition_takes_the_gpus_and_the_job_that_had_them_comes_back(
    slurm_cluster: Cluster,
) -> None:
    whole = ("--nodes=2", "--gpus-per-node=2", "--exclusive")
    low = submit(slurm_cluster, "-p", "gpu-low", "--requeue", *whole, command="sleep 300")
    wait_for_state(slurm_cluster, low, "RUNNING")
    high = submit(slurm_cluster, "-p", "gpu", *whole, command="true")
    wait_for_state(slurm_cluster, high, "COMPLETED")
    wait_for_state(slurm_cluster, low, "PENDING")
    assert "Restarts=1" in slurm_cluster.run("scontrol", "show", "job", low)
    slurm_cluster.run("scancel", low)


def test_a_crashed_node_takes_its_processes_along_and_its_job_moves_on() -> None:
    with Cluster(Settings(node_timeout_s=5)) as cluster:
        job = submit(cluster, command="sleep 1000")
        wait_for_state(cluster, job, "RUNNING")
        mark = {"SLURM_CLUSTER_NAME": cluster.name, "SLURM_JOB_ID": job}
        cluster.wait_for(lambda: list(processes_with(mark)), 300, "the job's processes")
        cluster.crash_node("n1")
        assert not list(processes_with(mark))
        cluster.wait_for(lambda: cluster.node_states()["n1"].startswith("down"), 300, "loss of the node")
        assert state_of(cluster, job) == "PENDING"
        cluster.boot_node("n1")
        cluster.wait_for(lambda: cluster.node_states()["n1"] == "idle", 300, "return of the node")


def test_a_job_outlives_its_controller() -> None:
    with Cluster() as cluster:
        done = cluster.folder / "done"
        job = submit(cluster, command=f"sleep 2; touch {done}")
        wait_for_state(cluster, job, "RUNNING")
        cluster.stop_controller()
        assert "DOWN" in cluster.run("scontrol", "ping", check=False)
        cluster.wait_for(done.exists, 300, "the job's file")
        cluster.start_controller()
        wait_for_state(cluster, job, "COMPLETED")


def test_a_step_that_takes_more_memory_than_it_asked_for_is_killed() -> None:
    hungry = "python3 -c 'import time; b = bytearray(300 << 20); time.sleep(30)'"
    with Cluster(Settings(num_nodes=1, enforce_memory=True)) as cluster:
        job = submit(cluster, "--mem=100", command=f"srun {hungry}")
        cluster.wait_for(lambda: state_of(cluster, job) not in ("PENDING", "RUNNING"), 300, "end of the job")
        assert state_of(cluster, job) in ("FAILED", "OUT_OF_MEMORY")
        assert "memory" in (cluster.folder / f"{job}.log").read_text().lower()


@pytest.mark.parametrize("own_names", [True, False])
def test_nothing_is_left_of_a_cluster_with_running_jobs(
    own_names: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not own_names:
        monkeypatch.setattr("cluster.cluster.isolation", list)
    with Cluster() as cluster:
        job = submit(cluster, "-N2", command="setsid sleep 1000 & srun -N2 sleep 1000")
        wait_for_state(cluster, job, "RUNNING")
        cluster.wait_for(lambda: len(cluster.processes()) > 8, 300, "the job's processes")
        folder, mark = cluster.folder, {"SLURM_CLUSTER_NAME": cluster.name}
        cluster.wait_for(lambda: list(processes_with(mark)), 300, "a process of the job itself")
    assert not folder.exists()
    end = time.monotonic() + 60
    while list(processes_with(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not list(processes_with(mark))
    assert not list(processes_with({"SLURM_CONF": str(folder / "etc/slurm.conf")}))


def test_the_environment_of_a_cluster_forgets_every_other_one(
    slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SBATCH_ACCOUNT", "theirs")
    environment = slurm_cluster.environment()
    assert not {"SLURM_JOB_ID", "SBATCH_ACCOUNT"} & set(environment)
    assert Path(environment["SLURM_CONF"]) == slurm_cluster.conf
