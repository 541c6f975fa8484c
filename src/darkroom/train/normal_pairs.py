"""A table of pairs of normal numbers, to be chosen from by 16 random bits.

The points lie on a spiral: one is as likely as another, their radii are the quantiles of a normal pair's, and from
one to the next it turns by the golden section of a quarter. Each comes with its turns by a quarter, so that means
and correlations are zero to the bit. It is made with what IEEE 754 rounds in one way only (sums, products,
quotients, roots), and is the same everywhere.
"""

from functools import cache
from math import fsum
from typing import Any

import numpy as np
import numpy.typing as npt

_NUM_TURNED = 1 << 14
# cos and sin of pi / 10, where the spiral begins, and of pi / 2 over the golden ratio.
_BEGIN = 0.95105651629515357, 0.30901699437494742
_TURN = 0.56463488641755031, 0.82534080538904653
_LN_2 = 0.69314718055994531
Doubles = npt.NDArray[np.float64]


@cache
def scaled_pairs() -> npt.NDArray[np.complex64]:
    """The 65536 pairs over the square root of 2: real and imaginary parts have variance 1/2."""
    squares = -_log((np.arange(_NUM_TURNED) + 0.5) / _NUM_TURNED)
    squares *= _NUM_TURNED / fsum(squares.tolist())
    cosine, sine = _turned(_NUM_TURNED)
    radius = np.sqrt(squares)
    x, y = radius * cosine, radius * sine
    pairs = np.empty((4, _NUM_TURNED, 2), np.float32)
    for quarter, (first, second) in enumerate(((x, y), (-y, x), (-x, -y), (y, -x))):
        pairs[quarter, :, 0], pairs[quarter, :, 1] = first, second
    found: Any = pairs.view(np.complex64).reshape(-1)
    found.flags.writeable = False
    return found


def _log(values: Doubles) -> Doubles:
    """Natural logarithm, to a unit or two of the last place: 2 artanh((m - 1) / (m + 1)) + e ln 2 of m 2^e."""
    mantissa, exponent = np.frexp(values)
    ratio = (mantissa - 1) / (mantissa + 1)
    square, series = ratio * ratio, np.full_like(ratio, 1 / 41)
    for power in range(39, 0, -2):
        series = series * square + 1 / power
    return 2 * ratio * series + exponent * _LN_2


def _turned(num: int) -> tuple[Doubles, Doubles]:
    """cos and sin of the beginning and 0, 1, ... turns more; the known ones are turned until there are `num`."""
    cosine, sine = np.empty(num), np.empty(num)
    cosine[0], sine[0] = _BEGIN
    (c, s), known = _TURN, 1
    while known < num:
        of, to = slice(0, known), slice(known, 2 * known)
        cosine[to] = cosine[of] * c - sine[of] * s
        sine[to] = cosine[of] * s + sine[of] * c
        c, s, known = c * c - s * s, 2 * c * s, 2 * known
    return cosine, sine
