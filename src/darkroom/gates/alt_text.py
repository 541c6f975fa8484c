"""`kind: alt_text`: how much of the picture's alt-text a caption says."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from darkroom.components.base import Component
from darkroom.gates.base import Candidate, Check, Gate, GateSection
from darkroom.settings.base import ADDED

_WORD = re.compile(r"\w+")


class AltText(GateSection):
    """Passes a caption that says this share of the alt-text's words, and all captions where there is none."""

    kind: Literal["alt_text"]
    min: Annotated[float | None, ADDED] = Field(
        None, ge=0, le=1, description="least share of the alt-text's distinct words"
    )
    max: Annotated[float | None, ADDED] = Field(
        None, ge=0, le=1, description="greatest share of these; for captioners that may have seen it"
    )

    @model_validator(mode="after")
    def _compares(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("it compares with nothing; give min, max or both")
        return self


def overlap(caption: str, original: str) -> float | None:
    """Share of the alt-text's distinct words that a caption has, 0 to 1; None where it has none."""
    words, said = (set(_WORD.findall(text.casefold())) for text in (original, caption))
    return len(words & said) / len(words) if words else None


def _load(section: AltText, components: Mapping[str, Component]) -> Check:
    del components
    low = 0.0 if section.min is None else section.min
    high = 1.0 if section.max is None else section.max

    def passes(caption: Candidate) -> bool:
        share = overlap(caption.text, caption.original)
        return share is None or low <= share <= high

    return lambda captions: [passes(caption) for caption in captions]


SPEC = Gate("alt_text", AltText, _load)
