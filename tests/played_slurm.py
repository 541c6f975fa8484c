"""SLURM's commands played by small programs on one file of jobs, and the real executor on them."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snakemake_executor_plugin_darkroom import Executor, ExecutorSettings

RUN = "darkroom_123e4567-e89b-42d3-a456-426614174000"
# Without the file the scheduler is away; a file REFUSALS has what sbatch says, one refusal a line.
PROGRAM = """#!{python}
import json, pathlib, sys
file = pathlib.Path({file!r})
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
if words[:1] == ["show"]:
    print("MinJobAge = 300 sec\\nMaxArraySize = 1001")
    sys.exit()
if not file.exists():
    sys.exit("Unable to contact slurm controller (connect failure)")
jobs = json.loads(file.read_text())
with open(str(file) + ".calls", "a") as calls:
    print(name, *words, file=calls)
if name == "squeue":
    layout = next(word for word in words if word.startswith("--format=")).removeprefix("--format=").strip("'")
    for id, (run, state, reason, rule, folder) in jobs.items():
        if "--name" not in words or run in words:
            values = {{"%i": id, "%j": run, "%T": state, "%r": reason, "%k": rule, "%Z": folder}}
            print(*(values[code] for code in layout.split("|")), sep="|")
elif name == "scancel":
    signal = any(word.startswith("--signal") for word in words)
    for id in words:
        if id in jobs and not (signal and jobs[id][2] == "deaf"):
            jobs[id][1] = "FAILED" if signal else "CANCELLED"
elif name == "sbatch":
    refusals = pathlib.Path(str(file) + ".refusals")
    left = refusals.read_text().splitlines() if refusals.exists() else []
    if left:
        refusals.write_text("".join(line + "\\n" for line in left[1:]))
    told = left[0].replace("; ", "\\n") if left else ""
    if not told or told.startswith("taken "):
        id = str(max([0, *map(int, jobs)]) + 1)
        jobs[id] = [words[words.index("--job-name") + 1], "PENDING", "Priority", "rule_train", str(file.parent)]
        file.write_text(json.dumps(jobs))
    if told:
        sys.exit(told.removeprefix("taken "))
    print(id)
else:
    jobs[words[1]][1:3] = ["PENDING", "None"]
file.write_text(json.dumps(jobs))
"""
# A job database that knows nothing: the plugin hands all jobs back. Without the file, that does not answer.
DATABASE = "#!/bin/sh\n[ -e {file} ]\n"


class Queue:
    """The played queue: jobs by id as [run, state, reason, rule, folder]."""

    def __init__(self, folder: Path) -> None:
        self.file, self.database = folder / "jobs.json", folder / "database"
        self.database.touch()
        (folder / "bin").mkdir()
        for name in ("squeue", "scancel", "scontrol", "sbatch", "sacct"):
            path = folder / "bin" / name
            text = PROGRAM.format(python=sys.executable, file=str(self.file))
            path.write_text(text if name != "sacct" else DATABASE.format(file=self.database))
            path.chmod(0o755)
        self.folder = str(folder)
        self.write({})

    def write(self, jobs: dict[str, list[str]]) -> None:
        self.file.write_text(json.dumps(jobs))

    def add(
        self, id: str, state: str, reason: str = "None", run: str = RUN, folder: str | None = None
    ) -> None:
        self.write({**self.jobs, id: [run, state, reason, "rule_train", folder or self.folder]})

    def refuse(self, *words: str) -> None:
        """What sbatch is to say to the next submissions; "taken ..." takes the job and fails all the same."""
        Path(f"{self.file}.refusals").write_text("".join(f"{line}\n" for line in words))

    @property
    def jobs(self) -> dict[str, list[str]]:
        jobs: dict[str, list[str]] = json.loads(self.file.read_text())
        return jobs

    @property
    def calls(self) -> list[str]:
        """What scancel, scontrol and sbatch were asked."""
        calls = Path(f"{self.file}.calls")
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if not line.startswith("squeue")]


class Resources(dict[str, Any]):
    """As Snakemake's: a resource is an attribute as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class PlayedJob:
    """As much of a Snakemake job as the plugin asks for."""

    def __init__(self, name: str = "train", retries: int = 3, **resources: Any) -> None:
        self.name, self.jobid, self.threads, self.wildcards = name, 1, 1, []
        self.rule = SimpleNamespace(name=name)
        self.attempt, self.restart_times = 1, retries
        self.resources = Resources({"slurm_partition": "cpu", "runtime": 1, "mem_mb": 10, **resources})
        self.errors: list[str] = []

    def __str__(self) -> str:
        return self.name

    def is_group(self) -> bool:
        return False

    def log_info(self) -> None: ...

    def log_error(self, msg: str = "", **kwargs: Any) -> None:
        self.errors.append(msg)

    def register(self, external_jobid: str) -> None: ...


class PlayedExecutor(Executor):  # type: ignore[misc]
    """The real executor on the played queue; its own thread of checks sleeps."""

    def __init__(self, folder: Path, pause_s: float = 0.0, init_s: float = 10_000, **settings: Any) -> None:
        self.done: list[str] = []
        self.failed: list[Any] = []
        self.submitted: list[Any] = []
        self.given_up: list[Exception] = []
        scheduler = SimpleNamespace(
            executor_error_callback=self.given_up.append,
            finish_callback=self.done.append,
            error_callback=self.failed.append,
            submit_callback=self.submitted.append,
        )
        workflow = SimpleNamespace(
            dag=None, main_snakefile="Snakefile", workdir_init=str(folder), scheduler=scheduler,
            executor_settings=ExecutorSettings(
                **{"status_command": "sacct", "jobname_prefix": "darkroom", "logdir": folder, **settings}
            ),
            executor_plugin=SimpleNamespace(
                common_settings=SimpleNamespace(init_seconds_before_status_checks=init_s)
            ),
            remote_execution_settings=SimpleNamespace(
                max_status_checks_per_second=1000, jobname="job.{jobid}", jobscript=None, immediate_submit=False,
                seconds_between_status_checks=pause_s,
            ),
            storage_settings=SimpleNamespace(shared_fs_usage=[]),
        )  # fmt: skip
        quiet = SimpleNamespace(
            **{name: lambda *args, **kwargs: None for name in ("debug", "info", "warning", "error")}
        )
        super().__init__(workflow, quiet)

    def format_job_exec(self, job: Any) -> str:
        return "true"


def play(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """An empty queue in a folder, whose programs are found first."""
    played = Queue(folder)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return played


def start(jobs: Queue, monkeypatch: pytest.MonkeyPatch | None = None, **limits: float) -> PlayedExecutor:
    """An executor that has jobs 1, 2 and 3 in the queue."""
    for name, value in limits.items():
        assert monkeypatch is not None
        monkeypatch.setenv(f"DARKROOM_{name.upper()}", str(value))
    executor = PlayedExecutor(Path(jobs.folder))
    executor.run_uuid = executor._watch._run = RUN
    for id in ("1", "2", "3"):
        executor.report_job_submission(info(id))
    return executor


def info(id: str) -> Any:
    return SimpleNamespace(external_jobid=id, job=PlayedJob(), aux={})
