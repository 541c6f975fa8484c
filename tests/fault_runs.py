"""Trainings on a cluster that something happens to, and what is measured of them."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from cluster import Cluster
from cluster.machine import kill, processes_with

from darkroom.config import load_project
from darkroom.config.load import merge
from darkroom.stages import folder as stage_folder

CHECKPOINT_EVERY_STEPS = 10
NUM_STEPS = 300
TRAINING = {
    "num_steps": NUM_STEPS,
    "checkpoint_every_steps": CHECKPOINT_EVERY_STEPS,
    "log_every_steps": 1,
    "sample_every_steps": 0,
    "num_threads": 1,
}
# One process; the profile's own geometry is that of several.
ONE_RANK = {
    "slurm_partition": "gpu",
    "mem_mb": "attempt * 3000",
    "runtime": 60,
    "nodes": 1,
    "gres": "'gpu:1'",
}
TWO_RANKS = {
    **{**ONE_RANK, "gres": "'gpu:2'"},
    **{"mpi": "srun", "tasks_per_node": 2, "tasks_per_gpu": 0, "cpus_per_task": 1},
}
PROFILE = {
    "darkroom-init-seconds-before-status-checks": 2,
    "seconds-between-status-checks": 2,
    "latency-wait": 10,
    "retries": 2,
}
# As long as a busy machine may take; what hangs is ended by it, and nothing else.
ENOUGH_S = 1500.0


@dataclass
class Outcome:
    """What came of a training that something happened to; see docs/reliability.md for what the words mean."""

    ended: str
    steps_repeated: int
    steps_that_differ: int
    orphans: int

    def row(self, title: str) -> str:
        """The row of the table in docs/reliability.md."""
        return (
            f"| {title} | {self.ended} | {self.steps_repeated} | {self.steps_that_differ} | {self.orphans} |"
        )


class FaultRun:
    """A copy of a project whose data stages are done, with its own driver on a cluster."""

    def __init__(
        self, finished: Path, folder: Path, cluster: Cluster, resources: Mapping[str, Any] = ONE_RANK
    ) -> None:
        self.folder, self.cluster, self.orphans = folder, cluster, 0
        shutil.copytree(finished, folder, symlinks=True)
        for name in ("results/runs/demo/train", "results/runs/demo/evaluate", "checkpoints", "logs"):
            shutil.rmtree(folder / name, ignore_errors=True)
        self.edit("config/runs/demo.yaml", {"train": TRAINING})
        extra = {"slurm_extra": "'--open-mode=append'"}
        profile = yaml.safe_load((folder / "profiles/slurm/profile.yaml").read_text())
        profile["set-resources"]["train_run"] = {**extra, **resources}
        (folder / "profiles/slurm/profile.yaml").write_text(yaml.safe_dump({**profile, **PROFILE}))
        self._drivers: list[subprocess.Popen[bytes]] = []

    def edit(self, name: str, values: Mapping[str, Any]) -> None:
        """Merge `values` into a YAML file."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), values), sort_keys=False))

    # The driver

    def start(self, *arguments: str) -> None:
        """Start `snakemake train`, or what the arguments say, as a person would."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "SNAKEMAKE_PROFILE": "profiles/slurm", "NO_COLOR": "1"}
        environment["PYTHONPATH"] = str(self.folder / "src")
        with open(self.folder / "driver.log", "ab") as log:
            self._drivers.append(
                subprocess.Popen(
                    ["snakemake", *(arguments or ["train"])], cwd=self.folder, stdout=log, stderr=log,
                    env=self.cluster.environment(environment), start_new_session=True,
                )
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the driver alone."""
        self._drivers[-1].send_signal(number)

    def end(self, code: int = 0, timeout_s: float = ENOUGH_S) -> None:
        """Wait for the driver's end, which must be by this exit code, and count the jobs that it leaves."""
        try:
            found = self._drivers[-1].wait(timeout_s)
        except subprocess.TimeoutExpired:
            found = None
        assert found == code, f"the driver ended with {found}, not {code}:\n{self.told()[-6000:]}"
        end = time.monotonic() + 60
        while (left := self.living_jobs()) and time.monotonic() < end:
            time.sleep(0.5)
        self.orphans += len(left)

    def stop(self) -> None:
        """SIGKILL to the driver."""
        for driver in self._drivers:
            if driver.poll() is None:
                driver.kill()
            driver.wait()

    # Looking

    def told(self) -> str:
        """What the drivers have said so far."""
        return (self.folder / "driver.log").read_text(errors="replace")

    def logs(self) -> dict[str, str]:
        """The scheduler's log of each training job, by its number."""
        paths = (self.folder / "logs/slurm/rule_train_run").rglob("*.log")
        return {p.stem: p.read_text(errors="replace") for p in sorted(paths, key=lambda p: int(p.stem))}

    def job_logs(self) -> str:
        """The scheduler's logs of all training jobs, one after the other."""
        return "".join(self.logs().values())

    def steps(self) -> list[int]:
        """The steps that were computed, in order, also those that were computed again."""
        return [int(n) for text in self.logs().values() for n in re.findall(r"train: step (\d+)/", text)]

    def results(self, stage: str) -> Path:
        """Where a stage's files lie."""
        return self.folder / stage_folder(load_project("demo", self.folder), stage)

    def living_jobs(self) -> list[str]:
        """The numbers of this folder's jobs that have not ended."""
        lines = self.cluster.run("squeue", "--noheader", "--format=%i|%Z").splitlines()
        return [number for number, place in (line.split("|") for line in lines) if place == str(self.folder)]

    def wait_for(self, condition: Callable[[], object], what: str, timeout_s: float = ENOUGH_S) -> None:
        """Wait until something holds while the driver lives; fails with the driver's words."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"no {what} in {timeout_s:.0f} s:\n{self.told()[-6000:]}"
            has_ended = self._drivers[-1].poll() is not None
            assert not has_ended or condition(), f"no {what} before the end:\n{self.told()[-6000:]}"
            time.sleep(0.1)

    def progress(self) -> str:
        """Wait for new steps, to the middle between two checkpoints; returns the number of the training's job."""
        newest, half = max(self.steps(), default=0), CHECKPOINT_EVERY_STEPS // 2
        step = next(n for n in itertools.count(newest + half + 2) if n % CHECKPOINT_EVERY_STEPS == half)
        assert step < NUM_STEPS, "the training is too short for all that is to happen to it"
        self.wait_for(lambda: max(self.steps(), default=0) >= step, f"step {step}")
        return self.living_jobs()[-1]

    def pause(self, job: str) -> None:
        """Stop a training in its tracks, so that what takes its time still finds it at work."""
        self.cluster.run("scancel", "--signal=STOP", job)

    def resume(self, job: str) -> None:
        """Let a paused training go on, though its job may be ending by now."""
        for pid in processes_with({"SLURM_JOB_ID": job, "SLURM_CLUSTER_NAME": self.cluster.name}):
            kill(pid, signal.SIGCONT)

    def restart_at_once(self, job: str) -> None:
        """Lift the two minutes for which the scheduler holds back a requeued job."""

        def waits() -> bool:
            return "BeginTime" in self.cluster.run("squeue", "-h", "-j", job, "-o", "%r")

        self.wait_for(waits, "requeued job")
        time.sleep(4)
        self.cluster.run("scontrol", "update", f"jobid={job}", "starttime=now")

    def checkpoints(self) -> list[Path]:
        """The checkpoints that have their final name, oldest first."""
        return sorted((self.folder / "checkpoints/demo").glob("*/step-*"))

    # Measuring

    def steps_repeated(self) -> int:
        """How many steps were computed again so far."""
        steps = self.steps()
        return len(steps) - len(set(steps))

    def steps_that_differ(self, undisturbed: "FaultRun") -> int:
        """How many steps of the finished training saw other samples or noise than those of an undisturbed one."""
        assert sorted(set(self.steps())) == list(range(1, NUM_STEPS + 1))
        pairs = zip(self._history().rows(), undisturbed._history().rows(), strict=True)
        return sum(mine != other for mine, other in pairs)

    def _history(self) -> pl.DataFrame:
        """Loss, gradient norm and loss by timestep of every step: other samples or noise give others."""
        return pl.read_parquet(self.results("train") / "history.parquet")

    def weights(self) -> dict[str, str]:
        """The digests of what the training made."""
        files: dict[str, str] = json.loads((self.results("train") / "manifest.json").read_text())["files"]
        return files
