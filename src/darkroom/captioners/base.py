"""What a captioner is: one spec with its section of the configuration and how it is loaded.

It is asked twice about every picture, for a long and for a short caption, and never sees the alt-text. Its file is
read with the configuration, by jobs that need no torch as well: import what is heavy inside functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, get_args

from pydantic import Field

from darkroom.components.base import Component
from darkroom.settings.base import Section

if TYPE_CHECKING:
    from PIL.Image import Image

# What is asked of every picture, in this order.
KINDS = ("long", "short")


class CaptionerSection(Section):
    """The `recaption` section of a dataset: what every captioner has. Each kind's own adds `kind` and more."""

    if TYPE_CHECKING:
        kind: str

    long_prompt: str = Field(description="request for the long caption")
    short_prompt: str = Field(description="request for the short caption")
    max_new_tokens: int = Field(96, ge=1, description="longest caption, tokens; longer is truncated")
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")
    strip_prefixes: tuple[str, ...] = Field(
        (), description="openings removed from the start of a caption, e.g. 'The image shows '"
    )


SectionT = TypeVar("SectionT", bound=CaptionerSection)


@dataclass(frozen=True)
class Generated:
    """One generated text: "stop" when the model ended it, "length" when max_new_tokens did."""

    text: str
    num_tokens: int
    finish_reason: str


class PictureError(ValueError):
    """A picture of a batch cannot be captioned; `place` is where in the batch it is."""

    def __init__(self, place: int, message: str) -> None:
        super().__init__(message)
        self.place = place


class Loaded(Protocol):
    """A captioner that is ready: the same batch gives the same texts.

    Attributes:
        provenance: what wrote the captions: model, model_path, model_sha256, model_revision and library.
        decoding: how, beside the options that every captioner has.
        computed_in: the type of its numbers, which all parts of a dataset must share.
    """

    provenance: Mapping[str, str | None]
    decoding: Mapping[str, Any]
    computed_in: str

    def prepare(self, pictures: "Sequence[Image]") -> Any:
        """What `caption` needs of a batch of RGB pictures; called ahead, on another thread."""

    def caption(self, prepared: Any) -> list[list[Generated]]:
        """For each of KINDS the texts, in the order of the pictures.

        Raises:
            PictureError: one picture cannot be captioned.
            RuntimeError: the batch cannot, as where memory is too small.
        """


@dataclass(frozen=True)
class Captioner(Generic[SectionT]):
    """A kind of captioner.

    Args:
        name: what `recaption.kind` says.
        section: its section of the configuration, whose `kind` is the literal `name`.
        load: (options, name -> pretrained component, of those that the options name) -> the captioner. Raises
            ValueError where a component is none for it.
    """

    name: str
    section: type[SectionT]
    load: Callable[[SectionT, Mapping[str, Component]], Loaded]

    def __post_init__(self) -> None:
        if get_args(self.section.model_fields["kind"].annotation) != (self.name,):
            raise ValueError(
                f"{self.section.__name__}.kind should be Literal[{self.name!r}], as its spec is named"
            )
