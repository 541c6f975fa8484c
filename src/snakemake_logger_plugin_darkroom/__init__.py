"""A logger plugin of Snakemake: one line a stage, errors in full, and where the report is.

Snakemake finds it by its name (`--logger darkroom`, `logger: darkroom` in a profile). A dry run, `--verbose` and
`--debug-dag` keep Snakemake's own output; so does its log file in `.snakemake/log`. Jobs have no logger plugin.
"""

import logging
import os
import re
import sys
from typing import Any, TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from darkroom.jobs import STREAM_VARIABLE, stream_id
from snakemake_logger_plugin_darkroom.progress import Job, Progress
from snakemake_logger_plugin_darkroom.text import printable

# What Snakemake says of its own work. A message that a newer Snakemake words otherwise is shown.
_CHATTER = re.compile(
    "Assuming unrestricted shared filesystem|Building DAG of jobs|Using shell:|Select jobs to execute"
    "|Execute [0-9]+ jobs|Complete log|Elapsed time|Shutting down, this might"
    "|SLURM run ID|Group jobs: inactive|Job rate limit reached"
)
_AGAIN = re.compile(r"Trying to restart job (\d+)")
# By the executor for SLURM, and by the generic one, which is PBS's here.
_SUBMITTED = re.compile(
    r"Job (?P<on_slurm>\d+) has been submitted with SLURM jobid (\S+)"
    r"|Submitted job (?P<on_pbs>\d+) with external jobid '(.*)'"
)
# Comes before the failed job itself, whose log says why it ended with status 1. The command fills a page.
_COMMAND_ENDED = re.compile("RuleException:\nCalledProcessError in ")
_STATUS_1 = re.compile(r"returned non-zero exit status 1\.$")
_COMMAND = re.compile(r"Command '.*' (?=returned non-zero|died with)", re.DOTALL)
# What follows is just that.
_SEE_LOGS = "For further error details see the cluster/cloud log and the log files of the involved rule(s)."
_NOT_ALL_DONE = re.compile(
    "WorkflowError:\nAt least one job did not complete|Exiting because a job execution failed"
)
_INTERRUPTED = re.compile("Terminating processes on user request")
_NO_PAIR = re.compile(r"Config entries have to be defined as name=value pairs.*Unparsable value: '(.*)'\)")
_RED, _YELLOW, _PLAIN = "\033[31m", "\033[33m", "\033[0m"


class LogHandler(LogHandlerBase):
    """Writes to stderr what a person wants to know of a run."""

    def __post_init__(self) -> None:
        common = self.common_settings
        self._stands_aside = bool(common.dryrun or common.verbose or common.debug_dag)
        quiet = {getattr(choice, "name", str(choice)) for choice in common.quiet or ()}
        self._is_quiet = bool(quiet & {"ALL", "PROGRESS", "RULES"})
        self._stream: TextIO = sys.stderr
        self._has_colour = self._may_colour()
        self._progress = Progress()
        self._is_closed = False
        self._last_words: list[str] = []
        if not (self._stands_aside or self._is_quiet):
            os.environ[STREAM_VARIABLE] = stream_id(self._stream)

    @property
    def writes_to_stream(self) -> bool:
        """Whether this handler replaces Snakemake's own."""
        return not self._stands_aside

    @property
    def writes_to_file(self) -> bool:
        """It writes no file."""
        return False

    @property
    def has_filter(self) -> bool:
        """Snakemake's filter would drop errors under `--quiet all`."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Snakemake's formatter would write a page a job."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """The graph of rules is not needed."""
        return False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the lines that a record gives rise to, if any."""
        try:
            if not self._stands_aside:
                self._write(self._lines(record), record.levelno)
            elif record.levelno >= logging.ERROR:
                # Snakemake's own words for it are a traceback, after which ours can be seen.
                self._last_words = _words_after_config(record.getMessage())
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write the last lines; called when everything else was logged."""
        if self._stands_aside:
            self._write(self._last_words, logging.ERROR)
            self._last_words = []
        elif not self._is_closed:
            self._is_closed = True
            level = logging.ERROR if self._progress.has_failed else logging.INFO
            if not self._is_quiet or level == logging.ERROR:
                self._write(self._progress.end(), level)
        super().close()

    def _lines(self, record: logging.LogRecord) -> list[str]:
        event, get = getattr(record, "event", None), record.__dict__.get
        told: list[str] = []
        if event == LogEvent.RUN_INFO:
            told = self._progress.plan(get("stats") or {})
        elif event == LogEvent.JOB_INFO:
            told = self._progress.start(get("jobid", -1), _job(record.__dict__))
        elif event == LogEvent.JOB_FINISHED:
            told = self._progress.finish(get("job_id", -1))
        elif event == LogEvent.JOB_ERROR:
            message = (get("rule_msg") or "").replace(_SEE_LOGS, "")
            return self._progress.fail(get("jobid", -1), message, get("log") or ())
        elif event == LogEvent.SHELLCMD and self.common_settings.printshellcmds and get("shellcmd"):
            told = [f"command: {get('shellcmd')}"]
        elif record.levelno >= logging.WARNING:
            return self._error(record.getMessage())
        elif event is None:
            told = self._message(record.getMessage())
        return [] if self._is_quiet else told

    def _error(self, text: str) -> list[str]:
        progress = self._progress
        if _COMMAND_ENDED.match(text) and (progress.is_interrupted or _STATUS_1.search(text)):
            return []
        if _NOT_ALL_DONE.match(text) and progress.is_planned:
            return []
        return _words_after_config(text) or [printable(_COMMAND.sub("the command ", text)).strip()]

    def _message(self, text: str) -> list[str]:
        if _INTERRUPTED.match(text):
            return self._progress.interrupt()
        if found := _AGAIN.match(text):
            return self._progress.again(int(found[1]))
        if found := _SUBMITTED.match(text):
            if found["on_pbs"]:
                return self._progress.submit(int(found["on_pbs"]), f"PBS job {found[4]}")
            return self._progress.submit(int(found["on_slurm"]), f"SLURM job {found[2]}")
        return [] if _CHATTER.match(text) or not text.strip() else [printable(text)]

    def _write(self, lines: list[str], level: int) -> None:
        if not lines:
            return
        text = "\n".join(lines)
        if self._has_colour and level >= logging.WARNING:
            text = f"{_RED if level >= logging.ERROR else _YELLOW}{text}{_PLAIN}"
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def _may_colour(self) -> bool:
        forbidden = (
            self.common_settings.nocolor or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        )
        return self._stream.isatty() and not forbidden


def _words_after_config(text: str) -> list[str]:
    """What to do where `--config` has swallowed a target; nothing for another error."""
    found = _NO_PAIR.search(text)
    if found is None:
        return []
    word = printable(found[1])
    return [
        f"--config takes every word after it, and {word!r} is no KEY=VALUE; "
        f"give what to make first: snakemake {word} --config run=NAME"
    ]


def _job(values: dict[str, Any]) -> Job:
    return Job(
        rule=values["rule_name"],
        wildcards=dict(values.get("wildcards") or {}),
        logs=tuple(values.get("log") or ()),
        outputs=tuple(values.get("output") or ()),
    )
