"""What a run has done and has to do, and the lines that tell a person of it."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.jobs import summary_line
from darkroom.machine import USED
from darkroom.stages import STAGES
from snakemake_logger_plugin_darkroom.text import duration, end_of_log, has_traceback, printable

# Seconds between two lines about the parts of a stage.
PARTS_EVERY_S = 30.0


@dataclass
class Job:
    """One job that was started: its rule with its wildcards, its logs and what it writes."""

    rule: str
    wildcards: Mapping[str, str]
    logs: tuple[str, ...]
    outputs: tuple[str, ...]
    began_s: float = 0.0
    num_failures: int = 0
    is_running: bool = True

    @property
    def name(self) -> str:
        """The rule with the values of its wildcards, e.g. `recaption_part demo part-00001`."""
        return " ".join([self.rule, *self.wildcards.values()])

    @property
    def manifest(self) -> Path | None:
        """The manifest that the job ends a stage with, if it ends one."""
        found = [path for path in self.outputs if os.path.basename(path) == "manifest.json"]
        return Path(found[0]) if _ends_stage(self.rule) and found else None


@dataclass
class _Rule:
    """How far the jobs of one rule are."""

    num_jobs: int
    num_finished: int = 0
    # Of the finished ones together.
    seconds: float = 0.0
    told_s: float | None = None


@dataclass
class Progress:
    """Follows a run; every method returns the lines to print. `clock` gives seconds."""

    clock: Callable[[], float] = time.monotonic
    is_planned: bool = False
    is_interrupted: bool = False
    num_finished: int = 0
    _began_s: float = 0.0
    _rules: dict[str, _Rule] = field(default_factory=dict)
    _jobs: dict[int, Job] = field(default_factory=dict)
    _failed: dict[int, Job] = field(default_factory=dict)
    _num_stages: int = 0
    _ended: list[Path] = field(default_factory=list)
    _shown: set[tuple[str, str]] = field(default_factory=set)
    _recorded: bytes = b""

    def plan(self, stats: Mapping[str, int]) -> list[str]:
        """What will be made: `stats` gives the number of jobs by rule, and `total`."""
        # Targets make nothing; they name what the others make.
        counts = {rule: n for rule, n in stats.items() if rule not in ("total", "all", *STAGES)}
        self._rules = {rule: _Rule(n) for rule, n in counts.items()}
        self.is_planned, self._began_s, self._recorded = True, self.clock(), _recorded_in_dvc()
        self._num_stages = sum(n for rule, n in counts.items() if _ends_stage(rule))
        stages: dict[str, int] = {}
        for rule in sorted(counts, key=_order):
            stages[_stage(rule)] = stages.get(_stage(rule), 0) + counts[rule]
        listed = ", ".join(f"{stage} {n:,}" for stage, n in stages.items())
        return [f"to do: {self._extent}: {listed}"]

    def start(self, job_id: int, job: Job) -> list[str]:
        """A job was started or submitted, for the first time or again."""
        job.began_s = self.clock()
        before = self._jobs.get(job_id)
        if before is not None:
            job.num_failures = before.num_failures
        self._jobs[job_id] = job
        rule = self._rules.get(job.rule)
        if rule is not None and rule.told_s is None:
            rule.told_s = job.began_s
        return []

    def finish(self, job_id: int) -> list[str]:
        """A job has ended well: the stage's line, or from time to time one about its parts."""
        job = self._jobs.get(job_id)
        if job is None or job.rule not in self._rules:
            return []
        self._failed.pop(job_id, None)
        self.num_finished += 1
        job.is_running, rule = False, self._rules[job.rule]
        rule.num_finished += 1
        rule.seconds += self.clock() - job.began_s
        return self._stage_line(job, job.manifest) if job.manifest else self._parts_line(job.rule)

    def fail(self, job_id: int, message: str, logs: Iterable[str]) -> list[str]:
        """A job has failed: which, why by the end of its log, and where that lies."""
        job = self._jobs.get(job_id)
        if job is None:
            return [f"failed: job {job_id}: {printable(message)}"]
        job.is_running = False
        if self.is_interrupted:
            return [f"stopped: {job.name}"]
        job.num_failures += 1
        self._failed[job_id] = job
        lines = [f"failed: {job.name}"]
        lines += [f"  {line}" for line in printable(message).strip().splitlines()]
        for log in dict.fromkeys([*job.logs, *logs]):
            ending, note = _read_log(log)
            # Many parts fail alike: the traceback once, then its message.
            is_known = bool(ending) and (job.rule, ending[-1]) in self._shown
            lines.append(f"  log: {log}{note}")
            lines += [f"    {line}" for line in (ending[-1:] if is_known else ending)]
            if has_traceback(ending):
                self._shown.add((job.rule, ending[-1]))
                break
        return lines

    def interrupt(self) -> list[str]:
        """The person stops the run: jobs that end from now on did not fail."""
        self.is_interrupted = True
        return ["stopping the jobs"]

    def again(self, job_id: int) -> list[str]:
        """A failed job is tried once more."""
        job = self._failed.pop(job_id, None)
        return [f"trying again: {job.name} (failed {_times(job.num_failures)})"] if job else []

    def submit(self, job_id: int, in_queue: str) -> list[str]:
        """A job went into a cluster's queue; of many alike each would be a line too many."""
        job = self._jobs.get(job_id)
        if job is None or job.rule not in self._rules or self._rules[job.rule].num_jobs > 1:
            return []
        return [f"{job.name}: {in_queue}, log {', '.join(job.logs)}"]

    @property
    def has_failed(self) -> bool:
        """Whether a job has failed and was not tried again."""
        return bool(self._failed)

    def end(self) -> list[str]:
        """The last lines: what was made, what was dropped, and where the report is; or what failed."""
        # Without a job there is nothing to add to the error that came before.
        if not self._jobs:
            return []
        took = duration(self.clock() - self._began_s)
        done = f"{self.num_finished:,} of {_count(self._num_jobs, 'job')}"
        if self._failed:
            jobs = [f"  {job.name}: {', '.join(job.logs)}" for job in self._failed.values()]
            return [
                f"failed after {took}, {done} done; not made:", *jobs,
                "What is done is kept. The same command goes on from there when the cause above is mended.",
            ]  # fmt: skip
        if self.num_finished < self._num_jobs:
            return [f"stopped after {took}, {done} done; the same command goes on from there"]
        pages = [path for job in self._jobs.values() for path in job.outputs if path.endswith("report.html")]
        return [
            f"finished in {took}: {self._extent}",
            *[line for path in self._ended for line in _dropped(path)],
            *(["dvc.lock was brought up to date"] if _recorded_in_dvc() != self._recorded else []),
            *[f"report     {Path(page).resolve()}" for page in pages],
        ]

    @property
    def _num_jobs(self) -> int:
        return sum(rule.num_jobs for rule in self._rules.values())

    @property
    def _extent(self) -> str:
        stages = f" in {_count(self._num_stages, 'stage')}" if self._num_stages else ""
        return f"{_count(self._num_jobs, 'job')}{stages}"

    def _stage_line(self, job: Job, manifest: Path) -> list[str]:
        self._ended.append(manifest)
        folder = f"{manifest.parent}{os.sep}"
        began_s = min(
            other.began_s
            for other in self._jobs.values()
            if any(path.startswith(folder) for path in other.outputs)
        )
        # Several runs, phases among them, have a stage of the same name.
        item = f" ({manifest.parent.parent.name})" if self._rules[job.rule].num_jobs > 1 else ""
        place = f"stage {len(self._ended)} of {self._num_stages}"
        return [f"[{place}, {duration(self.clock() - began_s)}{item}] {_summary(job, manifest)}"]

    def _parts_line(self, name: str) -> list[str]:
        rule, now = self._rules[name], self.clock()
        if rule.num_finished == rule.num_jobs or rule.told_s is None or now - rule.told_s < PARTS_EVERY_S:
            return []
        rule.told_s = now
        left_s = self._seconds_left(name, rule, now)
        left = f", about {duration(left_s)} left for the others" if left_s >= 1 else ""
        return [f"{name}: {rule.num_finished:,} of {rule.num_jobs:,} done{left}"]

    def _seconds_left(self, name: str, rule: _Rule, now: float) -> float:
        """Until a rule's jobs are done, if they take as long as its finished ones, as many at a time as now."""
        mean_s = rule.seconds / rule.num_finished
        ages = [now - job.began_s for job in self._jobs.values() if job.rule == name and job.is_running]
        num_waiting = rule.num_jobs - rule.num_finished - len(ages)
        return (sum(max(mean_s - age, 0.0) for age in ages) + num_waiting * mean_s) / max(len(ages), 1)


def _stage(rule: str) -> str:
    """The stage that a rule belongs to: the first word of its name."""
    return rule.split("_")[0]


def _ends_stage(rule: str) -> bool:
    """Whether a rule writes a stage's manifest, as `filter_manifest` and `train_run` do."""
    return _stage(rule) in STAGES and rule.split("_")[1:] in (["manifest"], ["run"])


def _order(rule: str) -> int:
    stage = _stage(rule)
    return STAGES.index(stage) if stage in STAGES else -1


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _read(manifest: Path) -> tuple[str, dict[str, Any]]:
    """A manifest's stage and counts; the name of its folder, if the manifest cannot be read."""
    try:
        body = json.loads(manifest.read_text(encoding="utf-8"))
        return body["stage"], body["counts"]
    except (OSError, ValueError, KeyError):
        return manifest.parent.name, {}


def _summary(job: Job, manifest: Path) -> str:
    """The line that the job itself ended with, else one of its manifest's counts."""
    stage, counts = _read(manifest)
    for log in job.logs:
        with contextlib.suppress(OSError):
            # What it has used a job notes after its last word.
            lines = [line for line in end_of_log(log) if not line.startswith(USED)]
            if lines and lines[-1].startswith(f"{stage:<10} "):
                return lines[-1]
    return printable(summary_line(stage, counts).rstrip())


def _recorded_in_dvc() -> bytes:
    path = Path("dvc.lock")
    return path.read_bytes() if path.is_file() else b""


def _dropped(manifest: Path) -> list[str]:
    stage, counts = _read(manifest)
    causes = {cause: n for cause, n in counts.get("dropped", {}).items() if n}
    if not causes:
        return []
    listed = ", ".join(f"{n:,} {cause}" for cause, n in causes.items())
    return [printable(f"dropped by {stage}: {sum(causes.values()):,} ({listed})")]


def _read_log(path: str) -> tuple[list[str], str]:
    """The end of a log, and what is to be said of it."""
    try:
        lines = end_of_log(path)
    except OSError as error:
        return [], f" ({error.strerror or error})"
    return lines, "" if lines else " (empty)"
