"""Which of many unit vectors are near an earlier one by their cosine: exact, by comparing with all that are kept.

Vectors are rounded to whole numbers, so small that float32 holds every sum of their products: cosines are the same
on every processor, in whatever order a library of matrices adds.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Of a vector of length 1. Sums of products stay below its square, and float32 holds whole numbers up to 2**24.
SCALE = 2048
_BLOCK, _KEPT = 1024, 16384


def rounded(vectors: "np.ndarray") -> "np.ndarray":
    """float32 (n, dimensions) of length 1 -> int16 of length `SCALE`."""
    import numpy as np

    return np.rint(vectors * np.float32(SCALE)).astype(np.int16)


def first_alike(vectors: "np.ndarray", min_cosine: float) -> "np.ndarray":
    """For each vector the first kept one whose cosine with it is at least `min_cosine`, or itself.

    In their order vectors are kept unless they are near one that is kept already. It compares each with all of
    these: the time is that of a product of two matrices, n x dimensions x kept.

    Args:
        vectors: int16 (n, dimensions), as `rounded` gives them.

    Returns:
        int64 (n,), indices.
    """
    import numpy as np

    first, least = np.arange(len(vectors)), min_cosine * SCALE**2
    kept = np.empty(0, np.int64)
    for begin in range(0, len(vectors), _BLOCK):
        left = np.arange(begin, min(begin + _BLOCK, len(vectors)))
        for start in range(0, len(kept), _KEPT):
            some = kept[start : start + _KEPT]
            is_near = _products(vectors[left], vectors[some]) >= least
            is_found = is_near.any(axis=1)
            first[left[is_found]] = some[is_near[is_found].argmax(axis=1)]
            left = left[~is_found]
        is_near = _products(vectors[left], vectors[left]) >= least
        for place, one in enumerate(left):
            if first[one] == one:
                after = left[place + 1 :][is_near[place, place + 1 :]]
                first[after[first[after] == after]] = one
        kept = np.append(kept, left[first[left] == left])
    return first


def _products(one: "np.ndarray", other: "np.ndarray") -> "np.ndarray":
    import numpy as np

    product: np.ndarray = one.astype(np.float32) @ other.astype(np.float32).T
    return product
