"""Where a run will be made: on this machine, or by the jobs of a profile on a cluster."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from darkroom.config.yaml_files import UniqueKeyLoader
from darkroom.machine import machine_kind, num_gpus
from darkroom.slurm import read_profile

# The rules whose jobs compute on a GPU where there is one.
_ON_GPU = {
    "recaption_part", "rewrite_part", "cache_part", "cache_null", "train_run", "train_leg", "watch_step",
    "draw_chunk", "measure_features", "measure_references", "measure_metric",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """What jobs get.

    Attributes:
        machine: the kind of this machine, whose rates count; None on a cluster, where those of any node do.
        slots: cores that jobs share here; on a cluster, jobs in the queue at a time.
        gpus: rule -> the GPUs of a job; those of "" have all that are not named.
        cores: the same of a job's cores, on a cluster.
    """

    machine: str | None
    slots: int
    gpus: Mapping[str, int] = field(default_factory=dict)
    cores: Mapping[str, int] = field(default_factory=dict)

    def gpus_of(self, rule: str) -> int:
        """GPUs that a job of the rule holds."""
        return self.gpus.get(rule, self.gpus.get("", 0))

    def cores_of(self, rule: str, threads: int) -> int:
        """Cores that a job of the rule holds, which is computed on `threads`."""
        if self.machine is not None:
            return min(threads, self.slots)
        return self.cores.get(rule, self.cores.get("", threads))

    def slots_of(self, rule: str, threads: int) -> int:
        """What a job takes of `slots`."""
        return self.cores_of(rule, threads) if self.machine is not None else 1


def read_place(profile: Path) -> Place:
    """The place that a profile of Snakemake means.

    Raises:
        ValueError: it is missing, is not built as a profile is, or has an executor that is not
            SLURM's; names the key.
    """
    requests = read_profile(profile)
    file = profile if profile.is_file() else next(iter(sorted(profile.glob("*.yaml"))))
    values = yaml.load(file.read_text(encoding="utf-8"), Loader=UniqueKeyLoader) or {}
    if "executor" not in values:
        kind, cores = machine_kind(), values.get("cores", "all")
        number = os.cpu_count() or 1 if cores == "all" else int(cores)
        return Place(kind, number, dict.fromkeys(_ON_GPU, min(num_gpus(kind), 1)))
    wrong = [f"{request.rule}: {line}" for request in requests for line in request.problems]
    if wrong:
        raise ValueError(f"{file}: {wrong[0]}")
    asked = {
        "" if request.rule == "other rules" else request.rule: request.asked
        for request in requests
        if request.asked is not None
    }
    return Place(
        None,
        int(values.get("jobs", 1)),
        {rule: of.num_nodes * sum(of.gpus.values()) for rule, of in asked.items()},
        {rule: of.num_nodes * of.cpus for rule, of in asked.items()},
    )
