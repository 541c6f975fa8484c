"""`kind: quoted_text`: what a caption quotes is read in its picture, as the scorer `text_in_picture` reads."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from darkroom.components.base import Component
from darkroom.components.ocr import OCR, Reading, reader, reduced
from darkroom.gates.base import Candidate, Check, Gate, GateSection
from darkroom.quotes import quoted_texts
from darkroom.scorers.text_in_picture import is_like, lines_of_text, plain

_WORD = re.compile(r"\w+")


class QuotedText(GateSection):
    """Passes a caption whose quoted words can be read in the picture, and one that quotes nothing."""

    kind: Literal["quoted_text"]
    min: float = Field(0.5, gt=0, le=1, description="least share of the quoted words that is read")
    max_side_px: int = Field(960, ge=64, le=2000, description="as of the scorer text_in_picture")
    min_confidence: float = Field(0.5, ge=0, le=1, description="as of the scorer text_in_picture")


def quoted_words(caption: str) -> list[str]:
    """The words between quotation marks, as they are compared: small letters, and those alike made the same."""
    return [word for quote in quoted_texts(caption) for word in map(plain, _WORD.findall(quote)) if word]


def share_read(words: Sequence[str], lines: Sequence[str]) -> float:
    """Share of `words` that the lines of a picture have, also within a line that is read without its spaces.

    A long word may have one letter wrong.
    """
    read = [plain(word) for line in lines for word in _WORD.findall(line)]
    whole = " ".join(map(plain, lines))
    found = sum(word in whole or any(is_like(other, word) for other in read) for word in words)
    return found / len(words)


def _load(section: QuotedText, components: Mapping[str, Component]) -> Check:
    del components
    options = Reading(max_side_px=section.max_side_px, min_confidence=section.min_confidence)
    engine = reader(options, "quoted_text")

    def check(captions: Sequence[Candidate]) -> list[bool]:
        import numpy as np

        lines: dict[str, list[str]] = {}
        passed = []
        for caption in captions:
            words = quoted_words(caption.text)
            if words and caption.uid not in lines:
                image = reduced(np.asarray(caption.image()), options.max_side_px)
                lines[caption.uid] = [line.text for line in lines_of_text(engine, image)]
            passed.append(not words or share_read(words, lines[caption.uid]) >= section.min)
        return passed

    return check


SPEC = Gate("quoted_text", QuotedText, _load, extra=OCR, looks=True)
