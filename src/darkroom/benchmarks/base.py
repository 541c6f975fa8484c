"""What a benchmark is: prompts with what each asks for, from one section of the configuration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.settings.base import Section
from darkroom.settings.paths import local_path

Record = dict[str, Any]
"""One prompt: `prompt` (its text), `tag` (its task), and what the benchmark says of it besides."""


class PromptSet(Section):
    """Where prompts come from: the base of every benchmark's section, which adds `kind`."""

    if TYPE_CHECKING:
        kind: Any

    def files(self) -> list[Path]:
        """The files on this machine that they are read from.

        Raises:
            ValueError: one is missing; names the key.
        """
        return []

    @property
    def called(self) -> str:
        """What a protocol calls them: the kind, or the file as the configuration names it."""
        return str(self.kind)


class PromptFile(PromptSet):
    """Prompts in a file."""

    path: str

    def files(self) -> list[Path]:
        """See `PromptSet`."""
        return [find_prompts(self.path)]

    @property
    def called(self) -> str:
        """See `PromptSet`."""
        return self.path


def find_prompts(path: str) -> Path:
    """The file of prompts that `draw.prompts.path` names, on this machine.

    Raises:
        ValueError: there is none, or its environment variable is not set; names the key.
    """
    try:
        found = local_path(path)
    except ValueError as error:
        raise ValueError(f"draw.prompts.path: {error}") from None
    if not found.is_file():
        raise ValueError(f"draw.prompts.path: no file {path}; it should hold the prompts")
    return found


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
