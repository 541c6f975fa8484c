"""A part of the workflow through real qsub, qstat and qdel: those that Debian has for SLURM, as Torque's."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from conftest import TinyProject

from darkroom.store import read_manifest

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("qsub") is None, reason="no qsub: apt-get install slurm-wlm-torque"),
]

# What a person would not set: a test need not spare the scheduler.
QUICK = {"default-resources": {"pbs": "torque"}, "seconds-between-status-checks": 1, "retries": 0}
SCRIPT = "workflow/scripts/urls.py"
COMMAND = ("snakemake", "--profile", "profiles/pbs")
LIST = "results/datasets/demo/urls.parquet"
RECORDS = ".snakemake/darkroom/pbs/jobs"


@pytest.fixture(scope="module")
def project(make_tiny_project: Callable[[str], TinyProject], slurm_cluster: Cluster) -> Iterator[TinyProject]:
    project = make_tiny_project("pbs")
    project.edit("profiles/pbs/profile.yaml", QUICK)
    project.edit("config/datasets/demo.yaml", {"rows_per_part": 1000})
    environment = slurm_cluster.environment(project.environment)
    project.variables = {name: environment[name] for name in ("PATH", "SLURM_CONF")}
    yield project
    assert not slurm_cluster.jobs("PENDING", "RUNNING")


def mine(cluster: Cluster, *states: str) -> list[str]:
    return [job["id"] for job in cluster.jobs(*states) if job["name"] in ("urls", "download_part")]


@pytest.fixture
def begins_with(project: TinyProject) -> Iterator[Callable[[str], int]]:
    """Have the first job of the workflow do something else before its work."""
    script = project.folder / SCRIPT
    whole = script.read_text()
    yield lambda line: script.write_text(f"{line}\n{whole}")
    script.write_text(whole)


def test_a_job_that_fails_ends_the_driver_with_1_and_the_log_is_named(
    project: TinyProject, slurm_cluster: Cluster, begins_with: Callable[[str], int]
) -> None:
    begins_with("raise RuntimeError('the list is gone')")
    done = subprocess.run(
        [*COMMAND, LIST],
        cwd=project.folder, env=project.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "log: logs/datasets/demo/download/urls.log" in done.stdout
    (log,) = re.findall(r"job \d+ \(urls demo\) has failed with exit code 1; PBS's log: (.*)", done.stdout)
    assert "the list is gone" in (project.folder / log).read_text()
    assert not list((project.folder / RECORDS).iterdir())


def test_neither_a_killed_driver_nor_ctrl_c_leaves_a_job(
    project: TinyProject, slurm_cluster: Cluster, begins_with: Callable[[str], int], tmp_path: Path
) -> None:
    begins_with(
        f"import time, pathlib, os; pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); time.sleep(999)"
    )

    def driver(num_begun: int) -> tuple[subprocess.Popen[bytes], Path]:
        log = tmp_path / f"{num_begun}.log"
        with open(log, "wb") as told:
            started = subprocess.Popen(
                [*COMMAND, LIST],
                cwd=project.folder, env=project.environment, stdout=told, stderr=told, start_new_session=True,
            )  # fmt: skip
        slurm_cluster.wait_for(lambda: len(list(tmp_path.glob("[0-9]*[0-9]"))) == num_begun, 300, "job")
        return started, log

    killed, _ = driver(1)
    killed.kill()
    killed.wait()
    (orphan,) = mine(slurm_cluster, "RUNNING")
    stopped, log = driver(2)
    assert f"left jobs behind: {orphan} (urls demo); stopping" in log.read_text()
    (job,) = mine(slurm_cluster, "RUNNING")
    # As from a terminal: to all of its processes.
    os.killpg(stopped.pid, signal.SIGINT)
    assert stopped.wait(60) == 1, log.read_text()
    assert "cannot access" not in log.read_text() and "Traceback" not in log.read_text()
    slurm_cluster.wait_for(lambda: not mine(slurm_cluster, "PENDING", "RUNNING"), 300, f"end of job {job}")


def test_a_part_of_the_workflow_runs_by_qsub(project: TinyProject, slurm_cluster: Cluster) -> None:
    before = set(mine(slurm_cluster))
    output = project.run(*COMMAND, "download", timeout_s=1200)
    assert len(set(mine(slurm_cluster, "COMPLETED")) - before) == 2, output
    counts = read_manifest(project.results("download") / "manifest.json")["counts"]
    assert counts["rows"] > 150
    assert not list((project.folder / RECORDS).iterdir())
