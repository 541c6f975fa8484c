"""Random numbers of a sample as a function of (seed, uid, visit), whoever computes them and when.

A counter-based generator: number i of a stream with key k is the SplitMix64 output for state
k + i x gamma (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, with
Stafford's 13th mixer). Keys come from folding (seed, stream, uid, visit) through the same mixer. All
samples of a batch are computed at once, and none depends on which others are there.
"""

import numpy as np
import numpy.typing as npt

from darkroom.train.normal_pairs import scaled_pairs

UInts = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]

NOISE, TIMESTEP, DROPOUT, CAPTION, ENCODER_DROPOUT, TAGS = 11, 12, 13, 14, 15, 16
HELD_OUT, VALIDATION_NOISE, VALIDATION_LEVEL, VALIDATION_CAPTION = 17, 18, 19, 20
# Of an autoencoder: the order of an epoch, a picture's crop, and the draw from its posterior.
ORDER, CROP, POSTERIOR = 21, 22, 23

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
# Normal numbers of 64 bits, and how many words are made at once, so that all stays near the processor.
_PER_WORD, _CHUNK_WORDS = 8, 4096
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


def normal(keys: UInts, num: int, out: Floats | None = None) -> Floats:
    """`num` standard normal numbers for each of B keys: (B, num) float32, the same bits wherever they are made.

    Every 64 bits are four places in a table of normal pairs (`train.normal_pairs`), and pair i of a sample and
    pair i of its second half give their sum and their difference, over the square root of 2: of four numbers all
    2^32 are distinct up to signs and order, and their distribution is within 1e-5 of the normal. No number lies
    further out than 6.14. There is no function in it that two machines may round differently.

    out: contiguous memory for them, (B, num).
    """
    book, words = scaled_pairs(), -(-num // _PER_WORD)
    out = np.empty((len(keys), num), np.float32) if out is None else out
    counter = np.arange(1, words + 1, dtype=np.uint64) * _GAMMA
    step = max(1, _CHUNK_WORDS // words)
    places = np.empty((step, 4 * words), np.intp)
    pairs = np.empty((step, 4 * words), np.complex64)
    made = np.empty((step, _PER_WORD * words), np.float32)
    for first in range(0, len(keys), step):
        chosen = keys[first : first + step]
        end, num_chosen = first + len(chosen), len(chosen)
        bits = _mix_in_place(chosen[:, None] + counter)
        np.copyto(places[:num_chosen], bits.astype("<u8", copy=False).view("<u2"))
        found = np.take(book, places[:num_chosen], out=pairs[:num_chosen], mode="clip").view(np.float32)
        one, other = found[:, : 4 * words], found[:, 4 * words :]
        whole = out[first:end] if num == made.shape[1] else made[:num_chosen]
        np.add(one, other, out=whole[:, : 4 * words])
        np.subtract(one, other, out=whole[:, 4 * words :])
        if num < made.shape[1]:
            out[first:end] = whole[:, :num]
    return out
