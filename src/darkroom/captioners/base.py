"""What a captioner is: one spec with its section of the configuration and how it is loaded.

It is asked for captions by name, each with a prompt of its own, and never sees the alt-text. Its file is read with
the configuration, by jobs that need no torch as well: import what is heavy inside functions.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Protocol, Self, TypeVar, get_args

from pydantic import Field, field_validator, model_validator

from darkroom.components.base import Component
from darkroom.settings.base import ADDED, Section

if TYPE_CHECKING:
    from PIL.Image import Image

# Of new tries of a caption whose first is greedy.
RETRY_TEMPERATURE = 0.7
# Columns begin with a name, and are told apart by what follows it.
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = {"original": "the alt-text's", "null": "the empty caption's"}
_TAKEN_PREFIX = "caption_"


class Caption(Section):
    """A caption that every picture gets; what is left out is as the section of the captioner says."""

    prompt: str = Field(
        min_length=1, description="the request; of `rewrite` with other captions in it, as {long}"
    )
    max_new_tokens: Annotated[int | None, ADDED] = Field(None, ge=1, description="of this caption alone")
    strip_prefixes: Annotated[tuple[str, ...] | None, ADDED] = Field(
        None, description="of this caption alone"
    )
    temperature: Annotated[float | None, ADDED] = Field(None, ge=0, le=2, description="of this caption alone")
    top_p: Annotated[float | None, ADDED] = Field(None, gt=0, le=1, description="of this caption alone")


@dataclass(frozen=True)
class Request:
    """A caption with all that is asked for it, see `Caption`. temperature: None where a server's own counts."""

    name: str
    prompt: str
    max_new_tokens: int
    strip_prefixes: tuple[str, ...]
    temperature: float | None
    top_p: float

    def temperature_at(self, attempt: int) -> float | None:
        """Of a try: the first is as configured, and new ones of it must differ."""
        return RETRY_TEMPERATURE if attempt and self.temperature == 0 else self.temperature

    def seed(self, uid: str, attempt: int) -> int:
        """Of sampling this caption of a picture, the same wherever it is; below 2**31, as servers take it."""
        digest = hashlib.sha256(f"{uid} {self.name} {attempt}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1


class CaptionerSection(Section):
    """The `recaption` section of a dataset: what every captioner has. Each kind's own adds `kind` and more."""

    # What a dataset calls it, for messages.
    key: ClassVar[str] = "recaption"
    # Whether `temperature` and `top_p` mean anything to it.
    can_sample: ClassVar[bool] = False

    if TYPE_CHECKING:
        kind: str

    captions: dict[str, Caption] = Field(
        {}, description="what every picture gets: name of a caption -> how it is asked for; one at least"
    )
    max_new_tokens: int = Field(96, ge=1, description="longest caption, tokens; longer is truncated")
    strip_prefixes: tuple[str, ...] = Field(
        (), description="openings removed from the start of a caption, e.g. 'The image shows '"
    )
    temperature: Annotated[float, ADDED] = Field(
        0.0, ge=0, le=2, description="of sampling; 0: the most probable word each time"
    )
    top_p: Annotated[float, ADDED] = Field(
        1.0,
        gt=0,
        le=1,
        description="of sampling: the most probable words that have this probability together",
    )

    @field_validator("captions", mode="before")
    @classmethod
    def _names(cls, captions: Any) -> Any:
        """Without those that a dataset which extends another leaves out with null."""
        for name in captions if isinstance(captions, dict) else ():
            if not isinstance(name, str) or not _NAME.fullmatch(name) or name.startswith(_TAKEN_PREFIX):
                raise ValueError(
                    f"{name!r} cannot be the name of a caption: lower-case letters, digits and '_' make one, it"
                    f" begins with a letter, and not with '{_TAKEN_PREFIX}'"
                )
            if name in _TAKEN:
                raise ValueError(f"{name!r} is {_TAKEN[name]} name; give this caption another")
        if not isinstance(captions, dict):
            return captions
        return {name: caption for name, caption in captions.items() if caption is not None}

    @model_validator(mode="after")
    def _samples_if_it_can(self) -> Self:
        if self.can_sample:
            return self
        sections: dict[str, Section] = {"": self}
        sections |= {f"captions.{name}.": caption for name, caption in self.captions.items()}
        for where, section in sections.items():
            for option in ("temperature", "top_p"):
                if getattr(section, option) != type(section).model_fields[option].default:
                    raise ValueError(
                        f"{where}{option}: a captioner of the kind {self.kind} cannot sample; leave it out"
                    )
        return self

    def asked(self) -> dict[str, Request]:
        """Name -> what is asked, sorted by name: the order in which the configuration has them changes nothing."""
        return {name: self._request(name, self.captions[name]) for name in sorted(self.captions)}

    def _request(self, name: str, caption: Caption) -> Request:
        options = {
            option: getattr(self if getattr(caption, option) is None else caption, option)
            for option in ("max_new_tokens", "strip_prefixes", "temperature", "top_p")
        }
        return Request(name, caption.prompt, **options)

    def asked_with(self) -> dict[str, Any]:
        """The options that decide what is answered, as plain values; what is done to an answer later is none."""
        later: Any = {"strip_prefixes": True, "captions": {"__all__": {"strip_prefixes"}}}
        return self.model_dump(mode="json", exclude=later)


class BatchedSection(CaptionerSection):
    """Of a captioner that gets its pictures in batches, see `captioners.batches`."""

    batch_size: int = Field(64, ge=1, description="pictures a forward pass")


SectionT = TypeVar("SectionT", bound=CaptionerSection)


def asking_for(section: CaptionerSection, captions: Mapping[str, Caption], key: str = "") -> CaptionerSection:
    """A captioner's section that asks for these.

    Args:
        key: what messages call it; empty: what they call `section`.

    Raises:
        ValueError: it cannot sample, and one of them is to be.
    """
    of = type(section)
    named: type[CaptionerSection] = of
    if key:
        named = type(of.__name__, (of,), {"__module__": of.__module__, "key": key})
    return named.model_validate({**dict(section), "captions": dict(captions)})


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


class Subjects(Protocol):
    """What captions of a part are asked about, in the order of their uids.

    Attributes:
        where: the file that holds them, for messages.
        uids: of their pictures; a place here is what the methods take.
        scratch: a folder that a captioner may make and keep things in until the part is finished; it is there
            again, as it was left, where a job goes on after another that was killed.
    """

    where: str
    uids: Sequence[str]
    scratch: Path

    @property
    def content(self) -> Any:
        """What they are, as plain values: where it is the same, so are the answers."""

    def tell(self, num_captions: int) -> None:
        """Say that so many more captions are there, for the log."""


class Pictures(Subjects, Protocol):
    """The pictures of a part that are to be captioned."""

    def jpeg(self, place: int) -> bytes:
        """A picture as it is stored, a JPEG; its sides are those that its table says. On any thread.

        Raises:
            ValueError: it is damaged, or not that of the table; names its uid.
        """

    def image(self, place: int) -> "Image":
        """The same picture, RGB."""


class Texts(Subjects, Protocol):
    """The captions of a part that a language model writes others of."""

    def prompt(self, place: int, name: str) -> str:
        """The request for the caption `name`, with the texts that it names in it."""


SubjectsT = TypeVar("SubjectsT", bound=Subjects, contravariant=True)


@dataclass(frozen=True)
class Wanted:
    """What is asked at once: place of a picture -> names of captions, and how often these were asked before."""

    names: Mapping[int, Sequence[str]]
    attempt: int = 0

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """(place, name) of every caption."""
        return ((place, name) for place, names in self.names.items() for name in names)


# What is wanted -> (place of the picture, name of the caption) -> its text. Raises ValueError where the part
# cannot be captioned, and says why.
Ask = Callable[[Wanted], Mapping[tuple[int, str], Generated]]


class Loaded(Protocol[SubjectsT]):
    """A captioner that is ready. All but `asking` may be asked after it alone.

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

    def asking(self, subjects: SubjectsT) -> AbstractContextManager[Ask]:
        """For the block, what can be asked about a part's pictures, as often as needed."""


@dataclass(frozen=True)
class Kind(Generic[SectionT, SubjectsT]):
    """A kind of what writes captions.

    Args:
        name: what `kind` says.
        section: its section of the configuration, whose `kind` is the literal `name`.
        load: (options, name -> pretrained component, of those that the options name) -> the captioner. Raises
            ValueError where a component is none for it. `captioners.batches.in_batches` makes it of one that
            captions batches.
        missing: options -> what jobs need that is not on this machine, as a variable of the environment; "" for
            nothing. `snakemake -n` warns of it, as jobs may run elsewhere.
    """

    name: str
    section: type[SectionT]
    load: Callable[[SectionT, Mapping[str, Component]], Loaded[SubjectsT]]
    missing: Callable[[SectionT], str] = lambda _: ""

    def __post_init__(self) -> None:
        if get_args(self.section.model_fields["kind"].annotation) != (self.name,):
            raise ValueError(
                f"{self.section.__name__}.kind should be Literal[{self.name!r}], as its spec is named"
            )


class Captioner(Kind[SectionT, Pictures]):
    """A kind of captioner, as `recaption.kind` says."""
