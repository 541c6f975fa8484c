"""Several readers of one stream, each written as if it were alone: it runs once, and is never held whole."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from queue import SimpleQueue
from typing import Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")
# Items in memory, beside those that readers keep.
_BLOCK = 16


class _Stopped(BaseException):
    """Ends a reader whose stream is given up."""


def read_in_one_pass(
    items: Iterable[_T], readers: Sequence[Callable[[Iterator[_T]], _R]]
) -> list[_R | Exception]:
    """Give all items to every reader.

    Readers take turns, block after block, and only one works at a time: each has a thread for its place in its
    own loop, none for speed.

    Returns:
        For each reader what it returned, or the error that it ended with; the others go on.
    """
    turns = [_Turns(read) for read in readers]
    stream = iter(items)
    try:
        for turn in turns:
            turn.start()
        while any(turn.is_reading for turn in turns):
            block = list(islice(stream, _BLOCK))
            for turn in turns:
                turn.give(block)
    finally:
        for turn in turns:
            turn.give(None)
    return [turn.ended_with() for turn in turns]


class _Turns(Generic[_T, _R]):
    """A reader that works until it asks for more than it was given."""

    def __init__(self, read: Callable[[Iterator[_T]], _R]) -> None:
        self._read = read
        self._blocks: SimpleQueue[list[_T] | None] = SimpleQueue()
        self._paused: SimpleQueue[None] = SimpleQueue()
        self._result: list[_R | BaseException] = []
        # A process that is told to end waits for no reader.
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def is_reading(self) -> bool:
        return not self._result

    def start(self) -> None:
        self._thread.start()
        self._paused.get()

    def give(self, block: list[_T] | None) -> None:
        """The next items; none at their end, and None where there will be no end."""
        if self._thread.ident is not None and self.is_reading:
            self._blocks.put(block)
            self._paused.get()

    def ended_with(self) -> _R | Exception:
        result = self._result[0]
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result
        return result

    def _run(self) -> None:
        try:
            self._result.append(self._read(self._items()))
        except BaseException as error:
            self._result.append(error)
        finally:
            self._paused.put(None)

    def _items(self) -> Iterator[_T]:
        while True:
            self._paused.put(None)
            block = self._blocks.get()
            if block is None:
                raise _Stopped
            if not block:
                return
            yield from block
