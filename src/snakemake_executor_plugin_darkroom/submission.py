"""Jobs on their way into the queue: what `sbatch` refuses for the time being waits, at no attempt's cost."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from darkroom.slurm import queue
from darkroom.slurm.commands import Unreachable
from darkroom.slurm.refusals import Refusal, classify, reason
from snakemake_executor_plugin_darkroom.messages import say

# As often is a limit of one's own asked again while no job of one's own is there to end.
NUM_ALONE = 3
# What limits are set on: jobs that share these wait behind each other, and for no others.
LIMITED_BY = ("slurm_partition", "slurm_account", "qos", "slurm_extra")
Line = tuple[str, ...]


class Lines:
    """Jobs in lines by what limits their number; `submit` sends one and says whether it is out of the way."""

    def __init__(self, submit: Callable[[Any], bool], pause_s: float) -> None:
        self._submit, self.pause_s = submit, pause_s
        self._lines: dict[Line, deque[Any]] = {}
        # Held while a job is being submitted: the queue may know it before its driver does.
        self.submitting = threading.Lock()
        self._alone: dict[int, int] = {}
        self._told: set[tuple[Line, str]] = set()

    def add(self, job: Any) -> None:
        """Submit a job, unless others that ask for the same already wait: then it waits behind them."""
        line = self._lines.setdefault(_line(job), deque())
        line.append(job)
        if len(line) == 1:
            self._serve(line)

    def serve(self) -> None:
        """Try the first of each line again, and those behind it as long as they are taken."""
        for line in list(self._lines.values()):
            self._serve(line)

    def _serve(self, line: deque[Any]) -> None:
        with self.submitting:
            while line and self._submit(line[0]):
                self._alone.pop(id(line[0]), None)
                line.popleft()

    def may_pass(self, job: Any, text: str) -> bool:
        """Whether a refusal in sbatch's words passes by itself; says so the first time."""
        kind = classify(text)
        if kind is Refusal.PERMANENT or (kind is Refusal.OWN_LIMIT and self._is_alone(job)):
            return False
        if ((line := _line(job)), kind.name) not in self._told:
            self._told.add((line, kind.name))
            say(
                f"sbatch does not take {job} at present ({reason(text)}); "
                f"asking again every {self.pause_s:.0f} s, this costs no attempt"
            )
        return True

    def _is_alone(self, job: Any) -> bool:
        """Whether a limit of one's own was met time after time without any job of one's own."""
        try:
            if queue.has_jobs():
                self._alone.pop(id(job), None)
                return False
        except Unreachable:
            return False
        count = self._alone[id(job)] = self._alone.get(id(job), 0) + 1
        return count >= NUM_ALONE


def _line(job: Any) -> Line:
    return tuple(str(job.resources.get(name, "")) for name in LIMITED_BY)
