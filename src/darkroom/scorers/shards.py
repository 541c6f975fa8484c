"""Many numbers sorted piece by piece: they lie in a file, and come back in shards, each of which holds all numbers
that begin with the same bits."""

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy as np

# Numbers of a shard: about what the caches of a processor hold; more only where there would be too many shards.
_SHARD, _MAX_SHARDS = 1 << 18, 1 << 10
# Fewer numbers are not worth a file.
_IN_MEMORY = 1 << 20


class Shards:
    """Numbers that are added in any order and read by shards, in the order of their first bits.

    Args:
        num: how many there will be.
        bits: of how many bits they are, at most 64, the first of which should be well mixed.
        folder: for a file, which has no name there.
    """

    def __init__(self, num: int, bits: int, folder: Path) -> None:
        import numpy as np

        wanted = min(_MAX_SHARDS, max(1, num // _SHARD)) if num > _IN_MEMORY else 1
        shard_bits = min(bits, math.ceil(math.log2(wanted)))
        self._edges = np.arange(1, 1 << shard_bits, dtype=np.uint64) << np.uint64(bits - shard_bits)
        self._file, self._num = None, 0
        if shard_bits:
            self._file, path = tempfile.mkstemp(dir=folder)
            os.unlink(path)
        self._runs: list[np.ndarray] = []
        self._begin: list[np.ndarray] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)

    def add(self, numbers: "np.ndarray") -> None:
        """Add uint64 (n,), which are sorted in place."""
        import numpy as np

        numbers.sort()
        if self._file is None:
            self._runs.append(numbers)
            return
        bounds = np.concatenate([[0], np.searchsorted(numbers, self._edges), [len(numbers)]])
        self._begin.append(self._num + bounds)
        self._num += len(numbers)
        data = numbers.data.cast("B")
        while data:
            data = data[os.write(self._file, data) :]

    def __iter__(self) -> "Iterator[np.ndarray]":
        """Each shard, sorted; some may be empty."""
        import numpy as np

        for shard in range(len(self._edges) + 1):
            runs = self._runs if self._file is None else [self._read(begin, shard) for begin in self._begin]
            numbers = np.concatenate([np.empty(0, np.uint64), *runs])
            if len(runs) > 1:
                numbers.sort()
            yield numbers

    def _read(self, begin: "np.ndarray", shard: int) -> "np.ndarray":
        import numpy as np

        assert self._file is not None
        first, num = int(begin[shard]), int(begin[shard + 1] - begin[shard])
        return np.frombuffer(os.pread(self._file, 8 * num, 8 * first), np.uint64)
