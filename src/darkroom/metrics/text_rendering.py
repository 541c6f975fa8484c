"""Text rendering: whether pictures show the words that their prompts quote, as an OCR reads them.

Accuracy and words are compared as MARIO-Eval does it (arXiv 2305.10855), characters by AnyText's normalised edit
distance (arXiv 2311.03054), which is a likeness: 1 is the same text. Case, and what is no letter or digit, make no
difference.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from darkroom.benchmarks.base import Record
from darkroom.components.base import Component
from darkroom.components.ocr import OCR, PACKAGE, Reading, digest, read_lines, reader, reduced
from darkroom.components.tesseract import require as require_tesseract
from darkroom.metrics.base import VARIANT, Inputs, Measured, Metric
from darkroom.quotes import quoted_texts
from darkroom.settings.base import ADDED

_WORD = re.compile(r"[^\W_]+")
# A quoted text stands in so many lines of a picture at most.
_MAX_LINES = 8


class TextRendering(Reading):
    """Text rendering: whether pictures show the words that their prompts quote."""

    engine: Annotated[Literal["rapidocr", "tesseract"], ADDED] = Field(
        "rapidocr",
        description="what reads: RapidOCR (the extra `ocr`), or the program tesseract, English alone",
    )


class Fit(NamedTuple):
    """How well a picture's text is what was asked for, 0 to 1.

    Attributes:
        accuracy: 1 where the words read are those quoted, each as often, and no others.
        ned: mean over the quoted texts of 1 - edit distance / length of the longer text, to the line of the
            picture, or the lines that follow each other, to which it is nearest.
        word_f1: harmonic mean of the shares of quoted words that are read, and of read words that are quoted.
    """

    accuracy: float
    ned: float
    word_f1: float


def words(text: str) -> list[str]:
    """A text's words as they are compared: letters and digits, small."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def fit(quoted: Sequence[str], lines: Sequence[str]) -> Fit:
    """Compare what a prompt quotes with the lines that are read in its picture, from top to bottom."""
    wanted = Counter(word for text in quoted for word in words(text))
    read = Counter(word for line in lines for word in words(line))
    shared = (wanted & read).total()
    both = wanted.total() + read.total()
    plain = ["".join(words(line)) for line in lines]
    ned = [_nearest("".join(words(text)), plain) for text in quoted]
    return Fit(float(wanted == read), float(np.mean(ned)), 2 * shared / both)


def _nearest(text: str, lines: Sequence[str]) -> float:
    """The likeness of a text to the lines that follow each other to which it is nearest; 0 where there is none."""
    runs = (
        "".join(lines[begin:end])
        for begin in range(len(lines))
        for end in range(begin + 1, min(len(lines), begin + _MAX_LINES) + 1)
    )
    return max((likeness(text, run) for run in runs), default=0.0)


def likeness(text: str, other: str) -> float:
    """1 - Levenshtein's distance / length of the longer text; of two empty ones 1."""
    longer = max(len(text), len(other))
    if min(len(text), len(other)) == 0:
        return float(longer == 0)
    row = np.arange(len(other) + 1)
    letters = np.array(list(other))
    steps = np.arange(len(other) + 1)
    for place, letter in enumerate(text, start=1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (letters != letter))
        # A letter that is put in costs one more than the text before it.
        row = np.minimum.accumulate(np.concatenate([[place], changed]) - steps) + steps
    return 1 - int(row[-1]) / longer


def asked_for(record: Record) -> list[str]:
    """The texts that a prompt quotes and that have a letter or a digit."""
    return [text for text in quoted_texts(record["prompt"]) if words(text)]


def measure(section: TextRendering, inputs: Inputs) -> Measured:
    """Read every picture whose prompt quotes something.

    Raises:
        ValueError: the OCR is not installed.
    """
    read, protocol = _reading(section)
    rows = []
    for drawn in inputs.drawn.values():
        places = drawn.table().select("model", "prompt_index", "picture").iter_rows(named=True)
        for place, picture in zip(places, drawn.pictures(), strict=True):
            quoted, row = asked_for(inputs.records[place["prompt_index"]]), dict.fromkeys(_SCHEMA)
            if quoted:
                lines = read(reduced(picture, section.max_side_px))
                row = dict(zip(_SCHEMA, (*fit(quoted, lines), "\n".join(lines)), strict=True))
            rows.append(place | row)
    table = pl.DataFrame(rows, schema_overrides=_SCHEMA)
    protocol |= {
        "min_confidence": section.min_confidence,
        "compared": "letters and digits, Unicode NFKC, small",
    }
    return Measured(table, protocol, {"no_quoted_text": table["text_accuracy"].null_count()})


def _reading(section: TextRendering) -> tuple[Callable[[np.ndarray], list[str]], dict[str, Any]]:
    """What reads the lines of a picture, and what the protocol tells of it."""
    if section.engine == "tesseract":
        from darkroom.components.tesseract import Tesseract

        program = Tesseract(section.min_confidence)
        told = {"name": program.name, **program.told, "pictures": f"{section.reduced}; RGB"}
        # Scores by the other engine are other scores.
        return program.lines, {**_defined(program.name), "ocr": told, VARIANT: program.name}
    engine = reader(section, SPEC.name)
    name = f"{PACKAGE} {version(PACKAGE)}"
    ocr = {"name": name, "sha256": digest(), "pictures": section.pictures}
    return lambda picture: [line.text for line in read_lines(engine, picture)], {**_defined(name), "ocr": ocr}


def _defined(name: str) -> dict[str, str]:
    return {"definition": f"quoted words as {name} reads them"}


def silent_on(records: Sequence[Record]) -> str:
    """Why text rendering says nothing of prompts: none quotes a word."""
    if any(asked_for(record) for record in records):
        return ""
    return 'text rendering does not apply: no prompt quotes words, as in: a sign that says "open"'


def check(section: TextRendering, records: Sequence[Record], components: Mapping[str, Component]) -> None:
    """Whether the OCR is installed.

    Raises:
        ValueError: it is not; says what to run.
    """
    if section.engine == "tesseract":
        require_tesseract(f"measure.{SPEC.name}")
    else:
        OCR.require(f"measure.{SPEC.name}")


_SCHEMA: dict[str, Any] = {
    "text_accuracy": pl.Float64,
    "text_ned": pl.Float64,
    "text_word_f1": pl.Float64,
    "text_read": pl.String,
}
SPEC = Metric(
    name="text_rendering",
    section=TextRendering,
    measure=measure,
    label="Text rendering",
    direction="higher",
    digits=2,
    summary="parts",
    column="text_accuracy",
    parts={"text_accuracy": "accuracy", "text_ned": "NED", "text_word_f1": "word F1"},
    silent_on=silent_on,
    check=check,
)
