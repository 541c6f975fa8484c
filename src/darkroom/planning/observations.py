"""What jobs took, as it was measured, in one file that outlives their logs."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darkroom.settings.json_texts import read_json
from darkroom.store import write_json

RATES = Path("rates.json")
# Of each kind of work, the newest so many: enough for a line and its spread.
_NUM_KEPT = 64
# Written by this version alone.
_VERSION = 1
_NUMBERS = ("units", "seconds", "memory_mib", "cpu_s", "count", "network_bytes", "time")


@dataclass(frozen=True)
class Observation:
    """One job, or one folder that a stage made.

    Attributes:
        stage, work: which work of which stage.
        key: digest of the settings that its rate depends on, see `work.key_of`.
        machine: see `machine.machine_kind`.
        units: how much was done: rows, pictures, samples.
        time: when, seconds since 1970: with `path`, what tells that it is known already.
        path: the file that it was read from.
        seconds, memory_mib, cpu_s: wall time without waiting for cores that others had, peak memory and CPU
            time, where they were measured.
        count: what came out: bytes on disk, or pictures that were kept.
        network_bytes: fetched from the web.
    """

    stage: str
    work: str
    key: str
    machine: str
    units: float
    time: float
    path: str
    seconds: float | None = None
    memory_mib: float | None = None
    cpu_s: float | None = None
    count: float | None = None
    network_bytes: float | None = None

    @property
    def identity(self) -> tuple[str, float, str, str]:
        """What tells it from others."""
        return self.path, self.time, self.stage, self.work


def read_observations(path: Path = RATES) -> list[Observation]:
    """Those that a file keeps; none, where there is no file.

    Raises:
        ValueError: it is no such file.
    """
    if not path.exists():
        return []
    try:
        body: Any = read_json(path.read_bytes())
        if body["version"] != _VERSION:
            raise ValueError(f"is of version {body['version']}")
        found = [Observation(**values) for values in body["observations"]]
        for row in found:
            values = asdict(row)
            if any(not isinstance(values[n], int | float | None) or (values[n] or 0) < 0 for n in _NUMBERS):
                raise ValueError("holds something else than numbers of 0 and more")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: no rates of this version ({error}); remove it, and measure again"
        ) from None
    return found


def keep(observations: Iterable[Observation], path: Path = RATES) -> list[Observation]:
    """Add to those that a file keeps, each once; returns what it keeps now."""
    known = {row.identity: row for row in read_observations(path)}
    before = set(known)
    known |= {row.identity: row for row in observations}
    groups: dict[tuple[str, ...], list[Observation]] = {}
    for row in sorted(known.values(), key=lambda row: (row.time, row.path, row.work)):
        groups.setdefault((row.stage, row.work, row.key, row.machine), []).append(row)
    kept = [row for rows in groups.values() for row in rows[-_NUM_KEPT:]]
    if {row.identity for row in kept} != before:
        body = [{name: value for name, value in asdict(row).items() if value is not None} for row in kept]
        write_json(path, {"version": _VERSION, "observations": body})
    return kept
