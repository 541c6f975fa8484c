"""What kind of machine this is, and what a process has used of it: what a job writes into its log.

Rates that were measured on one kind say nothing of another.
"""

import os
import platform
import re
import resource
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# How the lines begin that every job writes at the top and at the end of its log.
LINE, USED = "machine: ", "used: "
_USED = re.compile(USED + r"([\d.]+) CPU s, waited ([\d.]+) of ([\d.]+) s for a core, at most ([\d.]+) MiB")
_CPUS = Path("/proc/cpuinfo")
# Of the main thread, ns: on a core, and ready to run while others had the cores (the kernel's sched-stats.rst).
_SCHEDULED = Path("/proc/self/schedstat")
_STATUS, _STAT = Path("/proc/self/status"), Path("/proc/self/stat")
_GPUS = Path("/proc/driver/nvidia/gpus")


def machine_kind(cpus: Path = _CPUS, gpus: Path = _GPUS) -> str:
    """Its processors and GPUs, e.g. `2 x Intel(R) Xeon(R) Processor, 1 x NVIDIA H200`, and nothing else.

    Asks no library, as every job tells it.
    """
    model = _value(cpus, "model name") or platform.machine() or "unknown processor"
    names = Counter(_value(path, "Model") or "unknown GPU" for path in sorted(gpus.glob("*/information")))
    return ", ".join(
        [f"{os.cpu_count() or 1} x {model}", *(f"{number} x {name}" for name, number in names.items())]
    )


class Used(NamedTuple):
    """What a job used.

    Attributes:
        cpu_s: of its process and of those that this has waited for.
        waited_s: its main thread was ready to run, and others had the cores; 0 where the system does not tell.
        ran_s: from its start to when it said so; 0 where the system does not tell.
        memory_mib: of the process at its peak; 0 where the system does not tell.
    """

    cpu_s: float
    waited_s: float
    ran_s: float
    memory_mib: float

    @property
    def waiting(self) -> float:
        """The share of its time that it waited for a core."""
        return min(self.waited_s / self.ran_s, 1.0) if self.ran_s else 0.0


def used_line() -> str:
    """What this process has used."""
    of = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(usage.ru_utime + usage.ru_stime for usage in of)
    waited = f"waited {_waited_s():.2f} of {_ran_s():.2f} s for a core"
    return f"{USED}{cpu_s:.2f} CPU s, {waited}, at most {_peak_mib():.1f} MiB"


def read_used(line: str) -> Used | None:
    """What such a line says; None of another."""
    found = _USED.fullmatch(line)
    return Used(*map(float, found.groups())) if found else None


def last_used(log: Iterable[str]) -> Used | None:
    """What the lines of a log end with; of a job that was started more than once, the last time."""
    found = [used for line in log if (used := read_used(line))]
    return found[-1] if found else None


def _peak_mib() -> float:
    """Not that of getrusage, which begins with what the process that started this one had."""
    try:
        return int(_value(_STATUS, "VmHWM").split()[0]) / 1024
    except (IndexError, ValueError):
        return 0.0


def _ran_s() -> float:
    try:
        # Behind the program's name, which may hold anything, the 20th is the start in ticks since the boot.
        ticks = int(_STAT.read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, IndexError, ValueError):
        return 0.0


def _waited_s() -> float:
    try:
        return int(_SCHEDULED.read_text(encoding="utf-8").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def num_gpus(kind: str) -> int:
    """The GPUs of a kind of machine, as `machine_kind` tells it."""
    return sum(int(part.split(" x ")[0]) for part in kind.split(", ")[1:])


def _value(path: Path, key: str) -> str:
    """What the first line `KEY : VALUE` of a file of the kernel says; "" where there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    told = (line.partition(":") for line in lines)
    # A comma parts what is told of the machine.
    return next(
        (" ".join(value.replace(",", " ").split()) for name, _, value in told if name.strip() == key), ""
    )
