"""Drawn pictures as captioners look at them, so that a captioner can be asked about what a model drew."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from darkroom.captioners.progress import Progress
from darkroom.metrics.base import DrawnPictures

_JPEG_QUALITY = 95
SENT_AS = f"JPEG, quality {_JPEG_QUALITY}, 4:4:4"
"""How `LookedAt.jpeg` stores pictures, which are drawn without loss."""


class LookedAt:
    """See `captioners.base.Pictures`.

    Args:
        drawn: model -> its pictures.
        scratch: see `captioners.base.Subjects`.

    Attributes:
        rows: of each picture `model`, `prompt_index` and `picture`.
    """

    where = "the drawn pictures"

    def __init__(self, drawn: Mapping[str, DrawnPictures], scratch: Path) -> None:
        self.scratch = scratch
        self.rows: list[dict[str, Any]] = []
        self._places: list[tuple[DrawnPictures, int]] = []
        for of in drawn.values():
            rows = of.table().select("model", "prompt_index", "picture").to_dicts()
            self.rows += rows
            self._places += [(of, place) for place in range(len(rows))]
        self.uids: Sequence[str] = [
            f"{row['model']}-{row['prompt_index']:05d}-{row['picture']:04d}" for row in self.rows
        ]
        self._drawn, self._progress = drawn, Progress("answers")

    @property
    def content(self) -> dict[str, str]:
        """Model -> digest of its pictures."""
        return {model: of.sha256 for model, of in self._drawn.items()}

    def jpeg(self, place: int) -> bytes:
        """See `captioners.base.Pictures`."""
        stored = io.BytesIO()
        self.image(place).save(stored, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        return stored.getvalue()

    def image(self, place: int) -> Image.Image:
        """See `captioners.base.Pictures`."""
        of, number = self._places[place]
        return Image.fromarray(np.asarray(of.picture(number)))

    def expect(self, num_answers: int) -> None:
        """Say how many answers are asked for."""
        self._progress.expect(num_answers)

    def tell(self, num_captions: int) -> None:
        """See `captioners.base.Subjects`."""
        self._progress.add(num_captions)
