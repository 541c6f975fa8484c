"""Memory of batches, used again: the system clears fresh memory, which costs as much as filling it."""

import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

# The loader makes one while some are ready and one is trained on.
NUM_KEPT = 6
_ALIGNED = 64
_ROUNDED = 1 << 21  # a huge page


class BatchMemory:
    """Gives memory for batches, and takes it back when nobody holds any of its arrays. Threads may share it."""

    def __init__(self) -> None:
        self._free: list[npt.NDArray[np.uint8]] = []
        # Where the last holder lets go, on any thread and in the middle of anything.
        self._returned: deque[npt.NDArray[np.uint8]] = deque()
        self._lock = threading.Lock()

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """(size,) bytes that hold anything; views of them, and tensors on these, keep them."""
        with self._lock:
            while self._returned:
                self._free.append(self._returned.popleft())
            self._free = sorted(self._free, key=len)[-NUM_KEPT:]
            fitting = next((place for place, memory in enumerate(self._free) if len(memory) >= size), None)
            if fitting is None:
                memory = np.empty(-(-max(size, 1) // _ROUNDED) * _ROUNDED, np.uint8)
            else:
                memory = self._free.pop(fitting)
        # Its base is no array, so views of it hold it and not what lies behind.
        lent = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(lent, self._returned.append, memory).atexit = False
        return lent[:size]

    def lay_out(self, shapes: Sequence[tuple[int, ...]], dtype: Any) -> "LaidOut":
        """One array of each shape, one after another in one piece of memory."""
        sizes = [prod(shape) * np.dtype(dtype).itemsize for shape in shapes]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // _ALIGNED) * _ALIGNED)
        memory = self.take(starts.pop())
        arrays = [
            memory[start : start + size].view(dtype).reshape(shape)
            for start, size, shape in zip(starts, sizes, shapes, strict=True)
        ]
        return LaidOut(memory.data, starts, arrays)


@dataclass(frozen=True)
class LaidOut:
    """Arrays in one piece of memory, and the byte where each begins."""

    memory: memoryview
    starts: Sequence[int]
    arrays: Sequence[npt.NDArray[Any]]
