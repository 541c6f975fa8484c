"""A hash of how a picture looks, which changes little where the picture is reduced or compressed again.

The signs of the 256 lowest frequencies of the picture's cosine transform, as in pHash (Zauner 2010) and PDQ
(Facebook 2019). Other than there a bit is 1 only where the coefficient stands out from noise: those of a picture
that is its own mirror image, half of which are 0, would else be decided by chance.
"""

import math
from collections.abc import Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from darkroom.scorers.base import Part, Scorer
from darkroom.settings.base import Section

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from PIL import Image

_SIDE_PX = 64
_BITS, _LOW_BITS = 256, 64
_NUM_FREQUENCIES = 17
# Cosines are whole numbers, so that every processor finds the same bits.
_ONE = 1 << 14
# Amplitude in levels of luma of a wave that is no noise.
_NOISE = 0.4


class PerceptualHash(Section):
    """`phash`, that of the mirrored picture, how sure it is, and the mean colour; for `near_duplicate`."""


def score(options: PerceptualHash, part: Part) -> "pl.DataFrame":
    """Null where there is no picture."""
    import polars as pl

    del options
    rows: list[tuple[str | int | None, ...]] = [(None,) * len(SPEC.columns)] * part.rows.height
    for place, found in hashed(part):
        rows[place] = found
    return pl.DataFrame(rows, schema=schema(), orient="row")


def hashed(part: Part) -> "Iterator[tuple[int, tuple[str, str, int, int, int]]]":
    """(place in the part's rows, `hashes`) of every stored picture; scorers of one pass share them."""
    from PIL import Image

    for place, image in part.images():
        yield place, part.shared.answer(("phash", place), partial(hashes, Image.fromarray(image)))


def schema() -> "dict[str, Any]":
    """The columns, with polars' types."""
    import polars as pl

    return {name: getattr(pl, kind) for name, kind in SPEC.columns.items()}


def hashes(image: "Image.Image") -> tuple[str, str, int, int, int]:
    """The hash of a picture and that of its mirror image, 64 hexadecimal digits each, the lowest 64 of 256
    frequencies first; how many of these 64 stand out from noise; and the means of Cb and Cr, 0 to 255."""
    import numpy as np
    from PIL import Image

    rgb = image if image.mode == "RGB" else image.convert("RGB")
    small = rgb.convert("YCbCr").resize((_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS)
    luma, blue, red = np.asarray(small, np.int64).transpose(2, 0, 1)
    found = coefficients(luma)
    noise = round(_NOISE * _SIDE_PX**2 / 4 * _ONE**2)
    # A mirror image has odd waves, left to right, with the other sign.
    sign = np.where(_order()[1] % 2, -1, 1)
    plain, mirrored = (np.packbits(values > noise).tobytes().hex() for values in (found, found * sign))
    means = (int(chroma.sum() + chroma.size // 2) // chroma.size for chroma in (blue, red))
    return plain, mirrored, int((abs(found[:_LOW_BITS]) > noise).sum()), *means


def coefficients(luma: "np.ndarray") -> "np.ndarray":
    """The cosine transform (DCT-II, not normalised, times 2**28) at its lowest frequencies but 0.

    Args:
        luma: int64 (64, 64).

    Returns:
        int64 (256,), in the order of the bits.
    """
    cosines = _cosines()
    down, right = _order()
    return (cosines @ luma @ cosines.T)[down, right]


@cache
def _cosines() -> "np.ndarray":
    import numpy as np

    steps = [[(2 * x + 1) * u for x in range(_SIDE_PX)] for u in range(_NUM_FREQUENCIES)]
    waves = [[round(_ONE * math.cos(math.pi * s / (2 * _SIDE_PX))) for s in row] for row in steps]
    return np.array(waves, np.int64)


@cache
def _order() -> "tuple[np.ndarray, np.ndarray]":
    """Frequencies of rows (down) and of columns (to the right) of each bit: the lowest 64 in eight groups of every
    eighth one, as neighbours are alike and an index takes bits together; then by their sum."""
    import numpy as np

    pairs = [(u, v) for u in range(_NUM_FREQUENCIES) for v in range(_NUM_FREQUENCIES) if u or v]
    pairs.sort(key=lambda pair: (sum(pair), pair))
    low = [pair for group in range(8) for pair in pairs[group:_LOW_BITS:8]]
    down, right = np.array([*low, *pairs[_LOW_BITS:_BITS]]).T
    return down, right


SPEC = Scorer(
    name="perceptual_hash",
    section=PerceptualHash,
    columns={
        "phash": "String",
        "phash_mirrored": "String",
        "phash_detail": "Int32",
        "phash_cb": "Int32",
        "phash_cr": "Int32",
    },
    reads="pixels",
    needs=(),
    score=score,
)
