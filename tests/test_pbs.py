"""PBS's side of `profiles/pbs`: what qsub is asked for, how a job is, and what becomes of jobs left over."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from conftest import ROOT

from darkroom.pbs import commands, records, request, submission
from darkroom.pbs.commands import Seen
from darkroom.pbs.records import Record
from darkroom.pbs.status import judge, status
from darkroom.pbs.submission import Refused, submit

sys.path.insert(0, str(ROOT / "workflow"))
from driver import batch
from driver.messages import DriverError

# As `qstat -x -f` of PBS Professional and `qstat -f` of Torque write them, long values folded.
PRO = """Job Id: 17.head
    Job_Name = train_run
    Job_Owner = ada@login1.example.org
    resources_used.cput = 00:01:40
    job_state = F
    queue = workq
    Exit_status = 271
    Variable_List = PBS_O_HOME=/home/ada,PBS_O_PATH=/usr/local/bin:/usr/bin:/bin,
\tPBS_O_NOTE=job_state = R
    Submit_arguments = -N train_run -S /bin/sh job.sh
Job Id: 18.head
    Job_Name = urls
    job_state = R
    queue = workq
    substate = 42

"""
TORQUE = """Job Id: 219.batch.example.org
    Job_Name = urls
    Job_Owner = ada@login1.example.org
    job_state = C
    queue = batch
    Variable_List = PBS_O_QUEUE=batch,PBS_O_HOME=/home/ada,
\tPBS_O_WORKDIR=/scratch/ada/exit_status = 7
    exit_status = 0
    submit_args = -N urls job.sh
"""
RESOURCES = {"pbs": "pro", "runtime": 90, "mem_mb": 2000, "disk_mb": 1000, "tmpdir": "/tmp"}


def options(threads: int = 1, **more: Any) -> str:
    return " ".join(request.options({**RESOURCES, **more}, threads))


def test_each_pbs_is_asked_in_its_own_words() -> None:
    assert options(2) == "-l select=1:ncpus=2:mem=2000mb -l walltime=01:30:00"
    assert options(2, pbs="torque") == "-l nodes=1:ppn=2,mem=2000mb,walltime=01:30:00"
    gpus = {"gpu": 2, "mpi": "torchrun", "tasks": 2, "cpus_per_task": 3, "pbs_chunk": "gpu_type=a100"}
    assert options(**gpus).startswith("-l select=1:ncpus=6:mem=2000mb:ngpus=2:gpu_type=a100 -l ")
    assert options(pbs="torque", **gpus).startswith("-l nodes=1:ppn=6:gpus=2:gpu_type=a100,mem=2000mb,")


def test_queue_account_and_more_are_handed_on_as_words() -> None:
    found = request.options(
        {**RESOURCES, "pbs_queue": "gpu@head", "pbs_account": "lab-1", "pbs_extra": "-W 'umask=027' -m n"}, 1
    )
    assert found[4:] == ["-q", "gpu@head", "-A", "lab-1", "-W", "umask=027", "-m", "n"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"pbs": "slurm"}, "pbs: 'slurm'; it should be pro or torque"),
        ({"nodes": 2}, "nodes: 2; under PBS a job has one node: write nodes: 1, and for the ranks"),
        ({"mpi": "srun"}, "mpi: srun; under PBS torchrun starts the ranks"),
        ({"gres": "gpu:1"}, "gres: only SLURM is asked for it; under PBS write gpu"),
        (
            {"slurm_partition": "gpu"},
            "slurm_partition: only SLURM is asked for it; under PBS write pbs_queue",
        ),
        ({"runtime": 0}, "runtime: 0; it should be a whole number of 1 or more"),
        ({"gpu": "a100"}, "gpu: 'a100'; it should be a whole number of 0 or more"),
        ({"mem_mb": None}, "mem_mb: None; it should be"),
        ({"pbs_queue": "gpu; rm -rf ."}, "pbs_queue: 'gpu; rm -rf .'; it should be one word"),
        ({"pbs_chunk": "-l"}, "pbs_chunk: '-l'; it should be one word"),
    ],
)
def test_what_pbs_is_never_asked_for_is_refused_by_its_name(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        options(**wrong)


def test_the_profile_asks_for_what_both_take() -> None:
    profile = yaml.safe_load((ROOT / "profiles/pbs/profile.yaml").read_text())
    for name, asked in profile["set-resources"].items():
        values = {**profile["default-resources"], **asked}
        values["mem_mb"] = int(values["mem_mb"].removeprefix("attempt * "))
        for dialect in request.DIALECTS:
            gpus = "gpus=" in " ".join(request.options({**values, "pbs": dialect}, 2))
            assert gpus == ("gpu" in asked), name


def test_what_qstat_says_is_read_and_folded_lines_mislead_nobody() -> None:
    assert commands.read(PRO) == {"17": Seen("F", 271), "18": Seen("R", None)}
    assert commands.read(TORQUE) == {"219": Seen("C", 0)}
    assert commands.read("") == {}


@pytest.mark.parametrize("state", list("QRHWTSEUMB"))
def test_a_job_that_is_still_there_runs_whatever_code_it_left(state: str) -> None:
    # PBS may put it back into the queue.
    assert judge(None, Seen(state, None)) == judge(1, Seen(state, None)) == "running"


def test_success_is_said_only_where_the_job_or_the_scheduler_says_so() -> None:
    assert judge(0, None) == judge(0, Seen("E", None)) == judge(None, Seen("F", 0)) == "success"
    assert judge(1, None) == judge(1, Seen("C", None)) == judge(1, Seen("C", 0)) == "failed"
    assert judge(None, Seen("F", 271)) == judge(None, Seen("C", -11)) == "failed"
    # Deleted while it waited, or forgotten: nobody knows.
    assert judge(None, Seen("F", None)) is None and judge(None, None) is None


PROGRAM = """#!{python}
import json, pathlib, sys
folder, name, words = pathlib.Path({folder!r}), pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with open(folder / "calls", "a") as calls:
    print(json.dumps([name, *words]), file=calls)
if (folder / "away").exists():
    sys.exit(name + ": cannot connect to server head (errno=111)")
if name == "qsub":
    refusal = folder / "refusal"
    if refusal.exists():
        said = refusal.read_text()
        refusal.unlink()
        sys.exit(said)
    print("17.head")
elif name == "qdel":
    for id in words:
        (folder / id).unlink(missing_ok=True)
else:
    for id in words[words.index("-f") + 1:]:
        if (folder / id).exists():
            print("Job Id: " + id + "\\n    job_state = " + (folder / id).read_text())
    sys.exit(153)
"""


class Played:
    """A PBS of small programs: a file a job with its state, and a file `away` while it does not answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("qsub", "qstat", "qdel"):
            path = folder / "bin" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
            path.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    played = Played(tmp_path / "pbs")
    project = tmp_path / "it's a project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", f"{played.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return played


def jobscript(ends: int = 0, rule: str = "measure_mixed_references", **resources: Any) -> Path:
    """As Snakemake writes it."""
    properties = {
        "type": "single", "rule": rule, "jobid": 3, "threads": 2, "wildcards": {"run": "demo", "of": "a b"},
        "resources": {**RESOURCES, **resources},
    }  # fmt: skip
    path = Path("snakejob.sh")
    told = f'echo "$TOKEN" > token; exit {ends}'
    path.write_text(f"#!/bin/sh\n# properties = {json.dumps(properties)}\n{told}\n")
    return path


def submitted(pbs: Played, state: str | None = "R", ends: int = 0) -> Record:
    """The record of a job 17.head, which the scheduler knows as being in a state, or does not know."""
    assert submit(jobscript(ends)) == "17.head"
    if state is not None:
        (pbs.folder / "17.head").write_text(state)
    record = records.find("17.head")
    assert record is not None
    return record


def test_qsub_gets_one_argument_a_word_and_no_variable(pbs: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "it's; $(secret)")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    record = submitted(pbs)
    (call,) = [call for call in pbs.calls if call[0] == "qsub"]
    log = f"logs/pbs/rule_measure_mixed_references/demo_a_b/{record.folder.name}.log"
    script = str(records.FOLDER / "jobs" / record.folder.name / "job.sh")
    assert call[1:] == [
        *("-N", "measure_mixed_r", "-S", "/bin/sh", "-r", "y", "-j", "oe", "-o", log),
        *("-l", "select=1:ncpus=2:mem=2000mb", "-l", "walltime=01:30:00", script),
    ]
    assert Path(log).parent.is_dir()
    environment = record.folder / "environment"
    assert environment.stat().st_mode & 0o077 == 0 and "secret" in environment.read_text()
    assert "CUDA_VISIBLE_DEVICES" not in environment.read_text()
    assert str(record) == "17.head (measure_mixed_references demo_a_b)"


@pytest.mark.parametrize("ends", [0, 3])
def test_a_job_runs_with_the_drivers_variables_and_leaves_its_exit_code(
    pbs: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ends: int
) -> None:
    monkeypatch.setenv("TOKEN", "it's; $(secret)")
    record = submitted(pbs, ends=ends)
    # As on a node: another folder, and none of the variables.
    script = str((record.folder / "job.sh").resolve())
    assert subprocess.run(["/bin/sh", script], cwd="/", env={}).returncode == ends
    assert Path("token").read_text() == "it's; $(secret)\n" and record.exit_code == ends
    (pbs.folder / "17.head").unlink()
    log = record.log
    assert status("17.head") == ("failed" if ends else "success")
    told = f"(measure_mixed_references demo_a_b) has failed with exit code 3; PBS's log: {log}\n"
    assert capsys.readouterr().err == (f"job 17.head {told}" if ends else "")
    assert records.left() == []


def test_what_qsub_refuses_is_told_in_its_words_and_leaves_nothing(pbs: Played) -> None:
    (pbs.folder / "refusal").write_text("qsub: Unknown queue")
    with pytest.raises(Refused, match="qsub does not take urls: qsub: Unknown queue"):
        submit(jobscript(rule="urls"))
    with pytest.raises(Refused, match="nodes: 2; under PBS a job has one node"):
        submit(jobscript(nodes=2))
    assert records.left() == [] and len(pbs.calls) == 1


@pytest.mark.parametrize(
    "words", ["cannot connect to server head (errno=15031)", "would exceed queue generic's per-user limit"]
)
def test_a_refusal_that_passes_is_waited_for(
    pbs: Played, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    (pbs.folder / "refusal").write_text(f"qsub: {words}")
    assert submit(jobscript(), pause_s=0) == "17.head"
    assert capsys.readouterr().err.count(f"at present (qsub: {words}); asking again") == 1
    assert len(records.left()) == 1


def test_snakemake_gets_the_number_and_nothing_else(pbs: Played) -> None:
    command = [sys.executable, "-m", "darkroom.pbs"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def ask(*words: str) -> tuple[int, str]:
        done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout

    assert ask("submit", str(jobscript())) == (0, "17.head\n")
    (pbs.folder / "17.head").write_text("Q")
    assert ask("status", "17.head") == (0, "running\n")
    code, told = ask("submit", str(jobscript(pbs="none")))
    assert code == 1 and told == "pbs: 'none'; it should be pro or torque\n"


def test_one_qstat_tells_of_all_jobs_for_a_while(pbs: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(pbs)
    other = records.add("other")
    other.describe(rule="urls", pbs="pro")
    (other.folder / "id").write_text("18.head\n")
    other.note()
    (pbs.folder / "18.head").write_text("Q")
    assert status("17.head") == status("18.head") == status("17.head") == "running"
    assert [call for call in pbs.calls if call[0] == "qstat"] == [["qstat", "-x", "-f", "17.head", "18.head"]]
    monkeypatch.setattr("darkroom.pbs.status.FRESH_S", 0.0)
    (pbs.folder / "18.head").write_text("F\n    Exit_status = 1")
    assert status("18.head") == "failed"


def test_a_job_that_the_scheduler_forgot_has_failed_when_its_code_had_time_to_come(pbs: Played) -> None:
    record = submitted(pbs, state=None)
    assert status("17.head") == "running"
    (record.folder / "exit").write_text("0\n")
    assert status("17.head") == "success"
    submitted(pbs, state=None)
    assert [status("17.head", grace_s=0)] == ["failed"]
    assert status("17.head") == "failed"  # nobody knows of it


def test_while_the_scheduler_is_away_jobs_run_and_it_is_said_once(
    pbs: Played, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.pbs.status.FRESH_S", 0.0)
    submitted(pbs)
    (pbs.folder / "away").touch()
    assert status("17.head", grace_s=0) == status("17.head", grace_s=0) == "running"
    (pbs.folder / "away").unlink()
    assert status("17.head") == "running"
    told = capsys.readouterr().err
    assert told.count("the scheduler does not answer (qstat: cannot connect") == 1
    assert told.count("the scheduler answers again") == 1
    monkeypatch.setattr("darkroom.pbs.status.UNREACHABLE_S", -1.0)
    (pbs.folder / "away").touch()
    assert status("17.head") == "running"
    with pytest.raises(commands.Unreachable, match=r"has not answered for .* start the same command again"):
        status("17.head")


def test_jobs_that_a_killed_driver_left_end_before_the_next_begins(
    pbs: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(pbs)
    batch.end_left(records.FOLDER)
    told = capsys.readouterr().err
    assert "left jobs behind: 17.head (measure_mixed_references demo_a_b); stopping" in told
    assert "they are gone" in told and ["qdel", "17.head"] in pbs.calls
    assert records.left() == [] and records.find("17.head") is None
    batch.end_left(records.FOLDER)
    assert capsys.readouterr().err == ""


def test_jobs_that_may_still_be_there_are_never_met(pbs: Played) -> None:
    submitted(pbs)
    (pbs.folder / "away").touch()
    with pytest.raises(DriverError, match=r"may still be there: 17\.head .* start again where it does"):
        batch.end_left(records.FOLDER)
    assert len(records.left()) == 1


def test_a_driver_sees_to_its_jobs_where_the_executor_does_not(
    pbs: Played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_end: list[Any] = []
    monkeypatch.setattr("atexit.register", lambda *call: at_end.append(call))
    before = signal.getsignal(signal.SIGTERM)

    def watch_over(executor: str, is_local: bool = False) -> None:
        batch.watch_over(SimpleNamespace(local_exec=is_local, executor_plugin=SimpleNamespace(name=executor)))

    try:
        watch_over("darkroom")
        watch_over("local", is_local=True)
        assert at_end == [] and signal.getsignal(signal.SIGTERM) is before
        watch_over("cluster-generic")
        assert len(at_end) == 1 and signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    odd = tmp_path / "a $HOME"
    odd.mkdir()
    monkeypatch.chdir(odd)
    with pytest.raises(DriverError, match=r"takes no folder with \$ in its name"):
        watch_over("cluster-generic")


def test_a_driver_that_ends_while_qsub_is_asked_waits_for_its_answer(
    pbs: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    record = records.add("asked")
    record.describe(rule="urls", pbs="torque")
    answer = shlex.quote(str(record.folder / "id"))
    qsub = subprocess.Popen(["sh", "-c", f"sleep 0.5; echo 18.head > {answer}"])
    (record.folder / "pid").write_text(str(qsub.pid))
    (pbs.folder / "18.head").write_text("Q")
    handler = signal.getsignal(signal.SIGINT)
    batch._end(records.FOLDER, os.getpid())
    signal.signal(signal.SIGINT, handler)
    qsub.wait()
    assert capsys.readouterr().err == "cancelled: 18.head (urls)\n"
    assert ["qstat", "-f", "18.head"] in pbs.calls and not (pbs.folder / "18.head").exists()


def test_variables_that_no_shell_takes_or_that_a_node_has_are_left_out() -> None:
    variables = {"A": "x y", "BASH_FUNC_f%%": "() { :; }", "PBS_JOBID": "1", "TMPDIR": "/t", "B": ""}
    lines = submission.exports(variables)
    assert lines == "export A='x y'\nexport B=''\n"
