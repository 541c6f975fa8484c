"""Plain measures of a picture's quality, from its pixels and without a model.

They are taken of the luma (ITU-R BT.601, 0 to 255) of the stored picture, reduced by a whole factor. Sums are of
whole numbers, and results are rounded to 6 decimals, so that the kind of CPU does not matter; the decoder of
JPEG and its version do.
"""

import math
from typing import TYPE_CHECKING

from pydantic import Field

from darkroom.scorers.base import Part, Scorer
from darkroom.settings.base import Section

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

_DECIMALS = 6


class Quality(Section):
    """`sharpness`, `contrast`, `entropy` and `border` of the stored picture, from its pixels."""

    side_px: int = Field(
        256,
        ge=16,
        description="pictures are reduced by a whole factor until their longer side is at most this",
    )
    border_tolerance: int = Field(
        16, ge=0, le=255, description="levels of luma by which a border's pixels may differ from its corner"
    )


def score(options: Quality, part: Part) -> "pl.DataFrame":
    """Null where there is no picture."""
    import polars as pl

    rows: list[tuple[float | None, ...]] = [(None,) * len(SPEC.columns)] * part.rows.height
    for place, image in part.images():
        luma = reduced_luma(image, options.side_px)
        rows[place] = (
            sharpness(luma), contrast(luma), entropy(luma), border(luma, options.border_tolerance)
        )  # fmt: skip
    return pl.DataFrame(rows, schema=dict.fromkeys(SPEC.columns, pl.Float64), orient="row")


def reduced_luma(image: "np.ndarray", side_px: int) -> "np.ndarray":
    """Luma (height, width), int64, 0 to 255, of a uint8 RGB picture (height, width, 3): means of blocks of k x k
    pixels, with the least whole k that makes the longer side at most `side_px`. Pixels at the right and lower edge
    that fill no block are left out."""
    import numpy as np
    from PIL import Image

    luma = np.asarray(Image.fromarray(image).convert("L"))
    k = min(-(-max(luma.shape) // side_px), min(luma.shape))
    height, width = (side // k for side in luma.shape)
    # Slice by slice: numpy is slow along short axes.
    down = np.zeros((height, width * k), np.int64)
    for i in range(k):
        down += luma[i : height * k : k, : width * k]
    sums = np.full((height, width), k * k // 2, np.int64)
    for i in range(k):
        sums += down[:, i::k]
    return np.asarray(sums // (k * k))


def sharpness(luma: "np.ndarray") -> float | None:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000); null for pictures below 3 x 3."""
    if min(luma.shape) < 3:
        return None
    inner = luma[1:-1, 1:-1]
    return _variance(luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner)


def contrast(luma: "np.ndarray") -> float:
    """Standard deviation of the luma as a share of its range (RMS contrast, Peli 1990): 0 to 0.5."""
    return round(math.sqrt(_variance(luma)) / 255, _DECIMALS)


def entropy(luma: "np.ndarray") -> float:
    """Shannon entropy of the 256 levels, bits: 0 (one level) to 8."""
    import numpy as np

    shares = [int(n) / luma.size for n in np.bincount(luma.ravel(), minlength=256) if n]
    return round(abs(math.fsum(share * math.log2(share) for share in shares)), _DECIMALS)


def border(luma: "np.ndarray", tolerance: int) -> float:
    """Share of the area in rows and columns, from each edge inwards, whose pixels are as their corner's: bars,
    frames and plain backgrounds. 1 for a picture of one colour."""
    height, width = luma.shape
    top, bottom = _depth(luma, tolerance), _depth(luma[::-1], tolerance)
    left, right = _depth(luma.T, tolerance), _depth(luma.T[::-1], tolerance)
    inside = max(height - top - bottom, 0) * max(width - left - right, 0)
    return round(1 - inside / (height * width), _DECIMALS)


def _depth(luma: "np.ndarray", tolerance: int) -> int:
    """Rows from the first one on that are all within `tolerance` of the first pixel."""
    other = abs(luma - luma[0, 0]).max(axis=1) > tolerance
    return int(other.argmax()) if other.any() else len(luma)


def _variance(values: "np.ndarray") -> float:
    n, total, squares = values.size, int(values.sum()), int((values * values).sum())
    return round((n * squares - total * total) / (n * n), _DECIMALS)


SPEC = Scorer(
    name="quality",
    section=Quality,
    columns=dict.fromkeys(("sharpness", "contrast", "entropy", "border"), "Float64"),
    reads="pixels",
    needs=(),
    score=score,
)
