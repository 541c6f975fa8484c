"""What a captioner is: one spec with its section of the configuration and how it is loaded.

It is asked twice about every picture, for a long and for a short caption, and never sees the alt-text. Its file is
read with the configuration, by jobs that need no torch as well: import what is heavy inside functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
    strip_prefixes: tuple[str, ...] = Field(
        (), description="openings removed from the start of a caption, e.g. 'The image shows '"
    )


class BatchedSection(CaptionerSection):
    """Of a captioner that gets its pictures in batches, see `captioners.batches`."""

    batch_size: int = Field(64, ge=1, description="pictures a forward pass")


SectionT = TypeVar("SectionT", bound=CaptionerSection)


@dataclass(frozen=True)
class Generated:
    """One generated text.

    Args:
        text: empty where there is none.
        num_tokens: of the text; None where they are not known.
        finish_reason: "stop" when the model ended it, "length" when max_new_tokens did; any other word says why
            there is none.
    """

    text: str
    num_tokens: int | None
    finish_reason: str


class Pictures(Protocol):
    """The pictures of a part that are to be captioned, in the order of their uids.

    Attributes:
        where: the file that holds them, for messages.
        uids: one a picture; its place here is what the methods take.
        scratch: a folder that a captioner may make and keep things in until the part is finished; it is there
            again, as it was left, where a job goes on after another that was killed.
    """

    where: str
    uids: Sequence[str]
    scratch: Path

    def jpeg(self, place: int) -> bytes:
        """A picture as it is stored, a JPEG; its sides are those that its table says. On any thread.

        Raises:
            ValueError: it is damaged, or not that of the table; names its uid.
        """

    def image(self, place: int) -> "Image":
        """The same picture, RGB."""

    def tell(self, num_captions: int) -> None:
        """Say that so many more captions are there, for the log."""


class Loaded(Protocol):
    """A captioner that is ready. All but `captions` may be asked after it alone.

    Attributes:
        provenance: what wrote the captions: model, model_path, model_sha256, model_revision and library.
        decoding: how, beside the options that every captioner has.
        counts: what it has to add to the counts of the part's manifest.
    """

    @property
    def provenance(self) -> Mapping[str, str | None]: ...

    @property
    def decoding(self) -> Mapping[str, Any]: ...

    @property
    def counts(self) -> Mapping[str, Any]: ...

    def captions(self, pictures: Pictures) -> Sequence[Sequence[Generated]]:
        """For each picture, in their order, a text for each of KINDS.

        Raises:
            ValueError: the part cannot be captioned; says why.
        """


@dataclass(frozen=True)
class Captioner(Generic[SectionT]):
    """A kind of captioner.

    Args:
        name: what `recaption.kind` says.
        section: its section of the configuration, whose `kind` is the literal `name`.
        load: (options, name -> pretrained component, of those that the options name) -> the captioner. Raises
            ValueError where a component is none for it. `captioners.batches.in_batches` makes it of one that
            captions batches.
        missing: options -> what jobs need that is not on this machine, as a variable of the environment; "" for
            nothing. `snakemake -n` warns of it, as jobs may run elsewhere.
    """

    name: str
    section: type[SectionT]
    load: Callable[[SectionT, Mapping[str, Component]], Loaded]
    missing: Callable[[SectionT], str] = lambda _: ""

    def __post_init__(self) -> None:
        if get_args(self.section.model_fields["kind"].annotation) != (self.name,):
            raise ValueError(
                f"{self.section.__name__}.kind should be Literal[{self.name!r}], as its spec is named"
            )
