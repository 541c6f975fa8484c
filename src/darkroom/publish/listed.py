"""The list of published runs, and what belongs to one: a run of several phases includes the earlier ones."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from darkroom.config import Project, load_project
from darkroom.config.load import layers_of, read_section
from darkroom.settings.base import ADDED, Section
from darkroom.stages import STAGES, members

# In config/: the run to make, and those that are published.
CHOICE = "config.yaml"
# An earlier phase is made as far as the next one needs it.
_OF_A_PHASE = STAGES[: STAGES.index("train") + 1]


class Choice(Section):
    """`config/config.yaml`: the run to make, and the runs that are published."""

    run: str | list[str] = Field(
        description="the run, or runs, that `snakemake` makes when it is not told others"
    )
    published: list[str] = Field([], description="runs whose stages dvc.yaml lists")
    first_parts: Annotated[int | None, ADDED] = Field(
        None,
        ge=1,
        description="make so many parts of each dataset and no more, as `darkroom plan --calibrate` does; only"
        " where nothing is published",
    )

    @model_validator(mode="after")
    def _publishes_whole_datasets(self) -> "Choice":
        if self.first_parts is not None and self.published:
            raise ValueError("first_parts: a part of a dataset is not published; leave it out")
        return self

    @field_validator("published")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"lists {twice[0]!r} twice")
        return names


def published_runs(root: str | Path = ".") -> list[str]:
    """The names that `published` in config/config.yaml lists.

    Raises:
        ConfigError: the file or the list is wrong.
    """
    path = Path(root) / "config" / CHOICE
    names = read_section(Choice, path).published
    for name in names:
        layers_of("run", name, root, named_by=f"{path}: published")
    return names


def first_parts(root: str | Path = ".") -> int | None:
    """How many parts of each dataset are made, by config/config.yaml; None: all."""
    return read_section(Choice, Path(root) / "config" / CHOICE).first_parts


def phases(project: Project, root: str | Path = ".") -> list[Project]:
    """The phases that the run's training goes on from, the first one first, and the run itself last."""
    chain = [project]
    while (earlier := chain[0].run.train.initial_run) is not None:
        chain.insert(0, load_project(earlier, root))
    return chain


def chain_of(project: Project, root: str | Path = ".") -> list[tuple[Project, str]]:
    """Every (phase, stage) that a run is made from, in the order in which they are made.

    A stage of each dataset comes with the phase as each of its datasets knows it.
    """
    *earlier, last = phases(project, root)
    made = [(phase, stage) for phase in earlier for stage in _OF_A_PHASE] + [(last, s) for s in STAGES]
    return [(of, stage) for phase, stage in made for of in members(phase, stage)]
