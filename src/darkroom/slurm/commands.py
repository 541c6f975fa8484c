"""SLURM's commands: each is run here, with an end to the wait and its own words as the error."""

import shutil
import subprocess
from dataclasses import dataclass

COMMAND_S = 60


class Unreachable(OSError):
    """A command is not here, failed, or gave no answer in time; the message has its words."""


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said, both streams in one."""

    code: int
    text: str


def ask(*command: str) -> str:
    """The output of a command.

    Raises:
        Unreachable: it is not here, failed, or gave no answer in time.
    """
    done = _run(command)
    if done.returncode:
        raise Unreachable(f"{command[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def try_out(*command: str) -> Answer:
    """What comes of a command, also of one that fails.

    Raises:
        Unreachable: it is not here or gave no answer in time.
    """
    done = _run(command)
    return Answer(done.returncode, f"{done.stdout.strip()}\n{done.stderr.strip()}".strip())


def _run(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        raise Unreachable(f"{command[0]} is not here: run this on a login node of the cluster")
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{command[0]}: no answer within {COMMAND_S} s") from None
    except OSError as error:
        raise Unreachable(f"{command[0]}: {error}") from None
