"""How far a part is, for the log."""

import logging
import time

_SECONDS_BETWEEN_LINES = 10.0
_log = logging.getLogger(__name__)


class Progress:
    """A line in the log now and then: how far, how fast, how much longer.

    Args:
        what: is made.
    """

    def __init__(self, what: str = "captions") -> None:
        self._what = what
        self._total = self._done = 0
        self._begin = self._last = time.monotonic()

    def expect(self, number: int) -> None:
        """Say that so many more are asked for."""
        self._total += number

    def add(self, number: int) -> None:
        """Say that so many more are there."""
        self._done += number
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        self._last, rate = now, self._done / max(now - self._begin, 1e-9)
        left = (self._total - self._done) / rate
        what = self._what
        _log.info("%d/%d %s, %.0f %s/s, %.0f s left", self._done, self._total, what, rate, what, left)
