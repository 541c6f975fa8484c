"""What was planned of a run, beside what it took, from the file that `darkroom plan` left beside its logs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.machine import Used, last_used
from darkroom.report.runs import clock, read_costs

# Beside the logs of a run: the plan that was made of it.
PLAN = "plan.json"
_NEEDED = ("job_s", "job_s_half", "memory_mib")


def read_planned(path: Path, benchmarks: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    """A row for each stage that was planned and made: time of its jobs and memory of the largest, twice.

    A plan knows nothing of what else the machine does, so the time that jobs waited for cores is told apart.

    Args:
        path: the plan.
        benchmarks: stage -> Snakemake's benchmark files, beside which the jobs' logs lie.

    Raises:
        ValueError: it is not what `darkroom plan` writes.
    """
    try:
        stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
        planned = {stage: [float(values[name]) for name in _NEEDED] for stage, values in stages.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: is no plan of `darkroom plan`; remove it, or plan again") from None
    rows = []
    for cost in read_costs(benchmarks)["rows"]:
        if cost["stage"] in planned:
            seconds, half, memory = planned[cost["stage"]]
            used = [(read_costs({"job": [path]})["rows"], _used(path)) for path in benchmarks[cost["stage"]]]
            told = [(job[0]["seconds"], of) for job, of in used if job and of]
            waited = sum(wall_s * of.waiting for wall_s, of in told)
            # Each sees less than all: a benchmark looks now and then, a job at no process but its own.
            largest = max([cost["memory_mib"] or 0.0, *(of.memory_mib for _, of in told)]) or None
            rows.append({
                "stage": cost["stage"],
                "time": clock(seconds), "low": clock(max(seconds - half, 0.0)), "high": clock(seconds + half),
                "actual": cost["time"], "waited": clock(waited),
                "error": _error(seconds, cost["seconds"] - waited),
                "memory": memory, "actual_memory": largest, "memory_error": _error(memory, largest),
            })  # fmt: skip
    return rows


def _error(planned: float, actual: float | None) -> str:
    """By how much the plan was wrong, as a share of the truth."""
    if not actual or not planned:
        return "\N{EN DASH}"
    return f"{100 * (planned / actual - 1):+.0f} %".replace("-", "\N{MINUS SIGN}")


def _used(benchmark: Path) -> Used | None:
    """What a job's log says at its end."""
    log = benchmark.with_suffix(".log")
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return last_used(text.splitlines())
