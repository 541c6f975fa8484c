"""What a dataset is: its source and how it is downloaded, filtered and recaptioned."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from darkroom.captioners.table import AnyCaptioner
from darkroom.config.gates import CaptionGates, RewriteGates
from darkroom.config.keep import DEFAULT_KEEP, DEFAULT_SCORERS, Criterion, Scorers, check_names
from darkroom.config.rewrites import check_rewrite
from darkroom.rewriters.table import AnyRewriter
from darkroom.settings.base import ADDED, Section
from darkroom.settings.captions import ORIGINAL
from darkroom.settings.download import Download, Manners
from darkroom.settings.unions import one_of
from darkroom.sources.base import SourceSection
from darkroom.sources.table import SOURCES

if TYPE_CHECKING:
    AnySource = SourceSection
else:
    AnySource = one_of({name: spec.section for name, spec in SOURCES.items()})
_SOURCE: TypeAdapter[Any] = TypeAdapter(AnySource)


def parse_source(values: dict[str, Any]) -> SourceSection:
    """A source from its plain values, as its kind's class."""
    source: SourceSection = _SOURCE.validate_python(values)
    return source


class Dataset(Section):
    """A dataset: `config/datasets/NAME.yaml`."""

    description: str = Field(description="one sentence for the report")
    source: AnySource
    rows_per_part: int = Field(10_000, ge=1, description="rows of the list in one part, the unit of work")
    download: Download = Download()
    manners: Manners = Manners()
    max_transport_failures: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share of a part's rows that may end as timeout or connection_error; beyond it the part fails."
        " Nine rows always may. A change makes nothing again",
    )
    scorers: Scorers = DEFAULT_SCORERS  # type: ignore[valid-type]
    keep: tuple[Criterion, ...] = Field(
        DEFAULT_KEEP,
        description="what a picture must be to be kept, in the funnel's order; any column may be named",
    )
    recaption: AnyCaptioner | None = Field(
        description="what writes captions; null: pictures keep those of the list"
    )
    own_captions: Annotated[tuple[Literal["longest", "shortest"], ...], ADDED] = Field(
        (),
        description="of pictures with several captions of their own, which are kept besides the first, under these"
        " names; with recaption: null",
    )
    caption_gates: Annotated[CaptionGates | None, ADDED] = Field(
        None, description="what the captioner's captions must be; null: anything"
    )
    rewrite: Annotated[AnyRewriter | None, ADDED] = Field(
        None,
        description="what writes captions of captions, as shorter ones, by a language model; null: nobody",
    )
    rewrite_gates: Annotated[RewriteGates | None, ADDED] = Field(
        None, description="what the rewritten captions must be; null: anything"
    )

    @model_validator(mode="after")
    def _captions_go_through_gates(self) -> "Dataset":
        if self.recaption is not None and not self.recaption.captions:
            raise ValueError(
                "recaption.captions: is missing; name a caption, as in long: {prompt: Describe it.}"
            )
        if self.caption_gates is not None:
            self.caption_gates.check(self.recaption)
        if self.rewrite_gates is not None:
            self.rewrite_gates.check(self.rewrite)
        return self

    @model_validator(mode="after")
    def _source_knows_of_the_captioner(self) -> "Dataset":
        # Sections are frozen for everyone else.
        object.__setattr__(self, "source", self.source.with_captioner(self.recaption is not None))
        return self

    @model_validator(mode="after")
    def _keeps_own_captions(self) -> "Dataset":
        if self.own_captions and self.recaption is not None:
            raise ValueError(
                "own_captions: they are kept where no captioner is asked; write recaption: null, or leave this out"
            )
        if len(set(self.own_captions)) < len(self.own_captions):
            raise ValueError("own_captions: names one twice")
        # The order in which they are written changes nothing.
        object.__setattr__(self, "own_captions", tuple(sorted(self.own_captions)))
        return self

    @model_validator(mode="after")
    def _rewrites_what_is_there(self) -> "Dataset":
        if self.rewrite is not None:
            check_rewrite(self.rewrite, self.captions_before)
        return self

    @property
    def captions_before(self) -> tuple[str, ...]:
        """The captions that its pictures have before some are rewritten, in the order of every table."""
        generated = () if self.recaption is None else tuple(self.recaption.asked())
        return (ORIGINAL, *self.own_captions, *generated)

    @property
    def caption_names(self) -> tuple[str, ...]:
        """The captions that its pictures have in the end, in the order of every table."""
        rewritten = () if self.rewrite is None else tuple(self.rewrite.asked())
        return (*self.captions_before, *rewritten)

    @model_validator(mode="after")
    def _criteria_have_names(self) -> "Dataset":
        check_names(self.keep)
        self.scorers.check()
        return self
