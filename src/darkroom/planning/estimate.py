"""What works take by the lines through what was measured, with intervals."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from darkroom.planning import fit
from darkroom.planning.fit import Line, Sum
from darkroom.planning.observations import Observation
from darkroom.planning.place import Place
from darkroom.planning.work import BESIDE, CHECKPOINTS, FILES, PROPORTIONAL, SHARES, START, Work

_HOUR = 3600.0
_NO_JOBS = (FILES, CHECKPOINTS)


class Lacking(NamedTuple):
    """A work whose rate is not known, and why."""

    stage: str
    work: str
    why: str


@dataclass(frozen=True)
class Estimate:
    """What a stage, or a run, takes; each with half the width of its interval where it has one.

    Attributes:
        jobs: their number.
        job_s: seconds of all jobs added up.
        wall_s: from the first to the last, with the cores or the queue of the place.
        core_s, gpu_s: seconds of cores and of GPUs that the jobs hold. cpu_s: of cores that compute.
        memory_mib: of the largest job. disk_bytes, network_bytes: all together.
    """

    jobs: int
    job_s: float
    job_s_half: float
    wall_s: float
    wall_s_half: float
    core_s: float
    gpu_s: float
    cpu_s: float
    memory_mib: float
    memory_mib_half: float
    disk_bytes: float
    disk_bytes_half: float
    network_bytes: float

    def money(self, cpu_hour: float, gpu_hour: float) -> float:
        """What it costs at the prices of an hour of a core and of a GPU."""
        return self.core_s / _HOUR * cpu_hour + self.gpu_s / _HOUR * gpu_hour


class _Lines:
    """The lines through the observations that count at a place."""

    def __init__(self, observations: Iterable[Observation], place: Place) -> None:
        self._groups: dict[tuple[str, str, str], list[Observation]] = {}
        for row in observations:
            if row.machine in ("", place.machine) or place.machine is None:
                self._groups.setdefault((row.stage, row.work, row.key), []).append(row)
        self.spread: dict[str, tuple[float, int]] = {}
        for of in ("seconds", "memory_mib", "count"):
            self.spread[of] = fit.pooled_spread(
                line for group in self._groups if group[1] not in SHARES and (line := self._of(group, of))
            )

    def of(self, work: Work, what: str) -> Line | None:
        return self._of((work.stage, work.name, work.key), what)

    def is_known(self, work: Work) -> bool:
        return (work.stage, work.name, work.key) in self._groups

    def _of(self, group: tuple[str, str, str], what: str) -> Line | None:
        rows = [(row.units, value) for row in self._groups.get(group, ()) if (value := getattr(row, what))]
        if not rows:
            return None
        return (fit.proportional if group[1] in PROPORTIONAL else fit.fit)(*zip(*rows, strict=True))


def estimate(
    works: Sequence[Work], observations: Iterable[Observation], place: Place
) -> tuple[dict[str, Estimate], list[Lacking]]:
    """What each stage takes, and the works whose rates are not known.

    Returns:
        stage -> what it takes, in the order of the works; only of stages whose rates are all known.
    """
    lines = _Lines(observations, place)
    lacking = [reason for work in works if (reason := _lacks(work, lines))]
    unknown = {reason.stage for reason in lacking}
    by_stage: dict[str, list[Work]] = {}
    for work in works:
        if work.stage not in unknown:
            by_stage.setdefault(work.stage, []).append(work)
    return {stage: _of_stage(of, lines, place) for stage, of in by_stage.items()}, lacking


def _lacks(work: Work, lines: _Lines) -> Lacking | None:
    what = "count" if work.rule in _NO_JOBS else "seconds"
    line = lines.of(work, what)
    if line is None:
        # What is measured as nothing is nothing: checkpoints that were removed, and no pauses.
        known = lines.is_known(work) if what == "count" else work.name == BESIDE
        return None if known else Lacking(work.stage, work.name, "never measured")
    far = [units for units, _ in work.sizes if not line.reaches(units)]
    if far and line.size is not None:
        return Lacking(
            work.stage, work.name, f"measured for {line.size:,.0f} units alone, not for {far[0]:,.0f}"
        )
    return None


def _of_stage(works: Sequence[Work], lines: _Lines, place: Place) -> Estimate:
    jobs = [work for work in works if work.rule not in _NO_JOBS]
    took = [(work, _sum(lines, work, "seconds")) for work in jobs]
    seconds = Sum(sum(of.mean for _, of in took), sum(of.variance for _, of in took))
    memory, memory_half = max((_memory(lines, work) for work in jobs), default=(0.0, 0.0))
    disk = [_sum(lines, work, "count") for work in works if work.rule in _NO_JOBS]
    wall = _wall(took, lines, place)
    t = fit.quantile(lines.spread["seconds"][1])
    half = t * seconds.half
    return Estimate(
        jobs=sum(n for work in jobs if work.name not in (START, BESIDE) for _, n in work.sizes),
        job_s=seconds.mean,
        job_s_half=half,
        wall_s=wall,
        wall_s_half=half * wall / seconds.mean if seconds.mean else 0.0,
        core_s=sum(of.mean * place.cores_of(work.rule, work.threads) for work, of in took),
        gpu_s=sum(of.mean * place.gpus_of(work.rule) for work, of in took),
        cpu_s=sum(_sum(lines, work, "cpu_s").mean for work in jobs),
        memory_mib=memory,
        memory_mib_half=memory_half,
        disk_bytes=sum(of.mean for of in disk),
        disk_bytes_half=fit.quantile(lines.spread["count"][1]) * math.sqrt(sum(of.variance for of in disk)),
        network_bytes=sum(_sum(lines, work, "network_bytes").mean for work in jobs),
    )


def _sum(lines: _Lines, work: Work, what: str) -> Sum:
    line = lines.of(work, what)
    if line is None:
        return Sum(0.0, 0.0)
    return fit.add_up(line, work.sizes, lines.spread.get(what, (0.0, 0))[0])


def _memory(lines: _Lines, work: Work) -> tuple[float, float]:
    """MiB of the largest job, and half the interval."""
    line = lines.of(work, "memory_mib")
    if line is None or not work.sizes:
        return 0.0, 0.0
    spread, freedom = lines.spread["memory_mib"]
    one = fit.add_up(line, [(max(units for units, _ in work.sizes), 1)], spread)
    return one.mean, fit.quantile(freedom) * one.half


def _wall(took: Iterable[tuple[Work, Sum]], lines: _Lines, place: Place) -> float:
    """Seconds from the first job to the last: no less than the longest, and than all share the place's slots."""
    shared = chain = longest = 0.0
    for work, of in took:
        shared += of.mean * place.slots_of(work.rule, work.threads) / place.slots
        line = lines.of(work, "seconds")
        if work.rule in ("train_run", "train_leg"):
            # A training's parts and legs follow each other.
            chain += of.mean
        elif line is not None:
            longest = max([longest, *(line.of_job(units) for units, _ in work.sizes)])
    return max(shared, chain, longest)


def total(stages: Mapping[str, Estimate]) -> Estimate:
    """All stages together, which follow each other; their noise is independent."""
    rows = list(stages.values())

    def added(name: str) -> float:
        return sum(getattr(row, name) for row in rows)

    def halves(name: str) -> float:
        return math.sqrt(sum(getattr(row, f"{name}_half") ** 2 for row in rows))

    largest = max(rows, key=lambda row: row.memory_mib)
    return Estimate(
        jobs=sum(row.jobs for row in rows),
        job_s=added("job_s"),
        job_s_half=halves("job_s"),
        wall_s=added("wall_s"),
        wall_s_half=halves("wall_s"),
        core_s=added("core_s"),
        gpu_s=added("gpu_s"),
        cpu_s=added("cpu_s"),
        memory_mib=largest.memory_mib,
        memory_mib_half=largest.memory_mib_half,
        disk_bytes=added("disk_bytes"),
        disk_bytes_half=halves("disk_bytes"),
        network_bytes=added("network_bytes"),
    )
