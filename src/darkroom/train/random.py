"""Random numbers of a sample as a function of (seed, uid, visit), whoever computes them and when.

A counter-based generator: number i of a stream with key k is the SplitMix64 output for state
k + i x gamma (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, with
Stafford's 13th mixer). Keys come from folding (seed, stream, uid, visit) through the same mixer. All
samples of a batch are computed at once, and none depends on which others are there.
"""

import numpy as np
import numpy.typing as npt

UInts = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]

NOISE, TIMESTEP, DROPOUT, CAPTION, ENCODER_DROPOUT, TAGS = 11, 12, 13, 14, 15, 16

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_A, _MIX_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _mix_in_place(state: UInts) -> UInts:
    shifted = state >> np.uint64(30)
    state ^= shifted
    state *= _MIX_A
    np.right_shift(state, np.uint64(27), out=shifted)
    state ^= shifted
    state *= _MIX_B
    np.right_shift(state, np.uint64(31), out=shifted)
    state ^= shifted
    return state


def fold(key: UInts | np.uint64, value: UInts | np.uint64) -> UInts:
    """A new key out of a key and a value; arrays are broadcast. Returns uint64 of at least 1 axis."""
    state = np.atleast_1d(np.asarray(value, np.uint64)) * _GAMMA + _GAMMA
    return _mix_in_place(_mix_in_place(state) ^ np.asarray(key, np.uint64))


def mix_seed(seed: int, stream: int) -> np.uint64:
    """The key of a stream of numbers of a run."""
    return np.uint64(fold(fold(np.uint64(0x6461726B), np.uint64(seed)), np.uint64(stream))[0])


def sample_keys(seed: int, stream: int, uids: UInts, visits: npt.NDArray[np.int64]) -> UInts:
    """One key for each of B samples: `uids` (B, 2) uint64, `visits` (B,). Returns (B,) uint64."""
    key = fold(fold(mix_seed(seed, stream), uids[:, 0]), uids[:, 1])
    return fold(key, visits.astype(np.uint64))


def uniform(keys: UInts) -> npt.NDArray[np.float64]:
    """One number in [0, 1) for each key: (B,) float64, multiples of 2^-53."""
    bits: UInts = _mix_in_place(keys + _GAMMA)
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53)


def uniforms(keys: UInts, num: int) -> npt.NDArray[np.float64]:
    """`num` numbers in [0, 1) for each of B keys: (B, num) float64; the first is `uniform`'s."""
    counter = np.arange(num, dtype=np.uint64) * _GAMMA
    return uniform((keys[:, None] + counter[None, :]).ravel()).reshape(len(keys), num)


def normal(keys: UInts, num: int) -> Floats:
    """`num` standard normal numbers for each of B keys: (B, num) float32, by Box and Muller.

    The least uniform number is 2^-33, so no number lies further out than 6.8.
    """
    pairs = -(-num // 2)
    counter = np.arange(1, pairs + 1, dtype=np.uint64) * _GAMMA
    bits = _mix_in_place(keys[:, None] + counter[None, :])
    halves = bits.astype("<u8", copy=False).view("<u4").reshape(len(keys), pairs, 2)
    radius = (halves[..., 1].astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle = halves[..., 0].astype(np.float32) * np.float32(2 * np.pi * 2.0**-32)
    out = np.empty((len(keys), 2 * pairs), np.float32)
    np.multiply(np.cos(angle), radius, out=out[:, :pairs])
    np.multiply(np.sin(angle), radius, out=out[:, pairs:])
    return np.ascontiguousarray(out[:, :num])
