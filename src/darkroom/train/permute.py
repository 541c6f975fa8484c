"""Orders that are computed place by place: no list of what comes when, however many things there are."""

from math import isqrt

import numpy as np
import numpy.typing as npt

from darkroom.train.random import fold

UInts = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
_NUM_ROUNDS = 8
# So few are sorted: of few things a network does not give every order as often.
_FEW = 256


def permuted(keys: UInts, num: int, places: Ints) -> Ints:
    """What comes at each of B places (B,) below `num`, where things 0 to `num` - 1 are in the order of a key (B,).

    A Feistel network in mixed radix: a place is a pair (i div b, i mod b) with a b >= num, and by turns one half
    moves round by a random number that the other half gives. What lands beyond `num` goes on until it does not
    (cycle walking): a and b are about the root of `num`, so few do.
    """
    if num <= _FEW:
        unique, which = np.unique(keys, return_inverse=True)
        orders = np.argsort(fold(unique[:, None], np.arange(num, dtype=np.uint64)), axis=1, kind="stable")
        return np.asarray(orders[which.reshape(-1), places], np.int64)
    high = isqrt(num - 1) + 1
    sides = np.uint64(high), np.uint64(-(-num // high))
    found = _rounds(keys, places.astype(np.uint64), *sides)
    while (out := np.flatnonzero(found >= num)).size:
        found[out] = _rounds(keys[out], found[out], *sides)
    return found.astype(np.int64)


def _rounds(keys: UInts, places: UInts, high: np.uint64, low: np.uint64) -> UInts:
    one, other = np.divmod(places, low)
    for turn in range(_NUM_ROUNDS):
        key = keys ^ np.uint64(turn)
        if turn % 2:
            other = (other + fold(key, one) % low) % low
        else:
            one = (one + fold(key, other) % high) % high
    return np.asarray(one * low + other)
