"""`kind: quoted_text`: what a caption quotes is read in its picture, as the scorer `text_in_picture` reads."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from darkroom.components.base import Component
from darkroom.gates.base import Candidate, Check, Gate, GateSection
from darkroom.scorers.text_in_picture import OCR, TextInPicture, is_like, plain, read_lines, reader, reduced

# Pairs of quotation marks; a straight single one may be an apostrophe, which stands inside of or behind a word.
_QUOTED = re.compile(
    r"\"([^\"\n]+)\"|\u201c([^\u201d\n]+)\u201d|\u00ab([^\u00bb\n]+)\u00bb|\u2018([^\u2019\n]+)\u2019(?!\w)"
    r"|(?<!\w)'([^'\n]+)'(?!\w)"
)
_WORD = re.compile(r"\w+")


class QuotedText(GateSection):
    """Passes a caption whose quoted words can be read in the picture, and one that quotes nothing."""

    kind: Literal["quoted_text"]
    min: float = Field(0.5, gt=0, le=1, description="least share of the quoted words that is read")
    max_side_px: int = Field(960, ge=64, le=2000, description="as of the scorer text_in_picture")
    min_confidence: float = Field(0.5, ge=0, le=1, description="as of the scorer text_in_picture")


def quoted_words(caption: str) -> list[str]:
    """The words between quotation marks, as they are compared: small letters, and those alike made the same."""
    quotes = ["".join(groups) for groups in _QUOTED.findall(caption)]
    return [word for quote in quotes for word in map(plain, _WORD.findall(quote)) if word]


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
    options = TextInPicture(max_side_px=section.max_side_px, min_confidence=section.min_confidence)
    engine = reader(options)

    def check(captions: Sequence[Candidate]) -> list[bool]:
        import numpy as np

        lines: dict[str, list[str]] = {}
        passed = []
        for caption in captions:
            words = quoted_words(caption.text)
            if words and caption.uid not in lines:
                image = reduced(np.asarray(caption.image()), options.max_side_px)
                lines[caption.uid] = [line.text for line in read_lines(engine, image)]
            passed.append(not words or share_read(words, lines[caption.uid]) >= section.min)
        return passed

    return check


SPEC = Gate("quoted_text", QuotedText, _load, extra=OCR)
