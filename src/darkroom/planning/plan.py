"""The plan of a run: what each stage takes, from which measurements, and what is assumed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scipy.stats import beta

from darkroom.config import Project
from darkroom.planning import fit
from darkroom.planning.estimate import Estimate, Lacking, estimate, total
from darkroom.planning.observations import Observation
from darkroom.planning.place import Place
from darkroom.planning.work import CACHED, KEPT, Amounts, Work, key_of, works
from darkroom.publish.listed import chain_of
from darkroom.report.planned import PLAN
from darkroom.sources.table import look_at
from darkroom.sources.withdrawn import read_withdrawn
from darkroom.stages import STAGES, folder, members
from darkroom.store import write_json

# What a share is of, and which stage tells it.
_SHARES = {KEPT: ("filter", "of the rows pass the filter"), CACHED: ("cache", "of those reach the cache")}


@dataclass(frozen=True)
class Share:
    """A share that the amounts depend on: its value, its interval, and how it is known."""

    dataset: str
    name: str
    value: float
    low: float
    high: float
    why: str

    @property
    def line(self) -> str:
        """It in words."""
        interval = "" if self.low == self.high else f" ({self.low:.1%} to {self.high:.1%})"
        return f"{self.dataset}: {self.value:.1%}{interval} {_SHARES[self.name][1]}: {self.why}"


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        stages: stage -> what it takes. own: the same without the phases before the run, for its report.
        lacking: what is not known; then there is no total.
        rows: dataset -> its rows. shares: what the amounts depend on.
        machines, num_measured: where the rates come from: kinds of machines, and how many jobs.
    """

    run: str
    stages: dict[str, Estimate]
    own: dict[str, Estimate]
    lacking: list[Lacking]
    rows: dict[str, int]
    shares: list[Share]
    machines: list[str]
    num_measured: int

    @property
    def total(self) -> Estimate:
        """All stages together."""
        return total(self.stages)

    def write(self, logs: Path = Path("logs/runs")) -> Path:
        """Keep it for the run's report; returns where."""
        path = logs / self.run / PLAN
        path.parent.mkdir(parents=True, exist_ok=True)
        body: dict[str, Any] = {"run": self.run, "machines": self.machines, "rows": self.rows}
        body["shares"] = [asdict(share) for share in self.shares]
        body["stages"] = {stage: asdict(row) for stage, row in self.own.items()}
        write_json(path, body)
        return path


def list_datasets(project: Project) -> dict[str, int]:
    """The rows of each dataset that the run and the phases before it have.

    Raises:
        ValueError: a list cannot be read.
        OSError: what is listed cannot be written.
    """
    found: dict[str, Project] = {}
    for of, stage in chain_of(project):
        if stage == "download":
            found.setdefault(of.dataset_name, of)
    return {
        name: look_at(
            of.dataset.source, of.dataset.rows_per_part, name, withdrawn=read_withdrawn(name)
        ).num_rows
        for name, of in found.items()
    }


def make_plan(
    project: Project,
    rows: Mapping[str, int],
    observations: Sequence[Observation],
    place: Place,
    given: Mapping[str, float],
) -> Plan:
    """What `snakemake --config run=NAME` takes where nothing is made.

    Args:
        rows: of each dataset, see `list_datasets`.
        given: KEPT or CACHED -> the share to assume, of every dataset.

    Raises:
        ValueError: the prompts cannot be read.
    """
    # Runs of several phases on one dataset make its stages once.
    chain = list({folder(of, stage): (of, stage) for of, stage in chain_of(project)}.values())
    shares, unknown = _shares(chain, rows, observations, given)

    def works_of(made: Iterable[tuple[Project, str]], bound: str = "value") -> list[Work]:
        amounts = _amounts(rows, shares, bound)
        return [work for of, stage in made for work in works(of, stage, amounts)]

    def stages_of(made: Sequence[tuple[Project, str]]) -> dict[str, Estimate]:
        here, low, high = (
            estimate(works_of(made, bound), observations, place)[0] for bound in ("value", "low", "high")
        )
        return {
            stage: _widened(row, low[stage], high[stage]) if stage in low and stage in high else row
            for stage, row in here.items()
        }

    asked = works_of(chain)
    keys = {(work.stage, work.name, work.key) for work in asked}
    used = [row for row in observations if (row.stage, row.work, row.key) in keys and row.seconds]
    used = [row for row in used if place.machine in (None, row.machine)]
    return Plan(
        run=project.name,
        stages=stages_of(chain),
        own=stages_of([(of, stage) for stage in STAGES for of in members(project, stage)]),
        lacking=[*unknown, *estimate(asked, observations, place)[1]],
        rows=dict(rows),
        shares=shares,
        machines=sorted({row.machine for row in used}),
        num_measured=len({(row.path, row.time) for row in used}),
    )


def _shares(
    chain: Iterable[tuple[Project, str]],
    rows: Mapping[str, int],
    observations: Sequence[Observation],
    given: Mapping[str, float],
) -> tuple[list[Share], list[Lacking]]:
    """What is known of how many pictures there are after the filter, and what is not."""
    shares: dict[tuple[str, str], Share] = {}
    lacking = []
    for of, stage in chain:
        for name in (name for name, (told, _) in _SHARES.items() if told == stage):
            share = _share(of, name, rows[of.dataset_name], observations, given)
            if share is None:
                why = "never measured; or give --kept" if name == KEPT else "never measured"
                lacking.append(Lacking(stage, f"what is kept of {of.dataset_name}", why))
            else:
                shares.setdefault((of.dataset_name, name), share)
    return list(shares.values()), lacking


def _amounts(rows: Mapping[str, int], shares: Sequence[Share], bound: str) -> dict[str, Amounts]:
    known = {(share.dataset, share.name): getattr(share, bound) for share in shares}
    return {
        name: Amounts(number, known.get((name, KEPT), 1.0), known.get((name, CACHED), 1.0))
        for name, number in rows.items()
    }


def _share(
    of: Project, name: str, rows: int, observations: Sequence[Observation], given: Mapping[str, float]
) -> Share | None:
    stage, dataset = _SHARES[name][0], of.dataset_name
    if name in given:
        return Share(dataset, name, given[name], given[name], given[name], f"as --{name} says")
    key = key_of(of, stage)
    found = [row for row in observations if (row.stage, row.work, row.key) == (stage, name, key)]
    if not found:
        return None
    # The largest look says most; looks at the same rows say nothing more.
    row = max(found, key=lambda row: (row.units, row.time))
    number, count = row.units, row.count or 0.0
    value = count / number
    if name == CACHED or number == rows:
        return Share(dataset, name, value, value, value, f"{count:,.0f} of {number:,.0f} were")
    low, high = beta.ppf(
        [(1 - fit.CONFIDENCE) / 2, (1 + fit.CONFIDENCE) / 2], count + 0.5, number - count + 0.5
    )
    return Share(
        dataset, name, value, float(low), float(high), f"{count:,.0f} of the first {number:,.0f} were"
    )


def _widened(row: Estimate, low: Estimate, high: Estimate) -> Estimate:
    """With what the shares leave open, which has nothing to do with the noise of jobs."""
    wider: dict[str, Any] = {
        f"{name}_half": math.hypot(
            getattr(row, f"{name}_half"), (getattr(high, name) - getattr(low, name)) / 2
        )
        for name in ("job_s", "wall_s", "memory_mib", "disk_bytes")
    }
    return replace(row, **wider)
