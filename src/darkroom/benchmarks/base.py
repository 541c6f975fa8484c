"""What a benchmark is: prompts with what each asks for, from one section of the configuration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.settings.base import Section
from darkroom.settings.paths import local_path

Record = dict[str, Any]
"""One prompt: `prompt` (its text), `tag` (its task), and what the benchmark says of it besides."""


class PromptSet(Section):
    """Where prompts come from: the base of every benchmark's section, which adds `kind`."""


class PromptFile(PromptSet):
    """Prompts in a file."""

    path: str

    def find(self) -> Path:
        """The file on this machine.

        Raises:
            ValueError: there is none, or its environment variable is not set; names the key.
        """
        try:
            path = local_path(self.path)
        except ValueError as error:
            raise ValueError(f"draw.prompts.path: {error}") from None
        if not path.is_file():
            raise ValueError(f"draw.prompts.path: no file {self.path}; it should hold the prompts")
        return path


@dataclass(frozen=True)
class Benchmark:
    """A kind of prompts.

    Attributes:
        name: its `kind` in the configuration.
        section: its options; `kind` is its name.
        read: the records of a section in their order, each with `prompt` and `tag`. A ValueError names the
            file and the line that is wrong.
        tasks: tag -> what a report calls it, in the order of reports.
    """

    name: str
    section: type[PromptSet]
    read: Callable[[Any], list[Record]]
    tasks: Mapping[str, str] = field(default_factory=dict)
