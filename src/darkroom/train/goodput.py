"""Where the hours of a training went, over all its starts: into steps that count, or into everything else.

Goodput is the share of wall time, from the first start to the last step, that went into steps which are part of
the result. A journal in the run directory notes what happened when; nothing that is made depends on it.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

JOURNAL = "times.jsonl"
# Beside the log of a training that has ended: its `Account`.
GOODPUT = "goodput.json"
LABELS = {
    "steps": "steps that count",
    "waiting": "waiting for data",
    "beside": "saving, validating and drawing",
    "starting": "starting",
    "repeated": "steps done again",
    "stopped": "stopped, or waiting to start",
}


@dataclass(frozen=True)
class Account:
    """Seconds of wall time.

    Attributes:
        steps: steps that count.
        waiting: for data, in steps that count.
        beside: the training waits while it saves, validates and draws.
        starting: from each start of the process to its first step.
        repeated: steps that a later start did again, with their waiting.
        stopped: between the last that a start noted and the next start: in a queue, or lost with a kill.
    """

    steps: float = 0.0
    waiting: float = 0.0
    beside: float = 0.0
    starting: float = 0.0
    repeated: float = 0.0
    stopped: float = 0.0

    @property
    def total(self) -> float:
        """From the first start on."""
        return sum(asdict(self).values())

    @property
    def goodput(self) -> float:
        """The share of `steps`."""
        return self.shares["steps"]

    @property
    def told(self) -> str:
        """It in words, for a log."""
        rest = ", ".join(f"{of:.1%} {LABELS[name]}" for name, of in self.shares.items() if name != "steps")
        whole = timedelta(seconds=round(self.total))
        return f"goodput {self.goodput:.1%} of {whole} since the first start; {rest}"

    @property
    def shares(self) -> dict[str, float]:
        """Each as a share of the total; 0 before anything is done."""
        return {name: seconds / (self.total or 1.0) for name, seconds in asdict(self).items()}


@dataclass(frozen=True)
class _Interval:
    """What one start noted at once: steps (first, last] with the seconds that they took."""

    first: int
    last: int
    steps: float
    waiting: float

    def before(self, step: int) -> float:
        """The share of its steps up to `step`."""
        return min(max((step - self.first) / (self.last - self.first), 0.0), 1.0)


def account(lines: Iterable[Mapping[str, Any]]) -> Account:
    """Add up the lines of a journal.

    Args:
        lines: `{"began": ..., "at": ..., "step": ...}` for each start (of the process, of its first step, the
            steps that were done then), and `{"at": ..., "step": ..., "waited": ..., "beside": ...}` for what
            follows it; times in seconds since 1970.
    """
    seconds = {field.name: 0.0 for field in fields(Account)}
    intervals: list[_Interval] = []
    at, step = None, 0
    for line in lines:
        if "began" in line:
            if at is not None:
                seconds["stopped"] += max(line["began"] - at, 0.0)
            # A clock that was set back makes nothing negative.
            seconds["starting"] += max(line["at"] - line["began"], 0.0)
            intervals, repeated = _without(intervals, line["step"])
            seconds["repeated"] += repeated
        elif at is not None:
            taken = max(line["at"] - at, 0.0)
            beside = min(line["beside"], taken)
            seconds["beside"] += beside
            waiting = min(line["waited"], taken - beside)
            if line["step"] > step:
                intervals.append(_Interval(step, line["step"], taken - beside - waiting, waiting))
            else:
                seconds["beside"] += taken - beside
        at, step = line["at"], line["step"]
    seconds["steps"] += sum(of.steps for of in intervals)
    seconds["waiting"] += sum(of.waiting for of in intervals)
    return Account(**seconds)


def _without(intervals: Sequence[_Interval], step: int) -> tuple[list[_Interval], float]:
    """What is left of them where a start goes on from `step`, and the seconds of what is done again."""
    kept, repeated = [], 0.0
    for of in intervals:
        share = of.before(step)
        repeated += (1 - share) * (of.steps + of.waiting)
        if share > 0:
            kept.append(
                _Interval(of.first, min(of.last, step), share * of.steps, share * of.waiting)
                if share < 1
                else of
            )
    return kept, repeated


def read_journal(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run directory's journal; without one, and of what a kill has cut, none."""
    path = Path(folder) / JOURNAL
    if not path.is_file():
        return []
    whole = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    return [line for line in map(_parsed, whole) if line is not None]


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:  # the end of a start that was killed while it wrote
        return None
    known = isinstance(line, dict) and all(isinstance(value, int | float) for value in line.values())
    wanted = {"at", "step", "began"}, {"at", "step", "waited", "beside"}
    return line if known and set(line) in wanted else None


class Journal:
    """Rank 0 notes when steps are done.

    Args:
        folder: the run directory.
        step: how many are done.
    """

    def __init__(
        self,
        folder: str | Path,
        step: int,
        now: Callable[[], float] = time.time,
        began: float | None = None,
    ) -> None:
        self._now = now
        self._lines: list[Mapping[str, Any]] = list(read_journal(folder))
        self._beside = self._waited = 0.0
        path = Path(folder) / JOURNAL
        # A line that a kill has cut ends here, so that the next is one of its own.
        is_cut = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        self._file = path.open("a", encoding="utf-8")
        if is_cut:
            self._file.write("\n")
        started = psutil.Process().create_time() if began is None else began
        self._write({"began": started, "at": now(), "step": step})

    def beside(self, seconds: float) -> None:
        """Note that the training waited for something that is no step."""
        self._beside += seconds

    def note(self, step: int, seconds_waited: float) -> Account:
        """Note that `step` steps are done; returns what is known.

        seconds_waited: for data, since this start.
        """
        waited = seconds_waited - self._waited
        self._write({"at": self._now(), "step": step, "waited": waited, "beside": self._beside})
        self._beside, self._waited = 0.0, seconds_waited
        return account(self._lines)

    def close(self) -> None:
        """No more is noted."""
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._lines.append(line)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
