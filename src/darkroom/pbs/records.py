"""What is known of each job that was submitted: a folder, from before `qsub` is asked until the job's end is told.

A driver that is killed leaves them behind; the next one finds the jobs by them. Each holds

    about.json    the rule, its wildcards' values, which PBS was asked, and where it writes its log
    environment   the driver's variables, for the job's shell; readable by nobody else
    id            what qsub answered: empty while it is asked
    pid, said     qsub's process, and what it said on its error stream
    exit          the exit code, which the job itself writes at its end
"""

import contextlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(".snakemake/darkroom/pbs")
# Beside the records: there since the scheduler has not answered.
SILENT = "silent"
# What qsub answers: 17, 17.server, 17[].server.
_NUMBER = re.compile(r"^\s*(\d+(?:\[\d*\])?(?:\.[\w.-]+)?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Record:
    """One job's folder."""

    folder: Path

    @property
    def id(self) -> str | None:
        """The job's number; None while qsub has not answered."""
        found = _NUMBER.findall(_text(self.folder / "id"))
        return found[-1] if found else None

    @property
    def exit_code(self) -> int | None:
        """What the job said of its end; None while it has not."""
        text = _text(self.folder / "exit").strip()
        return int(text) if text.isdecimal() else None

    @property
    def dialect(self) -> str:
        """Which PBS was asked."""
        return str(self._about().get("pbs", "torque"))

    @property
    def log(self) -> str:
        """PBS's own log of the job."""
        return str(self._about().get("log", "none"))

    @property
    def is_being_submitted(self) -> bool:
        """Whether qsub has not answered, and its process is still there."""
        pid = _text(self.folder / "pid").strip()
        return self.id is None and (not pid or Path("/proc", pid).exists())

    def missing_s(self) -> float:
        """For how many seconds the scheduler has known nothing of the job's end; asked for the first time, 0."""
        mark = self.folder / "missing"
        try:
            return max(0.0, time.time() - mark.stat().st_mtime)
        except FileNotFoundError:
            mark.touch()
            return 0.0

    def describe(self, **about: str) -> None:
        """Write down `rule`, `names`, `pbs` and `log`."""
        (self.folder / "about.json").write_text(json.dumps(about))

    def note(self) -> None:
        """Let the job be found by its number."""
        ids = self.folder.parents[1] / "ids"
        ids.mkdir(exist_ok=True)
        link = ids / str(self.id)
        link.unlink(missing_ok=True)
        link.symlink_to(Path("..", "jobs", self.folder.name))

    def remove(self) -> None:
        """Forget the job: its end has been told."""
        if self.id is not None:
            (self.folder.parents[1] / "ids" / self.id).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _about(self) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            return dict(json.loads(_text(self.folder / "about.json")))
        return {}

    def __str__(self) -> str:
        about = self._about()
        return f"{self.id or 'no number'} ({' '.join(filter(None, [about.get('rule'), about.get('names')]))})"


def add(name: str, root: Path = FOLDER) -> Record:
    """The record of a new job, in a folder of its own that only this user reads."""
    jobs = root / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    for number in range(1000):
        folder = jobs / (f"{name}-{number}" if number else name)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            return Record(folder)
    raise OSError(f"{jobs}: a thousand jobs have the name {name}")


def find(id: str, root: Path = FOLDER) -> Record | None:
    """The record of a job by its number, if there is one."""
    link = root / "ids" / os.path.basename(id)
    if not id or not link.is_dir():
        return None
    return Record(root / "jobs" / os.path.basename(os.readlink(link)))


def left(root: Path = FOLDER) -> list[Record]:
    """The records of all jobs whose end has not been told."""
    return [Record(folder) for folder in sorted((root / "jobs").glob("*")) if folder.is_dir()]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
