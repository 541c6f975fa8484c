"""What a gate is: one spec with its options, and how it looks at generated captions.

A gate says of each caption whether it passes. Its file is read with the configuration, by jobs that need no torch
as well: import what is heavy inside functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar, get_args

from pydantic import Field

from darkroom.components.base import Component
from darkroom.settings.base import ADDED, Section
from darkroom.settings.extras import Extra

if TYPE_CHECKING:
    from PIL.Image import Image


class GateSection(Section):
    """What every gate has. Each kind's own adds `kind` and more."""

    if TYPE_CHECKING:
        kind: str

    name: Annotated[str | None, ADDED] = Field(
        None, min_length=1, description="what counts and the report call it; null: its kind"
    )
    captions: Annotated[tuple[str, ...], ADDED] = Field(
        (), description="names of the captions that it looks at; empty: all"
    )

    @property
    def label(self) -> str:
        """What counts and the report call it."""
        return self.name or self.kind


@dataclass(frozen=True)
class Candidate:
    """A caption that a gate looks at.

    Args:
        uid: of its picture.
        text: as it would be stored.
        flags: see `captioners.quality`.
        original: the picture's alt-text, which may be empty.
        image: reads the picture, RGB.
    """

    uid: str
    text: str
    flags: Sequence[str]
    original: str
    image: "Callable[[], Image]"


# Whether each of some captions passes.
Check = Callable[[Sequence[Candidate]], Sequence[bool]]
SectionT = TypeVar("SectionT", bound=GateSection)


@dataclass(frozen=True)
class Gate(Generic[SectionT]):
    """A kind of gate.

    Args:
        name: what `kind` says.
        section: its options, whose `kind` is the literal `name`.
        load: (options, name -> pretrained component, of those that the options name) -> the check. The same
            caption of the same picture always passes or never.
        extra: packages that it needs beyond darkroom's own; where they are missing no job starts.
        looks: whether it looks at pictures, which rewritten captions are judged without.
    """

    name: str
    section: type[SectionT]
    load: Callable[[SectionT, Mapping[str, Component]], Check]
    extra: Extra | None = None
    looks: bool = False

    def __post_init__(self) -> None:
        if get_args(self.section.model_fields["kind"].annotation) != (self.name,):
            raise ValueError(
                f"{self.section.__name__}.kind should be Literal[{self.name!r}], as its spec is named"
            )
