"""The rounds of retries of a dataset: `config/retries/DATASET.yaml`, which `darkroom retry` writes."""

from pathlib import Path

import yaml
from pydantic import Field, model_validator

from darkroom.download.rounds import parts_of_rounds, refuse_wrong_rounds
from darkroom.settings.base import Section

FOLDER = "retries"
_HEADER = """\
# Written by `darkroom retry {dataset}`; commit it with the rest. For every round its parts, and for each of them
# the parts whose failed rows it fetches again.
"""


class Retries(Section):
    """Which rows of a dataset were fetched again, as far as a configuration tells: by the parts that have them."""

    rounds: tuple[tuple[tuple[str, ...], ...], ...] = Field((), description="rounds of retries, in order")

    @model_validator(mode="after")
    def _rows_end_once(self) -> "Retries":
        refuse_wrong_rounds(self.rounds)
        return self

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Part of a round -> the parts whose rows it fetches again, in order."""
        return {name: tuple(sources) for name, sources in parts_of_rounds(self.rounds).items()}


def retries_path(dataset: str, config: str | Path = "config") -> Path:
    """Where the rounds of a dataset stand."""
    return Path(config) / FOLDER / f"{dataset}.yaml"


def retries_text(dataset: str, retries: Retries) -> str:
    """What stands there."""
    rounds = [[list(sources) for sources in parts] for parts in retries.rounds]
    return _HEADER.format(dataset=dataset) + yaml.safe_dump({"rounds": rounds}, width=100)
