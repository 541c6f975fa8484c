"""The language of a caption, by py3langid: naive Bayes on sequences of bytes (Lui and Baldwin 2012)."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from darkroom.scorers.base import Part, Scorer
from darkroom.settings.base import Section
from darkroom.settings.extras import Extra

if TYPE_CHECKING:
    import polars as pl

_LANGUAGE = Extra("language", "py3langid")
_DECIMALS = 4
# From here on scripts write a word in a letter or two: Chinese, Japanese, Korean.
_FIRST_DENSE, _LETTERS_OF_DENSE = "\u2e80", 3


class Language(Section):
    """`language` of the caption, an ISO 639 code such as `en`, and `language_probability`, how sure that is."""

    min_letters: int = Field(
        12,
        ge=1,
        description="captions with fewer letters have no language; one of Chinese, Japanese or Korean is as three",
    )
    min_probability: float = Field(
        0.4,
        ge=0,
        le=1,
        description="what is less surely of a language than this has none; 0: the likeliest one",
    )


def score(options: Language, part: Part) -> "pl.DataFrame":
    """Null where there is no caption, or one of too few letters to tell; unsure ones have a probability alone."""
    import polars as pl

    from darkroom.store import sha256_file

    _LANGUAGE.require("language")
    from py3langid import langid

    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    model = Path(langid.__file__).parent / langid.MODEL_FILE
    part.tell_of(_LANGUAGE.module, sha256=sha256_file(model), classes=list(identifier.nb_classes))
    rows: list[tuple[str | None, float | None]] = []
    for caption in part.rows["caption"]:
        if caption is None or num_letters(caption) < options.min_letters:
            rows.append((None, None))
        else:
            language, probability = identifier.classify(caption)
            is_sure = probability >= options.min_probability
            rows.append((language if is_sure else None, round(probability, _DECIMALS)))
    kinds = {name: getattr(pl, kind) for name, kind in SPEC.columns.items()}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def num_letters(text: str) -> int:
    """Letters, those of dense scripts as several."""
    return sum(_LETTERS_OF_DENSE if letter >= _FIRST_DENSE else 1 for letter in text if letter.isalpha())


SPEC = Scorer(
    name="language",
    section=Language,
    columns={"language": "String", "language_probability": "Float32"},
    reads="table",
    needs=("caption",),
    score=score,
    extra=_LANGUAGE,
    version=3,
)
