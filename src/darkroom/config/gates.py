"""What generated captions must be, and what becomes of a picture whose are not."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from darkroom.captioners.base import Caption, CaptionerSection
from darkroom.captioners.table import AnyCaptioner
from darkroom.gates.base import GateSection
from darkroom.gates.table import GATES
from darkroom.settings.base import ADDED, Section
from darkroom.settings.unions import one_of

if TYPE_CHECKING:
    AnyGate = GateSection
else:
    AnyGate = one_of({name: spec.section for name, spec in GATES.items()})


class CaptionGates(Section):
    """What a generated caption must be, and what becomes of a picture whose captions are not."""

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
    fallbacks: Annotated[tuple[AnyCaptioner, ...], ADDED] = Field(
        (),
        description="captioners that are asked in turn for what does not pass; their captions are recaption's",
    )

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        if not self.gates:
            raise ValueError("gates: none is there; name one, or write caption_gates: null")
        labels = Counter(gate.label for gate in self.gates)
        if twice := [label for label, number in labels.items() if number > 1]:
            raise ValueError(f"gates: two are called {twice[0]!r}; give each a name: of its own")
        if (self.otherwise == "fallback") != bool(self.fallbacks):
            raise ValueError("fallbacks: they go together with otherwise: fallback; give both, or neither")
        return self

    def check(self, recaption: CaptionerSection | None) -> None:
        """Refuse what does not go together with the dataset's captioner.

        Raises:
            ValueError: names the key and what would be right.
        """
        if recaption is None:
            raise ValueError("caption_gates: no captioner writes captions; give recaption, or leave this out")
        for gate in self.gates:
            if unknown := set(gate.captions) - set(recaption.captions):
                known = ", ".join(sorted(recaption.captions))
                raise ValueError(
                    f"caption_gates.gates: {gate.label} looks at {min(unknown)!r}, and recaption.captions has"
                    f" {known}"
                )
        for section in (recaption, *self.fallbacks):
            if self.retries and not section.can_sample:
                raise ValueError(
                    f"caption_gates.retries: a captioner of the kind {section.kind} cannot sample, and a new try"
                    " would say the same; write 0"
                )
        for section in self.fallbacks:
            if section.captions:
                raise ValueError(
                    "caption_gates.fallbacks: their captions are recaption's; leave captions out"
                )
            with_captions(section, recaption.captions)


def with_captions(section: CaptionerSection, captions: Mapping[str, Caption]) -> CaptionerSection:
    """A captioner's section that asks for these.

    Raises:
        ValueError: it cannot sample, and one of them is to be.
    """
    return type(section).model_validate({**dict(section), "captions": dict(captions)})
