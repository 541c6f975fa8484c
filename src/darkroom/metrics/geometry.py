"""Where one box lies relative to another, by GenEval's rule (arXiv 2310.11513)."""

from collections.abc import Sequence

import numpy as np

Box = Sequence[float]


def relations(box: Box, reference: Box, threshold: float = 0.1) -> set[str]:
    """The relations of `box` to `reference`: none, one, or two for a diagonal.

    Boxes are (left, top, right, bottom), y downwards. The centre offset is shrunk per axis by
    `threshold` times the two sizes, then divided by the length of the unshrunk offset; a component
    beyond one half is a relation.
    """
    (size, centre), (other_size, other_centre) = _size_and_centre(box), _size_and_centre(reference)
    offset = centre - other_centre
    shrunk = np.sign(offset) * np.maximum(np.abs(offset) - threshold * (size + other_size), 0)
    if np.all(np.abs(shrunk) < 1e-3):
        return set()
    x, y = shrunk / np.linalg.norm(offset)
    found = {"left of": x < -0.5, "right of": x > 0.5, "below": y > 0.5, "above": y < -0.5}
    return {name for name, holds in found.items() if holds}


def _size_and_centre(box: Box) -> tuple[np.ndarray, np.ndarray]:
    left, top, right, bottom = box
    return np.array([right - left, bottom - top]), np.array([(left + right) / 2, (top + bottom) / 2])
