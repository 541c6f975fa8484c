"""What a kind of perceptual distance is: a spec with its section of the configuration, and how it is loaded.

Its file is read with the configuration, by jobs that need no torch as well: import what is heavy inside functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

from pydantic import Field

from darkroom.components.base import Component
from darkroom.settings.base import Section

if TYPE_CHECKING:
    from torch import Tensor

# (reconstructions, pictures), both (B, 3, H, W) in [-1, 1] -> their mean distance, a scalar with a gradient.
Distance = Callable[["Tensor", "Tensor"], "Tensor"]


class PerceptualSection(Section):
    """`loss.perceptual` of an autoencoder. Each kind's own adds `kind` and what it looks at pictures with."""

    if TYPE_CHECKING:
        kind: str
    weight: float = Field(1.0, gt=0, description="of the distance in the loss; the reconstruction's is 1")


SectionT = TypeVar("SectionT", bound=PerceptualSection)


@dataclass(frozen=True)
class Perceptual(Generic[SectionT]):
    """A kind of perceptual distance.

    Args:
        name: what `kind` says.
        section: its section of the configuration, whose `kind` is the literal `name`.
        load: (section, components by name, device) -> the distance, whose network is frozen there.
    """

    name: str
    section: type[SectionT]
    load: Callable[[SectionT, Mapping[str, Component], Any], Distance]

    def __post_init__(self) -> None:
        if get_args(self.section.model_fields["kind"].annotation) != (self.name,):
            raise ValueError(
                f"{self.section.__name__}.kind should be Literal[{self.name!r}], as its spec is named"
            )
