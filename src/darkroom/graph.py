"""The runs that one command makes, and what they are made from: other runs, caches and datasets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from darkroom.config import ConfigError, Project

# Where a run lies in the graph: by its own name, or by what it shares with others.
KINDS = ("run", "cache", "dataset")


@dataclass(frozen=True)
class Graph:
    """What one command is about.

    Attributes:
        asked: the runs to make, in the order in which they were named.
        runs: name -> run; these and the phases that their trainings go on from.
        caches: name of a folder of results/caches -> the first run that has it, as a member of that dataset.
        datasets: name -> the first run that has it, as a member.
    """

    asked: tuple[Project, ...]
    runs: dict[str, Project]
    caches: dict[str, Project]
    datasets: dict[str, Project]

    def project(self, **names: str) -> Project:
        """The run called `run`, or else a run that has the `cache` or else the `dataset` of that name.

        Raises:
            ConfigError: there is none in this graph.
        """
        kind = next(kind for kind in KINDS if kind in names)
        known = {"run": self.runs, "cache": self.caches, "dataset": self.datasets}[kind]
        if names[kind] not in known:
            raise ConfigError(
                f"{kind} {names[kind]!r} belongs to none of the runs {', '.join(self.runs)}; name a run that it"
                " belongs to: --config run=NAME"
            )
        return known[names[kind]]


def run_names(value: Any) -> list[str]:
    """The runs in `a,b` or `[a, b]`, see `named`."""
    return named("run", value)


def named(key: str, value: Any) -> list[str]:
    """The names in `a,b` or `[a, b]`, each once; `key` is what they are given by.

    Raises:
        ConfigError: there is none, or something else.
    """
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    names = ["" if name is None else str(name).strip() for name in names]
    if not names or not all(names):
        raise ConfigError(
            f"{key}: {value!r} names no {key}; write {key}=NAME, or {key}=NAME,NAME for several"
        )
    return list(dict.fromkeys(names))


def make_graph(names: list[str], load: Callable[[str], Project]) -> Graph:
    """The graph of the runs `names`, which `load` reads.

    Raises:
        ConfigError: a run, or a phase before it, is wrong.
    """
    asked = tuple(load(name) for name in names)
    runs = {project.name: project for project in asked}
    for project in asked:
        while (before := project.run.train.initial_run) is not None:
            project = runs[before] if before in runs else load(before)
            runs[before] = project
    caches: dict[str, Project] = {}
    datasets: dict[str, Project] = {}
    for project in runs.values():
        for member in project.members:
            caches.setdefault(member.cache, member)
            datasets.setdefault(member.dataset_name, member)
    return Graph(asked, runs, caches, datasets)
