"""What a person sees of a run: the logger plugin's text, and a driver's last words."""

import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from darkroom.jobs import STREAM_VARIABLE, job, stream_id, tell
from darkroom.machine import used_line
from snakemake_logger_plugin_darkroom import LogHandler
from snakemake_logger_plugin_darkroom.progress import Job, Progress
from snakemake_logger_plugin_darkroom.text import MAX_LINES, duration, end_of_log, printable

STATS = {"filter_part": 4, "filter_manifest": 1, "train_run": 1, "report_run": 1, "all": 1, "total": 8}


class Talk:
    """A handler, records fed to it, and what it has written."""

    def __init__(self, handler: LogHandler, written: io.StringIO) -> None:
        self.handler, self._written = handler, written

    @property
    def text(self) -> str:
        return self._written.getvalue()

    def log(
        self, event: LogEvent | None = None, msg: str = "", level: int = logging.INFO, **values: Any
    ) -> None:
        record = logging.LogRecord("snakemake.logging", level, "", 0, msg, None, None)
        record.__dict__.update(values, **({"event": event} if event else {}))
        self.handler.handle(record)

    def start(self, number: int, rule: str, *outputs: str, log: str = "", **wildcards: str) -> None:
        self.log(
            LogEvent.JOB_INFO, jobid=number, rule_name=rule, wildcards=wildcards,
            output=list(outputs), log=[log] if log else [],
        )  # fmt: skip

    def fail(self, number: int, *logs: str, message: str | None = None) -> None:
        self.log(
            LogEvent.JOB_ERROR, f"Error in rule, jobid: {number}", logging.ERROR,
            jobid=number, rule_msg=message, log=list(logs), aux={}, shellcmd="python x",
        )  # fmt: skip


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Talk]:
    monkeypatch.setenv(STREAM_VARIABLE, "")
    monkeypatch.chdir(tmp_path)

    def make(stream: io.StringIO | None = None, **settings: Any) -> Talk:
        usual = dict.fromkeys(
            ("printshellcmds", "nocolor", "debug_dag", "verbose", "stdout", "dryrun"), False
        )
        written = stream or io.StringIO()
        monkeypatch.setattr(sys, "stderr", written)
        return Talk(LogHandler(SimpleNamespace(**{**usual, "quiet": None, **settings}), None), written)

    return make


def a_log(folder: Path, text: str) -> str:
    path = folder / "job.log"
    path.write_text(text)
    return str(path)


def write_manifest(folder: Path, stage: str, counts: str) -> str:
    path = folder / f"results/datasets/demo/{stage}/manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(f'{{"stage": "{stage}", "counts": {counts}}}')
    return str(path)


def test_the_start_says_what_is_to_do_by_stage(talk: Callable[..., Talk]) -> None:
    seen = talk()
    seen.log(LogEvent.RUN_INFO, "Job stats", stats=STATS)
    assert seen.text == "to do: 7 jobs in 3 stages: filter 5, train 1, report 1\n"


def test_what_belongs_to_no_stage_is_not_counted_as_one(talk: Callable[..., Talk]) -> None:
    seen = talk()
    seen.log(LogEvent.RUN_INFO, stats={"urls": 1, "total": 1})
    assert seen.text == "to do: 1 job: urls 1\n"
    seen.log(LogEvent.ERROR, "DriverError:\nanother snakemake is at work in this folder", logging.ERROR)
    seen.handler.close()
    assert seen.text.endswith("another snakemake is at work in this folder\n")


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_finished_stage_has_its_place_time_and_own_summary(
    talk: Callable[..., Talk], tmp_path: Path, has_ended: bool
) -> None:
    after = f"{used_line()}\n" if has_ended else ""
    seen, log = talk(), a_log(tmp_path, f"filter     4 kept, 5 rows\n{after}")
    seen.log(LogEvent.RUN_INFO, stats=STATS)
    before = seen.text
    seen.start(1, "filter_manifest", write_manifest(tmp_path, "filter", '{"kept": 4}'), log=log)
    seen.log(LogEvent.JOB_FINISHED, job_id=1)
    assert seen.text.removeprefix(before) == "[stage 1 of 3, 0 s] filter     4 kept, 5 rows\n"


def test_a_stage_without_a_log_is_summed_up_from_its_manifest(tmp_path: Path) -> None:
    progress = Progress(clock=iter([0.0, 10.0, 50.0, 75.0, 75.0]).__next__)
    progress.plan(STATS)
    manifest = write_manifest(tmp_path, "filter", '{"kept": 4, "dropped": {"size": 1}}')
    progress.start(1, Job("filter_part", {"part": "part-00000"}, (), (f"{Path(manifest).parent}/x.parquet",)))
    progress.start(2, Job("filter_manifest", {}, (), (manifest,)))
    assert progress.finish(2) == ["[stage 1 of 3, 1 min 5 s] filter     4 kept, dropped: 1 size"]


def test_parts_are_counted_from_time_to_time_with_the_time_their_like_took() -> None:
    now = [0.0]
    progress = Progress(clock=lambda: now[0])
    progress.plan({"cache_part": 5})
    for number in range(2):
        progress.start(number, Job("cache_part", {"part": str(number)}, (), ()))
    now[0] = 10.0
    assert progress.finish(0) == []
    progress.start(2, Job("cache_part", {"part": "2"}, (), ()))
    now[0] = 40.0
    # Two took 10 and 40 s: one of 30 s is left at its own and two have not begun, all one after the other.
    assert progress.finish(1) == ["cache_part: 2 of 5 done, about 50 s left for the others"]


def test_no_time_is_promised_before_a_job_of_the_rule_is_done() -> None:
    now = [0.0]
    progress = Progress(clock=lambda: now[0])
    lines = progress.plan({"cache_part": 5, "train_run": 1})
    progress.start(0, Job("cache_part", {}, (), ()))
    now[0] = 1000.0
    lines += progress.submit(0, "17")
    assert "left" not in " ".join(lines)


def test_a_failed_job_shows_its_error_once_and_the_end_lists_it(
    talk: Callable[..., Talk], tmp_path: Path
) -> None:
    seen = talk()
    log = a_log(
        tmp_path, "much before\nTraceback (most recent call last):\n  File x\nValueError: no such picture\n"
    )
    seen.log(LogEvent.RUN_INFO, stats=STATS)
    for number in (1, 2):
        seen.start(number, "filter_part", log=log, part=f"part-0000{number}")
        shown = (
            "RuleException:\nCalledProcessError in file x:\nCommand 'y\ny' returned non-zero exit status 1."
        )
        seen.log(LogEvent.ERROR, shown, logging.ERROR, exception="RuleException")
        seen.fail(number, log)
    seen.log(LogEvent.ERROR, "WorkflowError:\nAt least one job did not complete successfully.", logging.ERROR)
    seen.handler.close()
    assert seen.text.splitlines()[1:] == [
        "failed: filter_part part-00001",
        f"  log: {log}",
        "    Traceback (most recent call last):",
        "      File x",
        "    ValueError: no such picture",
        "failed: filter_part part-00002",
        f"  log: {log}",
        "    ValueError: no such picture",
        "failed after 0 s, 0 of 7 jobs done; not made:",
        f"  filter_part part-00001: {log}",
        f"  filter_part part-00002: {log}",
        "What is done is kept. The same command goes on from there when the cause above is mended.",
    ]


def test_a_job_that_was_killed_shows_every_log_and_the_schedulers_word(
    talk: Callable[..., Talk], tmp_path: Path
) -> None:
    seen = talk()
    seen.log(LogEvent.RUN_INFO, stats=STATS)
    seen.start(1, "train_run", log=a_log(tmp_path, "train: step 3/12\n"))
    advice = "For further error details see the cluster/cloud log and the log files of the involved rule(s)."
    (tmp_path / "slurm.log").write_text("slurmstepd: error: Detected 1 oom_kill event\n")
    seen.fail(
        1, str(tmp_path / "job.log"), str(tmp_path / "slurm.log"), message=f"ended as OUT_OF_MEMORY. {advice}"
    )
    assert advice not in seen.text
    for part in ("ended as OUT_OF_MEMORY", "train: step 3/12", "oom_kill event"):
        assert seen.text.count(part) == 1


def test_a_job_that_is_tried_again_and_succeeds_has_not_failed(
    talk: Callable[..., Talk], tmp_path: Path
) -> None:
    seen = talk()
    seen.log(LogEvent.RUN_INFO, stats={"train_run": 1, "total": 1})
    seen.start(1, "train_run", log=str(tmp_path / "absent.log"))
    seen.fail(1)
    seen.log(None, "Trying to restart job 1.")
    seen.start(1, "train_run")
    seen.log(LogEvent.JOB_FINISHED, job_id=1)
    seen.handler.close()
    lines = seen.text.splitlines()
    assert f"  log: {tmp_path}/absent.log (No such file or directory)" in lines
    assert "trying again: train_run (failed once)" in lines
    assert lines[-1] == "finished in 0 s: 1 job in 1 stage"


def test_jobs_that_a_person_stops_have_not_failed(talk: Callable[..., Talk]) -> None:
    seen = talk()
    seen.log(LogEvent.RUN_INFO, stats=STATS)
    seen.start(1, "train_run")
    seen.log(None, "Terminating processes on user request, this might take some time.")
    shown = "RuleException:\nCalledProcessError in file x:\nCommand 'y' died with <Signals.SIGINT: 2>."
    seen.log(LogEvent.ERROR, shown, logging.ERROR)
    seen.fail(1)
    seen.handler.close()
    assert seen.text.splitlines()[1:] == [
        "stopping the jobs",
        "stopped: train_run",
        "stopped after 0 s, 0 of 7 jobs done; the same command goes on from there",
    ]


def test_the_last_lines_tell_what_was_dropped_what_dvc_knows_and_the_report(
    talk: Callable[..., Talk], tmp_path: Path
) -> None:
    seen = talk()
    seen.log(LogEvent.RUN_INFO, stats={"filter_manifest": 1, "report_run": 1, "all": 1, "total": 3})
    manifest = write_manifest(
        tmp_path, "filter", '{"dropped": {"download": 1200, "size": 0, "duplicate": 3}}'
    )
    seen.start(1, "filter_manifest", manifest)
    seen.start(2, "report_run", "results/runs/demo/report/report.html")
    for number in (1, 2):
        seen.log(LogEvent.JOB_FINISHED, job_id=number)
    (tmp_path / "dvc.lock").write_text("new")
    seen.handler.close()
    assert seen.text.splitlines()[-4:] == [
        "finished in 0 s: 2 jobs in 2 stages",
        "dropped by filter: 1,203 (1,200 download, 3 duplicate)",
        "dvc.lock was brought up to date",
        f"report     {tmp_path}/results/runs/demo/report/report.html",
    ]


@pytest.mark.parametrize("quiet", [None, {Quietness.ALL}, {Quietness.PROGRESS, Quietness.RULES}])
def test_errors_and_warnings_are_told_in_full_under_any_quiet(talk: Callable[..., Talk], quiet: Any) -> None:
    seen = talk(quiet=quiet)
    text = 'WorkflowError in file "rules/common.smk", line 28:\nconfig/runs/demo.yaml: train.num_step: unknown key'
    seen.log(LogEvent.ERROR, text, logging.ERROR)
    seen.log(None, "a warning", logging.WARNING)
    seen.handler.close()
    assert seen.text == f"{text}\na warning\n"


def test_quiet_leaves_out_what_goes_well(talk: Callable[..., Talk]) -> None:
    seen = talk(quiet={Quietness.ALL})
    seen.log(LogEvent.RUN_INFO, stats={"train_run": 1, "total": 1})
    seen.start(1, "train_run")
    seen.log(LogEvent.JOB_FINISHED, job_id=1)
    seen.handler.close()
    assert seen.text == ""
    assert not os.environ[STREAM_VARIABLE]


def test_a_message_that_nobody_foresaw_is_shown_and_chatter_is_not(talk: Callable[..., Talk]) -> None:
    seen = talk()
    for text in ("Building DAG of jobs...", "Select jobs to execute...", "Unlocked working directory."):
        seen.log(None, text)
    assert seen.text == "Unlocked working directory.\n"


def test_a_job_in_a_clusters_queue_is_named_unless_there_are_many(talk: Callable[..., Talk]) -> None:
    seen = talk()
    seen.log(LogEvent.RUN_INFO, stats=STATS)
    seen.start(1, "filter_part", part="part-00000")
    seen.start(2, "train_run", log="logs/train.log")
    for number in (1, 2):
        seen.log(None, f"Job {number} has been submitted with SLURM jobid 7{number} (log: logs/slurm/x.log).")
    assert seen.text.splitlines()[1:] == ["train_run: SLURM job 72, log logs/train.log"]
    for number in (1, 2):
        seen.log(None, f"Submitted job {number} with external jobid '7{number}.head'.")
    assert seen.text.splitlines()[2:] == ["train_run: PBS job 72.head, log logs/train.log"]


def test_commands_are_shown_when_asked_for(talk: Callable[..., Talk]) -> None:
    for wanted in (False, True):
        seen = talk(printshellcmds=wanted)
        seen.log(LogEvent.SHELLCMD, shellcmd="python train.py")
        assert ("python train.py" in seen.text) == wanted


@pytest.mark.parametrize("setting", ["dryrun", "verbose", "debug_dag"])
def test_a_dry_run_and_a_hunt_for_errors_keep_snakemakes_own_output(
    talk: Callable[..., Talk], setting: str
) -> None:
    seen = talk(**{setting: True})
    seen.log(LogEvent.RUN_INFO, stats=STATS)
    seen.handler.close()
    assert not seen.handler.writes_to_stream
    assert seen.text == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(
    talk: Callable[..., Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream, no_color, has_colour in [(Terminal(), "", True), (Terminal(), "1", False), (None, "", False)]:
        monkeypatch.setenv("NO_COLOR", no_color)
        seen = talk(stream)
        seen.log(None, "an error", logging.ERROR)
        assert ("\033[31m" in seen.text) == has_colour


def test_control_characters_of_logs_and_messages_are_escaped(
    talk: Callable[..., Talk], tmp_path: Path
) -> None:
    seen = talk()
    seen.log(LogEvent.RUN_INFO, stats=STATS)
    seen.start(1, "filter_part", log=a_log(tmp_path, "ValueError: \033]0;title\a \x9b2J \u202e été 日本\r\n"))
    seen.fail(1, message="\033[2J")
    seen.log(None, "\033[2J", logging.WARNING)
    assert "\033" not in seen.text
    assert "\\x1b]0;title\\x07 \\x9b2J \\u202e été 日本" in seen.text
    assert printable("a\tb\nc\u00a0d") == "a\tb\nc\u00a0d"


def test_of_a_log_the_last_error_with_its_causes_is_shown(tmp_path: Path) -> None:
    first = "Traceback (most recent call last):\nKeyError: 1\n"
    chained = f"{first}\nDuring handling of the above exception, another exception occurred:\n\n{first}"
    assert end_of_log(a_log(tmp_path, f"{first}next attempt\n{chained}")) == chained.rstrip().split("\n")
    long = "Traceback (most recent call last):\n" + "  frame\n" * 500 + "ValueError: the end\n"
    lines = end_of_log(a_log(tmp_path, long))
    assert (len(lines), lines[-1]) == (MAX_LINES + 1, "ValueError: the end")
    assert end_of_log(a_log(tmp_path, "\n")) == []
    (tmp_path / "job.log").write_bytes(b"\xff\n" * 100_000)
    assert end_of_log(tmp_path / "job.log")[-1] == "\\xff"


def test_durations_read_well() -> None:
    assert [duration(s) for s in (0.2, 59.4, 61, 7500)] == ["0 s", "59 s", "1 min 1 s", "2 h 5 min"]


def test_a_job_beside_its_driver_leaves_summary_and_traceback_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, beside, ending in (("a", True, SystemExit), ("b", False, ValueError)):
        monkeypatch.setenv(STREAM_VARIABLE, stream_id(sys.__stderr__) if beside else "1:1")
        with pytest.raises(ending), job(tmp_path / name):
            print("a word")
            tell("filter     4 kept")
            raise ValueError("why")
        assert ("4 kept" in capfd.readouterr().out) != beside
        written = (tmp_path / name).read_text()
        assert "a word\nfilter     4 kept\n" in written
        assert "ValueError: why" in written


def test_an_error_that_the_log_cannot_take_reaches_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STREAM_VARIABLE, stream_id(sys.__stderr__))
    # Closing such a log fails too; what counts is that neither error ends the job without a word.
    with pytest.raises((ValueError, OSError)), job("/dev/full"):
        raise ValueError("why")
