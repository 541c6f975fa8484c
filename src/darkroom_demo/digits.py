"""Handwritten numbers: scikit-learn's 8 x 8 digits, enlarged smoothly, in a row on pale paper."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

_MAX_DIGITS = 4
_MAX_ASPECT_RATIO = 2.0
_GLYPH_PX = 8
_PAPERS_RGB = ((253, 252, 248), (244, 240, 228), (236, 240, 245), (240, 236, 236))
_INKS_RGB = ((18, 18, 20), (20, 28, 78), (54, 32, 20), (38, 40, 44))


def sample_digits(rng: np.random.Generator, sides_px: tuple[int, int] = (64, 256)) -> tuple[np.ndarray, str]:
    """A handwritten number of one to four digits.

    Args:
        rng: the only source of chance.
        sides_px: smallest shorter side and greatest longer side, pixels.

    Returns:
        (picture, text): uint8 (height, width, 3) RGB, and what is written, e.g. "42".
    """
    images, labels = _glyphs()
    chosen = rng.integers(len(labels), size=int(rng.integers(1, _MAX_DIGITS + 1)))
    row = _row([images[i] for i in chosen], rng)
    width, height = _draw_size(rng, row.shape[1] / row.shape[0], sides_px)
    ink = _placed(row, width, height, rng)[..., None]
    jitter = rng.uniform(-6, 6, size=3)
    paper = np.clip(np.array(_PAPERS_RGB[rng.integers(len(_PAPERS_RGB))]) + jitter, 0, 255)
    color = np.array(_INKS_RGB[rng.integers(len(_INKS_RGB))], np.float64)
    picture = np.rint(paper * (1 - ink) + color * ink).astype(np.uint8)
    return picture, "".join(str(labels[i]) for i in chosen)


def digits_captions(text: str) -> tuple[str, str]:
    """(long, short): what a good captioner says of the number."""
    return f'the handwritten number "{text}" in dark ink on pale paper', f'a photo of the number "{text}"'


@lru_cache(maxsize=1)
def _glyphs() -> tuple[np.ndarray, np.ndarray]:
    """Ink (n, 8, 8) float32 in [0, 1] and the digits written, (n,) int."""
    # What sklearn.datasets.load_digits() reads; importing scikit-learn for it would take seconds.
    spec = find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    table = np.loadtxt(Path(spec.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    images = table[:, :-1].reshape(-1, _GLYPH_PX, _GLYPH_PX).astype(np.float32) / 16
    return images, table[:, -1].astype(int)


def _row(glyphs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The glyphs side by side, with the empty columns around each cut off: float32 (12, columns)."""
    columns = []
    for glyph in glyphs:
        inked = np.flatnonzero(glyph.max(axis=0) > 0.1)
        columns += [
            glyph[:, inked[0] : inked[-1] + 1],
            np.zeros((_GLYPH_PX, int(rng.integers(1, 3))), np.float32),
        ]
    return np.pad(np.concatenate(columns[:-1], axis=1), 2)


def _draw_size(rng: np.random.Generator, row_ratio: float, sides_px: tuple[int, int]) -> tuple[int, int]:
    lowest = min(max(row_ratio, 0.6), _MAX_ASPECT_RATIO)
    ratio = float(rng.uniform(lowest, min(lowest * 1.4, _MAX_ASPECT_RATIO)))
    low, high = np.log(sides_px[0]), np.log(sides_px[1] / max(ratio, 1 / ratio))
    short = float(np.exp(rng.uniform(low, max(low, high))))
    width, height = (short * ratio, short) if ratio >= 1 else (short, short / ratio)
    return round(width), round(height)


def _placed(row: np.ndarray, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """The row enlarged and put somewhere in the picture: float (height, width) in [0, 1]."""
    scale = min(width / row.shape[1], height / row.shape[0]) * float(rng.uniform(0.85, 1.0))
    size = max(int(row.shape[1] * scale), 1), max(int(row.shape[0] * scale), 1)
    large = cv2.resize(row, size, interpolation=cv2.INTER_CUBIC)
    # A steeper edge than interpolation leaves: a pen's, not a blur's.
    large = np.clip((large - 0.35) / 0.4, 0, 1)
    left = int(rng.integers(width - size[0] + 1))
    top = int(rng.integers(height - size[1] + 1))
    ink = np.zeros((height, width))
    ink[top : top + size[1], left : left + size[0]] = large
    return ink
