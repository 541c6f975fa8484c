"""What generated captions must be, and what becomes of a picture whose are not."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from darkroom.captioners.base import CaptionerSection, asking_for
from darkroom.captioners.table import AnyCaptioner
from darkroom.gates.base import GateSection
from darkroom.gates.table import GATES
from darkroom.rewriters.table import AnyRewriter
from darkroom.settings.base import ADDED, Section
from darkroom.settings.unions import one_of

if TYPE_CHECKING:
    AnyGate = GateSection
else:
    AnyGate = one_of({name: spec.section for name, spec in GATES.items()})


class Gates(Section):
    """What a generated caption must be, and what becomes of a picture whose captions are not."""

    # What a dataset calls it, and the section of who writes the captions, for messages.
    key: ClassVar[str]
    of: ClassVar[str]

    if TYPE_CHECKING:

        @property
        def fallbacks(self) -> tuple[CaptionerSection, ...]: ...

    gates: tuple[AnyGate, ...] = Field(
        description="what captions go through, in this order; `kind` decides which table holds"
    )
    retries: int = Field(
        0,
        ge=0,
        le=20,
        description="new tries of a caption that does not pass, each sampled with another seed",
    )
    otherwise: Literal["drop", "keep", "fallback"] = Field(
        "drop",
        description="of a picture with a caption that never passes: drop it; keep the first try; or ask the"
        " captioners of `fallbacks`, and drop it then",
    )

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        if not self.gates:
            raise ValueError(f"gates: none is there; name one, or write {self.key}: null")
        labels = Counter(gate.label for gate in self.gates)
        if twice := [label for label, number in labels.items() if number > 1]:
            raise ValueError(f"gates: two are called {twice[0]!r}; give each a name: of its own")
        if (self.otherwise == "fallback") != bool(self.fallbacks):
            raise ValueError("fallbacks: they go together with otherwise: fallback; give both, or neither")
        return self

    @property
    def drops(self) -> bool:
        """Whether pictures may be dropped for their captions."""
        return self.otherwise != "keep"

    def check(self, captioner: CaptionerSection | None) -> None:
        """Refuse what does not go together with who writes the captions.

        Raises:
            ValueError: names the key and what would be right.
        """
        if captioner is None:
            raise ValueError(f"{self.key}: no captioner writes captions; give {self.of}, or leave this out")
        for gate in self.gates:
            if unknown := set(gate.captions) - set(captioner.captions):
                known = ", ".join(sorted(captioner.captions))
                raise ValueError(
                    f"{self.key}.gates: {gate.label} looks at {min(unknown)!r}, and {self.of}.captions has {known}"
                )
        for section in (captioner, *self.fallbacks):
            if self.retries and not section.can_sample:
                raise ValueError(
                    f"{self.key}.retries: a captioner of the kind {section.kind} cannot sample, and a new try"
                    " would say the same; write 0"
                )
        for section in self.fallbacks:
            if section.captions:
                raise ValueError(f"{self.key}.fallbacks: their captions are {self.of}'s; leave captions out")
            asking_for(section, captioner.captions)


class CaptionGates(Gates):
    """What a generated caption must be, and what becomes of a picture whose captions are not."""

    key: ClassVar[str] = "caption_gates"
    of: ClassVar[str] = "recaption"

    fallbacks: Annotated[tuple[AnyCaptioner, ...], ADDED] = Field(
        (),
        description="captioners that are asked in turn for what does not pass; their captions are recaption's",
    )


class RewriteGates(Gates):
    """What a rewritten caption must be, and what becomes of a picture whose captions are not."""

    key: ClassVar[str] = "rewrite_gates"
    of: ClassVar[str] = "rewrite"

    fallbacks: Annotated[tuple[AnyRewriter, ...], ADDED] = Field(
        (),
        description="language models that are asked in turn for what does not pass; their captions are rewrite's",
    )

    @model_validator(mode="after")
    def _look_at_no_picture(self) -> Self:
        for gate in self.gates:
            if GATES[gate.kind].looks:
                without = ", ".join(name for name, spec in GATES.items() if not spec.looks)
                raise ValueError(
                    f"gates: {gate.label} looks at pictures, and rewritten captions are judged without; there are"
                    f" {without}"
                )
        return self
