"""The whole chain on a real SLURM cluster: every stage a job, training on two nodes with two ranks each."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cluster import Cluster
from cluster.machine import processes_with
from conftest import TinyProject

from darkroom.store import read_manifest, read_table

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

# What a person would not set: a test need not spare the scheduler.
QUICK = {"darkroom-init-seconds-before-status-checks": 1, "seconds-between-status-checks": 1}
SUBMITTED = {
    *("urls", "download_part", "score_part", "score_dataset", "filter_part", "recaption_part"),
    *("bucket_part", "cache_part", "cache_null", "train_run", "draw_chunk"),
    *("measure_features", "measure_references", "measure_metric", "evaluate_run", "report_run"),
}
DATASET_STAGES = ("download", "score", "filter", "recaption")
RUN_STAGES = ("bucket", "cache")


@dataclass
class ClusterRun:
    """A project that was made on a cluster, and the jobs that this took."""

    project: TinyProject
    cluster: Cluster
    jobs: list[dict[str, str]]

    def submitted(self, *command: str) -> list[str]:
        """The rules whose jobs a command submits, in order."""
        before = {job["id"] for job in self.cluster.jobs()}
        self.project.run(*command, timeout_s=1500)
        new = [job["comment"] for job in self.cluster.jobs() if job["id"] not in before]
        return [re.sub("^rule_|_wildcards_.*", "", comment) for comment in new]


@pytest.fixture(scope="module")
def on_cluster(
    make_tiny_project: Callable[[str], TinyProject], slurm_cluster: Cluster
) -> Iterator[ClusterRun]:
    """The small demo after one `snakemake --profile slurm`."""
    project = make_tiny_project("on_cluster")
    project.edit("profiles/slurm/profile.yaml", QUICK)
    environment = slurm_cluster.environment(project.environment)
    project.variables = {name: environment[name] for name in ("PATH", "SLURM_CONF")}
    before = {job["id"] for job in slurm_cluster.jobs()}
    project.run("snakemake", "--profile", "slurm", timeout_s=2400)
    yield ClusterRun(project, slurm_cluster, [job for job in slurm_cluster.jobs() if job["id"] not in before])
    assert not slurm_cluster.jobs("PENDING", "RUNNING")


def manifest(project: TinyProject, stage: str) -> Path:
    return project.results(stage) / "manifest.json"


def test_every_stage_was_a_job_and_training_had_two_nodes(on_cluster: ClusterRun) -> None:
    rules = {re.sub("^rule_|_wildcards_.*", "", job["comment"]): job for job in on_cluster.jobs}
    assert set(rules) == SUBMITTED
    assert {job["state"] for job in on_cluster.jobs} == {"COMPLETED"}
    assert all(job["name"].startswith("darkroom_") for job in on_cluster.jobs)
    assert (rules["train_run"]["nodes"], rules["train_run"]["partition"]) == ("n[1-2]", "gpu")
    assert rules["download_part"]["partition"] == "cpu"
    counts = read_manifest(manifest(on_cluster.project, "train"))["counts"]
    assert counts["steps"] == 12 and counts["samples_seen"] == 96


def test_afterwards_dvc_agrees_and_a_second_run_submits_nothing(on_cluster: ClusterRun) -> None:
    assert "up to date" in on_cluster.project.run("dvc", "status")
    assert on_cluster.submitted("snakemake", "--profile", "slurm") == []


def test_the_manifests_are_those_of_a_run_without_a_cluster(
    on_cluster: ClusterRun, trained_project: TinyProject
) -> None:
    for stage in (*DATASET_STAGES, *RUN_STAGES):
        there, here = (manifest(project, stage) for project in (on_cluster.project, trained_project))
        assert there.read_bytes() == here.read_bytes(), stage
    there, here = (read_manifest(manifest(p, "train")) for p in (on_cluster.project, trained_project))
    for key in ("params", "upstream", "counts"):
        assert there[key] == here[key], key


def test_four_ranks_train_on_what_one_process_trains_on(
    on_cluster: ClusterRun, trained_project: TinyProject
) -> None:
    name = "results/runs/demo/train/history.parquet"
    there, here = (read_table(p.folder / name) for p in (on_cluster.project, trained_project))
    # The same samples with the same noise: only the order of sums differs.
    np.testing.assert_allclose(there["loss"], here["loss"], rtol=0.02)


def test_an_evaluation_option_submits_evaluate_and_report_alone(on_cluster: ClusterRun) -> None:
    on_cluster.project.edit("config/runs/demo.yaml", {"evaluate": {"num_bootstrap": 30}})
    assert on_cluster.submitted("snakemake", "--profile", "profiles/slurm") == ["evaluate_run", "report_run"]
    assert "up to date" in on_cluster.project.run("dvc", "status")


def test_dvc_repro_submits_the_stage(on_cluster: ClusterRun) -> None:
    project = on_cluster.project
    project.edit("config/runs/demo.yaml", {"train": {"learning_rate": 0.0005}})
    before = dict(project.variables)
    project.variables = {**before, "SNAKEMAKE_PROFILE": "profiles/slurm"}
    assert on_cluster.submitted("dvc", "repro", "--single-item", "train-demo") == ["train_run"]
    project.variables = before


def test_no_process_is_left_between_the_runs(on_cluster: ClusterRun) -> None:
    cluster = on_cluster.cluster
    in_jobs = {"SLURM_CLUSTER_NAME": cluster.name}
    cluster.wait_for(lambda: not list(processes_with(in_jobs)), 300, "end of the jobs' processes")
    drivers = [Path(f"/proc/{pid}/cwd").resolve() for pid in cluster.processes()]
    assert on_cluster.project.folder.resolve() not in drivers
