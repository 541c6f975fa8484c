"""What scorers on image classifiers share: options that name the model and its classes, and a part's scores."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from darkroom.components.base import ComponentOf
from darkroom.scorers.base import Part, Scorer
from darkroom.settings.base import Section

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

# Rounded, so that the kind of processor seldom matters.
_DECIMALS = 5


class WithClassifier(Section):
    """A scorer on the classes of an image classifier."""

    model: Annotated[str, ComponentOf("image_classifier")] = Field(
        description="name of an image_classifier in config/components.yaml"
    )
    classes: tuple[str, ...] = Field(
        min_length=1, description="classes whose probabilities count, by the names that the model gives them"
    )
    batch_size: int = Field(32, ge=1, description="pictures a forward pass")


def classifier_scorer(name: str, section: type[WithClassifier]) -> Scorer:
    """A scorer with one column of its own name."""
    return Scorer(
        name=name,
        section=section,
        columns={name: "Float32"},
        reads="pixels",
        needs=(),
        score=partial(score_classes, column=name),
        version=3,
    )


def score_classes(options: WithClassifier, part: Part, column: str) -> "pl.DataFrame":
    """The probability that a picture is of one of the classes; null where there is no picture.

    For a model that judges classes apart, that of the likeliest of them.
    """
    import polars as pl

    from darkroom.components.image_classifier import load_image_classifier

    of = ("image_classifier", options.model)
    classifier = part.shared.model(of, lambda: load_image_classifier(part.components[options.model]))
    part.tell_of(
        options.model,
        classes=list(classifier.labels),
        judged="each apart" if classifier.is_multi_label else "one of them",
        pictures=classifier.takes,
    )
    places = classifier.places(options.classes)
    found: list[float | None] = [None] * part.rows.height
    for rows, images in _batches(part, options.batch_size):
        said = part.shared.answer((*of, *rows), partial(classifier.probabilities, images))
        chosen = said[:, places]
        values = chosen.amax(dim=1) if classifier.is_multi_label else chosen.sum(dim=1).clamp(max=1)
        for row, value in zip(rows, values.tolist(), strict=True):
            found[row] = round(value, _DECIMALS)
    return pl.DataFrame({column: found}, schema={column: pl.Float32})


def _batches(part: Part, size: int) -> "Iterator[tuple[list[int], list[np.ndarray]]]":
    pictures = part.images()
    while batch := list(islice(pictures, size)):
        yield [row for row, _ in batch], [image for _, image in batch]
