"""Reading text in pictures (OCR).

RapidOCR finds lines of text and reads them, with the models of PP-OCRv4 that its package holds: Latin letters,
digits and Chinese.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from darkroom.components.onnx import num_threads
from darkroom.settings.base import Section
from darkroom.settings.extras import Extra

if TYPE_CHECKING:
    import numpy as np

OCR = Extra("ocr", "rapidocr_onnxruntime")
PACKAGE = "rapidocr-onnxruntime"


class Reading(Section):
    """How text is read in pictures."""

    max_side_px: int = Field(
        960, ge=64, le=2000, description="pictures with a longer side are reduced to it before they are read"
    )
    min_confidence: float = Field(
        0.5, ge=0, le=1, description="lines that are read with less do not count, as patterns often are"
    )

    @property
    def reduced(self) -> str:
        """How large they are then, for manifests and protocols."""
        return f"longer side at most {self.max_side_px} px (bicubic)"

    @property
    def pictures(self) -> str:
        """How they come to RapidOCR's models."""
        return f"{self.reduced}; BGR, 0 to 255"


class Line(NamedTuple):
    """A line of text: its four corners, pixels (x, y), and what it says."""

    corners: Sequence[Sequence[float]]
    text: str


def reader(options: Reading, what: str) -> Any:
    """What `read_lines` reads with, for the option `what`.

    Raises:
        ValueError: its package is not installed.
    """
    OCR.require(what)
    import logging

    from rapidocr_onnxruntime import RapidOCR

    engine = RapidOCR(
        text_score=options.min_confidence,
        # Larger pictures are reduced before, and small ones are read as they are.
        det_limit_type="max",
        min_side_len=1,
        intra_op_num_threads=num_threads() or -1,
    )
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return engine


def digest() -> str:
    """Of RapidOCR's models and of its options, among them how its models take pictures."""
    import rapidocr_onnxruntime

    from darkroom.store import sha256_file, sha256_json

    folder = Path(rapidocr_onnxruntime.__file__).parent
    files = [*sorted(folder.glob("models/*.onnx")), folder / "config.yaml"]
    return sha256_json({file.name: sha256_file(file) for file in files})


def reduced(image: "np.ndarray", max_side_px: int) -> "np.ndarray":
    """uint8 RGB (height, width, 3), its longer side at most `max_side_px`."""
    import numpy as np
    from PIL import Image

    height, width = image.shape[:2]
    scale = max_side_px / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def read_lines(engine: Any, image: "np.ndarray") -> list[Line]:
    """The lines of text in a uint8 RGB picture (height, width, 3), from top to bottom."""
    import numpy as np

    found, _ = engine(np.ascontiguousarray(image[..., ::-1]))
    return [Line(corners, text) for corners, text, _ in found or ()]
