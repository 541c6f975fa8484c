"""The train rule starts one rank a task with the geometry of the profile, and one process without."""

import re
import shutil

import polars as pl
import pytest
from torch.distributed.run import parse_args

HISTORY = "results/runs/demo/train/history.parquet"


@pytest.fixture(scope="module")
def project(make_tiny_project):
    return make_tiny_project("launch")


def command(project, *resources):
    chosen = ["--set-resources", *(f"train_run:{r}" for r in resources)] if resources else []
    output = project.run("snakemake", "-n", "-p", "train", *chosen, check=False)
    found = re.search(r"Shell command: *(.*)python workflow/scripts/train\.py", output)
    return found.group(1).strip() if found else output


def test_one_process_is_started_without_a_launcher(project):
    assert command(project) == ""


@pytest.mark.parametrize("tasks", ["tasks=4", "tasks_per_node=2"])
def test_srun_gets_nodes_tasks_and_cpus_because_the_allocations_numbers_do_not_reach_it(project, tasks):
    assert command(project, "mpi=srun", "nodes=2", tasks, "cpus_per_task=3") == (
        "srun --nodes=2 --ntasks=4 --ntasks-per-node=2 --cpus-per-task=3 --kill-on-bad-exit=1"
    )


def test_without_cpus_per_task_a_rank_has_the_rules_threads(project):
    line = command(project, "mpi=srun", "tasks=2")
    assert "--nodes=1 --ntasks=2 --ntasks-per-node=2 --cpus-per-task=" in line
    assert int(re.search(r"--cpus-per-task=(\d+)", line).group(1)) >= 1


def test_tasks_that_do_not_spread_over_the_nodes_are_refused(project):
    output = command(project, "mpi=srun", "nodes=2", "tasks=3")
    assert "3 tasks do not spread evenly over 2 nodes; set tasks to a multiple of nodes" in output


def test_torchrun_starts_the_ranks_of_one_machine_and_hands_signals_on(project):
    line = command(project, "mpi=torchrun", "tasks=2")
    start = (
        "env TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --rdzv-backend=c10d --rdzv-conf=store_type=file"
    )
    assert line.startswith(f"{start} --nnodes=1 --nproc-per-node=2 --signals-to-handle=")
    assert "SIGTERM" in line and "SIGUSR1" in line and line.endswith("--no-python --")
    parsed = parse_args([*line.split()[3:], "python", "train.py", "--log", "x"])
    assert (parsed.training_script, parsed.training_script_args) == ("python", ["train.py", "--log", "x"])
    output = command(project, "mpi=torchrun", "tasks=2", "nodes=2")
    assert "mpi=torchrun starts ranks on one machine; for nodes use mpi=srun" in output


def test_several_nodes_under_pbs_are_refused_in_the_plan(project):
    output = command(project, "pbs=pro", "mpi=torchrun", "tasks=2", "nodes=2")
    told = "nodes: 2; under PBS a job has one node: write nodes: 1, and for the ranks of a training mpi: torchrun"
    assert told in output
    assert command(project, "pbs=torque", "mpi=torchrun", "tasks=2", "nodes=1").startswith("env TORCH_")


def test_a_training_all_of_whose_ranks_would_encode_is_refused_in_the_plan(project):
    values = {"cache": {"online": True}, "train": {"encoder_ranks": 2}}
    project.write("config/runs/encoded.yaml", {"extends": "demo", "description": "Is encoded for", **values})
    run = ["-n", "-p", "train", "--config", "run=encoded", "--set-resources"]
    ranks = ["train_run:mpi=torchrun", "train_run:tasks=2"]
    output = project.run("snakemake", *run, *ranks, check=False)
    assert "encoded.yaml: train.encoder_ranks 2: 2 ranks are started, and at least one has to train" in output
    assert "start 3 or more" in output and "set-resources: train_run" in output
    output = project.run("snakemake", *run[:-1], check=False)
    assert "train.encoder_ranks 2: one rank is started" in output
    ranks[-1] = "train_run:tasks=3"
    assert "--nproc-per-node=3" in project.run("snakemake", *run, *ranks)


@pytest.mark.slow
def test_the_train_rule_runs_on_two_ranks_under_torchrun(finished_project, tmp_path):
    project = finished_project.copy(tmp_path / "project")
    shutil.rmtree(project.folder / "checkpoints/demo")
    chosen = ["--set-resources", "train_run:mpi=torchrun", "train_run:tasks=2"]
    project.run("snakemake", "train", "-R", "train_run", *chosen)
    log = (project.folder / "logs/runs/demo/train/train.log").read_text()
    assert "train: 2 ranks met at" in log and "train: step 12/12" in log
    # The same pictures from the same place, and only the order of sums is another.
    mine, alone = (pl.read_parquet(p.folder / HISTORY)["loss"] for p in (project, finished_project))
    assert mine.to_list() == pytest.approx(alone.to_list(), abs=0.02)
