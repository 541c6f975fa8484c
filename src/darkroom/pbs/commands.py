"""PBS's commands: which jobs there are, and taking some out of the queue."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

COMMAND_S = 60
# The exit codes of qstat where all is well, and where it knows no such job (PBSE_UNKJOBID, 15001 mod 256).
_ANSWERED = (0, 153)
_UNKNOWN = re.compile(r"Unknown Job", re.IGNORECASE)
AWAY = re.compile(r"cannot connect|connection refused|could not connect|timed? ?out|no route", re.IGNORECASE)
# Ended: finished, of PBS Professional; completed, of Torque; a subjob that has ended.
_ENDED = "FCX"


class Unreachable(OSError):
    """A command is not here, failed, or gave no answer in time; the message has its words."""


@dataclass(frozen=True)
class Seen:
    """What the scheduler says of a job: its state's letter, and its exit status where it has ended."""

    state: str
    exit_status: int | None

    @property
    def has_ended(self) -> bool:
        """Whether it neither waits nor runs."""
        return self.state in _ENDED


def look(ids: Sequence[str], dialect: str) -> dict[str, Seen]:
    """What the scheduler knows of jobs; those that it does not know are left out.

    Raises:
        Unreachable: qstat is not here, does not answer, or fails for another reason.
    """
    # With -x, PBS Professional tells of jobs that have ended too; Torque keeps them for a while by itself.
    done = _run(["qstat", *(["-x"] if dialect == "pro" else []), "-f", *ids])
    said = f"{done.stdout}\n{done.stderr}"
    is_unknown = done.returncode in _ANSWERED or _UNKNOWN.search(said) is not None
    if not is_unknown or (done.returncode and AWAY.search(done.stderr)):
        raise Unreachable(done.stderr.strip() or f"qstat: exit code {done.returncode}")
    found = read(done.stdout)
    return {id: found[_digits(id)] for id in ids if _digits(id) in found}


def read(text: str) -> dict[str, Seen]:
    """Job number, less its server -> what `qstat -f` says of it."""
    found = {}
    for block in re.split(r"^Job Id:\s*", text, flags=re.MULTILINE)[1:]:
        state = re.search(r"^\s+job_state = (\w)\s*$", block, re.MULTILINE)
        status = re.search(r"^\s+exit_status = (-?\d+)\s*$", block, re.MULTILINE | re.IGNORECASE)
        if state:
            found[_digits(block.split()[0])] = Seen(state[1], int(status[1]) if status else None)
    return found


def cancel(ids: Iterable[str]) -> None:
    """Take jobs out of the queue: SIGTERM now, SIGKILL when the scheduler's delay is over.

    Of those that have ended meanwhile qdel complains, which is no error.

    Raises:
        Unreachable: qdel is not here or does not reach the scheduler.
    """
    done = _run(["qdel", *ids])
    if done.returncode and AWAY.search(said := f"{done.stdout}\n{done.stderr}"):
        raise Unreachable(said.strip())


def _digits(id: str) -> str:
    return id.split(".")[0]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        raise Unreachable(f"{command[0]} is not here: run this on a login node of the cluster")
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=COMMAND_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{command[0]}: no answer within {COMMAND_S} s") from None
    except OSError as error:
        raise Unreachable(f"{command[0]}: {error}") from None
