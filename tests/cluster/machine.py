"""What the cluster needs of the machine: programs, ports, host names of its own, and its processes found."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
DATABASE = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb")
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr")
# Daemons lie where a user's PATH often does not look.
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/sbin"])


def program(name: str) -> str:
    """The path of a program of SLURM's.

    Raises:
        FileNotFoundError: it is not installed; says which packages have it.
    """
    found = shutil.which(name, path=SEARCHED)
    if found is None:
        packages = "slurmdbd mariadb-server" if name in DATABASE else "slurm-wlm munge"
        raise FileNotFoundError(f"{name} is not installed; apt-get install {packages}")
    return found


def missing_programs(has_database: bool = False) -> list[str]:
    """The programs of a cluster, or of one with a job database, that this machine lacks."""
    needed = (*DAEMONS, *COMMANDS[:6], *(DATABASE if has_database else ()))
    return [name for name in needed if shutil.which(name, path=SEARCHED) is None]


def free_ports(number: int) -> list[int]:
    """Different ports that nothing listens on.

    They are taken from below the range that outgoing connections use: a port from within it may be
    gone again before a daemon binds it.
    """
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = random.SystemRandom().sample(
        range(max(1024, first_ephemeral - 12_000), first_ephemeral), 500
    )
    found: list[int] = []
    for port in candidates:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            found.append(port)
        if len(found) == number:
            return found
    raise OSError(f"no {number} free ports below {first_ephemeral}")


def isolation() -> list[str]:
    """The command that gives a node its own host name and processes, or nothing where it is not allowed."""
    command = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--user", "--map-current-user", "--keep-caps"]
    trial = [*command, "sh", "-c", "hostname n0 && mount --bind /etc/hosts /etc/hosts"]
    try:
        done = subprocess.run(trial, capture_output=True)
    except OSError:
        return []
    return command if done.returncode == 0 else []


def _variables(process: Path) -> dict[str, str]:
    """The environment that a process was started with; empty when it is gone or another's."""
    with contextlib.suppress(OSError):
        text = (process / "environ").read_bytes().decode(errors="replace")
        return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
    return {}


def processes_with(variables: dict[str, str]) -> Iterator[int]:
    """The processes, this one left out, that were started with all of `variables`."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            present = _variables(process)
            if all(present.get(name) == value for name, value in variables.items()):
                yield int(process.name)


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal; a process that is gone already is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
