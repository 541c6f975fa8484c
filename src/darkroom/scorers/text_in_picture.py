"""How much of a picture is text, and whether it looks like a stock agency's watermark, by reading it (OCR)."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from darkroom.components.ocr import OCR, Line, Reading, digest, read_lines, reader, reduced
from darkroom.scorers.base import Part, Scorer

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

_DECIMALS = 5
_WORD = re.compile(r"\w+")
# What agencies write over the pictures that they have not sold yet.
_AGENCIES = (
    "123rf", "adobestock", "agefotostock", "alamy", "bigstock", "canstockphoto", "colourbox",
    "depositphotos", "dreamstime", "envato", "fotolia", "freepik", "gettyimages", "istock", "istockphoto",
    "megapixl", "picfair", "pixtastock", "pond5", "shutterstock", "stockphoto", "stocksy", "vectorstock",
    "vecteezy",
)  # fmt: skip
# Letters and digits that are read for each other.
_ALIKE = str.maketrans("015|!$i", "olsllsl")
# Names from this length on, and repeated texts, are known with one letter wrong.
_MIN_LONG = 7
_MIN_REPEATED, _MIN_REPEATED_LETTERS = 3, 4
# Rims and wheels are read as an O.
_MIN_LETTERS = 2


class TextInPicture(Reading):
    """`text_area`, `text_words` and `text_stock_mark`: the text in the picture, as far as it can be read."""


def score(options: TextInPicture, part: Part) -> "pl.DataFrame":
    """Null where there is no picture."""
    import polars as pl

    rows: list[tuple[float | int | bool | None, ...]] = [(None,) * len(SPEC.columns)] * part.rows.height
    engine = reader(options, "text_in_picture")
    part.tell_of(OCR.module, sha256=digest(), pictures=options.pictures)
    for place, image in part.images():
        small = reduced(image, options.max_side_px)
        lines = lines_of_text(engine, small)
        texts = [line.text for line in lines]
        words = sum(len(_WORD.findall(text)) for text in texts)
        rows[place] = (area(lines, small.shape[0], small.shape[1]), words, is_stock_mark(texts))
    kinds = {name: getattr(pl, kind) for name, kind in SPEC.columns.items()}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def lines_of_text(engine: Any, image: "np.ndarray") -> list[Line]:
    """The lines of two letters or more in a uint8 RGB picture (height, width, 3), from top to bottom."""
    return [line for line in read_lines(engine, image) if len(plain(line.text)) >= _MIN_LETTERS]


def area(lines: Sequence[Line], height: int, width: int) -> float:
    """Share of the picture's area that lies in the lines' corners, 0 to 1; what two lines share counts once."""
    import cv2
    import numpy as np

    mask = np.zeros((height, width), np.uint8)
    for line in lines:
        cv2.fillConvexPoly(mask, np.rint(line.corners).astype(np.int32), 1)
    return round(int(mask.sum()) / mask.size, _DECIMALS)


def is_stock_mark(texts: Sequence[str]) -> bool:
    """Whether lines name a stock agency, or say one thing three times and nothing else, as marks do that cover a
    picture; marks that stand beside each other may be read as one line."""
    lines = [plain(text) for text in texts]
    if any(_names(text, plain(name)) for text in [*lines, "".join(lines)] for name in _AGENCIES):
        return True
    said = {thing for text in texts for thing in (text, *_WORD.findall(text))}
    long = {plain(thing) for thing in said if not "".join(_WORD.findall(thing)).isdecimal()}
    long = {thing for thing in long if len(thing) >= _MIN_REPEATED_LETTERS}
    return any(sum(_times(line, thing) for line in lines) >= _MIN_REPEATED for thing in long)


def _times(line: str, thing: str) -> int:
    """How often a line says a thing; 0 where it says more than a stray letter besides."""
    rest = line.replace(thing, "")
    if len(rest) <= 1:
        return (len(line) - len(rest)) // len(thing)
    return int(is_like(line, thing))


def plain(text: str) -> str:
    """Letters and digits alone, small, and those that are read for each other made the same."""
    return "".join(_WORD.findall(text.lower().translate(_ALIKE))).replace("_", "")


def _names(text: str, name: str) -> bool:
    starts = range(len(text) - len(name) + 1)
    return any(is_like(text[start : start + len(name)], name) for start in starts)


def is_like(text: str, other: str) -> bool:
    """Whether one plain text may be the other, in which one letter of a long one is read wrong."""
    wrong = sum(a != b for a, b in zip(text, other, strict=False))
    return len(text) == len(other) and wrong <= (1 if len(other) >= _MIN_LONG else 0)


SPEC = Scorer(
    name="text_in_picture",
    section=TextInPicture,
    columns={"text_area": "Float64", "text_words": "Int32", "text_stock_mark": "Boolean"},
    reads="pixels",
    needs=(),
    score=score,
    extra=OCR,
    version=2,
)
