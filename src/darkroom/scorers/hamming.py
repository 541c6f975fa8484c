"""Which of many hashes are near an earlier one: exact in Hamming distance, without comparing all with all.

Multi-index hashing (Norouzi, Punjani, Fleet 2012) by the pigeonhole principle: of m blocks of bits, hashes that
differ in r bits agree in m - r blocks at least. So for every choice of m - r blocks hashes are sorted by what
stands in these, and those that agree there are compared. What is sorted lies in shards on disk.
"""

import math
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.scorers.shards import Shards

if TYPE_CHECKING:
    import numpy as np

BITS = 64
# Hashes up to this number are compared however alike they are.
_FEW = 4096
# Hashes, and pairs, that are worked at together; of a shard at most as many as this many times that.
_CHUNK, _MOST_CHUNKS = 1 << 18, 32
# An odd number: times it, modulo a power of two, every key becomes another one, whose first bits are mixed.
_ODD = 0x9E3779B97F4A7C15
# Seconds that an entry costs which is sorted, and a pair that is compared, relative to each other.
_SORTED, _COMPARED = 0.2, 1.0
# What an entry that is sorted stands for.
_KIND_BITS = 2
_EARLIER, _PLAIN, _MIRRORED = range(3)


@dataclass(frozen=True)
class Hashes:
    """Hashes of pictures, uint64 (n, words), in memory or mapped from files; the first word is what `max_low_bits`
    is about.

    mirrored: those of the same pictures mirrored.
    colours: int16 (n, 2).
    """

    plain: "np.ndarray"
    mirrored: "np.ndarray"
    colours: "np.ndarray"

    def of(self, index: "np.ndarray | slice") -> "Hashes":
        return Hashes(self.plain[index], self.mirrored[index], self.colours[index])


@dataclass(frozen=True)
class Near:
    """A hash is near an earlier one where it, or that of its mirrored picture, differs from it in at most
    `max_low_bits` of the first word and in at most `max_bits` of all, and no colour by more than `max_colour`."""

    max_low_bits: int
    max_bits: int
    max_colour: int


def first_near(hashes: Hashes, near: Near, num_threads: int = 1) -> "np.ndarray":
    """For each hash the first kept one that it is near to, or itself.

    In their order hashes are kept unless they are near one that is kept already; no two that are kept are near
    each other, and what later hashes are does not matter.

    Beside the hashes this takes 16 bytes of memory for each and 8 for each pair that is found, and some hundred
    megabytes; and in the folder for temporary files (TMPDIR) 16 bytes a hash and thread.

    Args:
        hashes: in their order, fewer than 2**30.
        num_threads: choices of blocks that are worked at together; the result does not depend on it.

    Returns:
        int32 (n,), indices.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        same_as = _first_of_equal(hashes, Path(folder))
        first = np.arange(len(same_as), dtype=np.int32)
        distinct = np.nonzero(same_as == first)[0].astype(np.int32)
        _Index(hashes, near, num_threads, Path(folder)).resolve(first, distinct)
    return first[same_as]


def first_near_of(references: Hashes, hashes: Hashes, near: Near, num_threads: int = 1) -> "np.ndarray":
    """For each hash the first of `references`, in their order, that it is near to; -1 where there is none.

    Returns:
        int32 (n,), indices of references.
    """
    import numpy as np

    num, end = len(references.plain), len(references.plain) + len(hashes.plain)
    if not num or not len(hashes.plain):
        return np.full(end - num, -1, np.int32)
    both = Hashes(
        np.concatenate([references.plain, hashes.plain]),
        np.concatenate([references.mirrored, hashes.mirrored]),
        np.concatenate([references.colours, hashes.colours]),
    )
    first = np.arange(end, dtype=np.int32)
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        index = _Index(both, near, num_threads, Path(folder))
        index.drop_near(first, first[:num].copy(), first[num:].copy())
    return np.where(first[num:] < num, first[num:], np.int32(-1))


def _first_of_equal(hashes: Hashes, folder: Path) -> "np.ndarray":
    """For each hash the first of those that are equal to it, int32 (n,).

    Equal ones are found by a checksum; of hashes whose checksum alone is equal, some are not compared.
    """
    import numpy as np

    num = len(hashes.plain)
    of, index_bits = np.arange(num, dtype=np.int32), np.uint64(_index_bits(num))
    with Shards(num, 64, folder) as shards:
        for begin in range(0, num, _CHUNK):
            some = hashes.of(slice(begin, begin + _CHUNK))
            checksum = np.zeros(len(some.plain), np.uint64)
            for word in (*some.plain.T, *some.mirrored.T, *some.colours.T.astype(np.uint64)):
                checksum = (checksum ^ word) * np.uint64(_ODD)
                checksum ^= checksum >> np.uint64(29)
            at = np.arange(begin, begin + len(checksum), dtype=np.uint64)
            shards.add(checksum >> index_bits << index_bits | at)
        for entries in shards:
            found = _with_neighbours(entries, int(index_bits))
            index = (found & ((np.uint64(1) << index_bits) - np.uint64(1))).astype(np.int64)
            first = index[_run_starts(found >> index_bits)]
            one, other = hashes.of(index), hashes.of(first)
            is_same = (one.plain == other.plain).all(axis=1)
            is_same &= (one.mirrored == other.mirrored).all(axis=1)
            is_same &= (one.colours == other.colours).all(axis=1)
            of[index[is_same]] = first[is_same]
    return of


class _Index:
    """`resolve` finds the kept ones among hashes that are all different."""

    def __init__(self, hashes: Hashes, near: Near, num_threads: int, folder: Path) -> None:
        self.hashes, self.near, self.num_threads, self.folder = hashes, near, num_threads, folder
        self.index_bits = _index_bits(len(hashes.plain))
        self.blocks = _blocks(near.max_low_bits, len(hashes.plain))
        self.choices = list(combinations(range(len(self.blocks)), len(self.blocks) - near.max_low_bits))

    def resolve(self, first: "np.ndarray", items: "np.ndarray") -> None:
        """Set `first` of items, ascending indices of which none is near a kept one before them.

        Where too many agree in blocks, as where very many pictures are alike, the later half is first compared
        with what is kept of the earlier one, which leaves little of it.
        """
        pairs = self._pairs(items, items)
        if pairs is not None:
            _keep_greedily(first, items, *pairs)
            return
        earlier, later = _halves(items)
        self.resolve(first, earlier)
        self.drop_near(first, earlier[first[earlier] == earlier], later)
        self.resolve(first, later[first[later] == later])

    def drop_near(self, first: "np.ndarray", kept: "np.ndarray", items: "np.ndarray") -> None:
        """Set `first` of the items that are near kept ones, all of which come before them."""
        import numpy as np

        pairs = self._pairs(kept, items)
        if pairs is not None:
            np.minimum.at(first, pairs[1], pairs[0])
        elif len(kept) > len(items):
            for half in _halves(kept):
                self.drop_near(first, half, items[first[items] == items])
        else:
            for half in _halves(items):
                self.drop_near(first, kept, half)

    def _pairs(self, earlier: "np.ndarray", items: "np.ndarray") -> "tuple[np.ndarray, np.ndarray] | None":
        """Pairs (i of earlier, j of items) of which j is near i < j, each once or twice; None, where too many
        agree in blocks to compare them all."""
        import numpy as np

        few = max(len(earlier), len(items)) <= _FEW
        budget = None if few else 16 * len(items) + _FEW * _FEW
        found: list[tuple[np.ndarray, np.ndarray]] = []
        with ThreadPoolExecutor(self.num_threads) as pool:
            for start in range(0, len(self.choices), self.num_threads):
                choices = self.choices[start : start + self.num_threads]
                for pairs in pool.map(lambda choice: self._agreeing(choice, earlier, items, budget), choices):
                    if pairs is None:
                        return None
                    found.append(pairs)
                if budget is not None and sum(len(i) for i, _ in found) > budget:
                    return None
        return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])

    def _agreeing(
        self, choice: tuple[int, ...], earlier: "np.ndarray", items: "np.ndarray", budget: int | None
    ) -> "tuple[np.ndarray, np.ndarray] | None":
        """`_pairs` of those that agree in the blocks of a choice, and in those of no choice before it."""
        import numpy as np

        # What stands in the blocks, then the index, then the kind: sorted, each item stands behind those before it
        # that it is compared with.
        among_themselves = items is earlier
        of_kinds = [(earlier, _EARLIER, self.hashes.plain), (items, _MIRRORED, self.hashes.mirrored)]
        if not among_themselves:
            of_kinds.append((items, _PLAIN, self.hashes.plain))
        bits = sum(self.blocks[block][1] for block in choice) + self.index_bits + _KIND_BITS
        found = [(np.empty(0, np.int32),) * 2]
        with Shards(sum(len(of) for of, _, _ in of_kinds), bits, self.folder) as shards:
            for of, kind, words in of_kinds:
                for begin in range(0, len(of), _CHUNK):
                    shards.add(self._entries(choice, words, of[begin : begin + _CHUNK], kind))
            for entries in shards:
                if budget is not None and len(entries) > _MOST_CHUNKS * _CHUNK:
                    return None
                pairs, num_compared = self._in_shard(choice, entries, among_themselves, budget)
                if pairs is None:
                    return None
                found.append(pairs)
                budget = None if budget is None else budget - num_compared
        return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])

    def _in_shard(
        self, choice: tuple[int, ...], entries: "np.ndarray", among_themselves: bool, budget: int | None
    ) -> "tuple[tuple[np.ndarray, np.ndarray] | None, int]":
        """(`_agreeing` of sorted entries, how many were compared)."""
        import numpy as np

        entries = _with_neighbours(entries, self.index_bits + _KIND_BITS)
        kind = (entries & np.uint64((1 << _KIND_BITS) - 1)).astype(np.uint8)
        entries >>= np.uint64(_KIND_BITS)
        index = (entries & np.uint64((1 << self.index_bits) - 1)).astype(np.int32)
        entries >>= np.uint64(self.index_bits)
        is_target = kind == _EARLIER
        num_before = np.cumsum(is_target) - is_target
        begin = num_before[_run_starts(entries)]
        counts = num_before - begin
        if not among_themselves:
            counts[is_target] = 0
        places = np.nonzero(counts)[0]
        num_compared = int(counts.sum())
        if budget is not None and num_compared > budget:
            return None, num_compared
        targets, counts = index[is_target], counts[places]
        found = [(np.empty(0, np.int32),) * 2]
        for some, many in _chunks(places, counts):
            found.append(
                self._compared(choice, targets, index[some], kind[some] == _MIRRORED, begin[some], many)
            )
        return (np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])), num_compared

    def _entries(
        self, choice: tuple[int, ...], words: "np.ndarray", of: "np.ndarray", kind: int
    ) -> "np.ndarray":
        import numpy as np

        low, key = words[of, 0], np.zeros(len(of), np.uint64)
        for block in choice:
            shift, width = self.blocks[block]
            key <<= np.uint64(width)
            key |= (low >> np.uint64(shift)) & np.uint64((1 << width) - 1)
        key *= np.uint64(_ODD)
        key &= np.uint64((1 << sum(self.blocks[block][1] for block in choice)) - 1)
        key <<= np.uint64(self.index_bits + _KIND_BITS)
        key |= (of.astype(np.uint64) << np.uint64(_KIND_BITS)) | np.uint64(kind)
        return key

    def _compared(
        self,
        choice: tuple[int, ...],
        targets: "np.ndarray",
        items: "np.ndarray",
        is_mirrored: "np.ndarray",
        begin: "np.ndarray",
        counts: "np.ndarray",
    ) -> "tuple[np.ndarray, np.ndarray]":
        """Of items, each against `counts` targets from `begin` on, the pairs that are near."""
        import numpy as np

        ends = np.cumsum(counts)
        i = targets[np.arange(ends[-1]) - np.repeat(ends - counts - begin, counts)]
        j, mirrored = np.repeat(items, counts), np.repeat(is_mirrored, counts)
        plain, turned = self.hashes.plain, self.hashes.mirrored
        low = np.where(mirrored, turned[j, 0], plain[j, 0])
        low ^= plain[i, 0]
        is_near = (np.bitwise_count(low) <= self.near.max_low_bits) & (i < j)
        for block in set(range(max(choice, default=0))) - set(choice):
            # Where they agree here too, an earlier choice has found them.
            shift, width = self.blocks[block]
            is_near &= (low & np.uint64(((1 << width) - 1) << shift)) != 0
        i, j, mirrored = i[is_near], j[is_near], mirrored[is_near]
        words = np.where(mirrored[:, None], turned[j], plain[j]) ^ plain[i]
        is_near = np.bitwise_count(words).sum(axis=1, dtype=np.int64) <= self.near.max_bits
        off = abs(self.hashes.colours[i] - self.hashes.colours[j])
        is_near &= (off <= self.near.max_colour).all(axis=1)
        return i[is_near], j[is_near]


def _blocks(radius: int, num: int) -> list[tuple[int, int]]:
    """(lowest bit, width) of each block: as many as cost least, if the hashes of that number are well mixed."""

    def cost(count: int) -> float:
        agree = BITS * (count - radius) // count
        return math.comb(count, radius) * num * (2 * _SORTED + 1.5 * num * 2.0**-agree * _COMPARED)

    allowed = [
        count
        for count in range(radius + 1, BITS + 1)
        if -(-BITS // count) * (count - radius) + _index_bits(num) + _KIND_BITS <= BITS
    ]
    count = min(allowed, key=cost)
    edges = [BITS * block // count for block in range(count + 1)]
    return [(low, high - low) for low, high in pairwise(edges)]


def _index_bits(num: int) -> int:
    return max(1, num.bit_length())


def _run_starts(keys: "np.ndarray") -> "np.ndarray":
    """For each of sorted keys the place of the first that is equal to it."""
    import numpy as np

    is_start = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    return np.maximum.accumulate(np.where(is_start, np.arange(len(keys)), 0))


def _with_neighbours(entries: "np.ndarray", shift: int) -> "np.ndarray":
    """Of sorted entries those that agree with one beside them in all but the last `shift` bits."""
    import numpy as np

    keys = entries >> np.uint64(shift)
    is_same = keys[1:] == keys[:-1]
    wanted = np.zeros(len(entries), bool)
    wanted[1:] = is_same
    wanted[:-1] |= is_same
    return entries[wanted]


def _chunks(places: "np.ndarray", counts: "np.ndarray") -> "Iterator[tuple[np.ndarray, np.ndarray]]":
    """The two, cut so that the counts of a piece are about `_CHUNK`."""
    import numpy as np

    ends = np.cumsum(counts)
    start = 0
    while start < len(places):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        yield places[start:stop], counts[start:stop]
        start = stop


def _keep_greedily(first: "np.ndarray", items: "np.ndarray", i: "np.ndarray", j: "np.ndarray") -> None:
    """Set `first` of the items by all their pairs, of which j is near i < j."""
    import numpy as np

    at_i, at_j = np.searchsorted(items, i), np.searchsorted(items, j)
    is_open, is_kept = np.ones(len(items), bool), np.zeros(len(items), bool)
    left_i, left_j = at_i, at_j
    while is_open.any():
        # What is near no open one before it is kept; what is near that is not.
        kept_now = is_open.copy()
        kept_now[left_j] = False
        is_kept |= kept_now
        is_open &= ~kept_now
        is_open[left_j[kept_now[left_i]]] = False
        both = is_open[left_i] & is_open[left_j]
        left_i, left_j = left_i[both], left_j[both]
    of_kept = is_kept[at_i]
    np.minimum.at(first, j[of_kept], i[of_kept])


def _halves(of: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    return of[: len(of) // 2], of[len(of) // 2 :]
