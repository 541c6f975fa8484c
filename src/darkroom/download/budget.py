"""How many bytes of bodies may be in memory together, whatever servers send and however slowly pictures decode."""

import threading
from types import TracebackType


class ByteBudget:
    """Bytes that threads share. Whoever asks for more than there is waits.

    All might wait for each other, each with half a body. So one of them at a time, the first that had to wait, may
    go beyond the total until it gives all its bytes back: together they hold at most `total` and one body.

    Args:
        total: bytes.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._taken = 0
        self._privileged: Share | None = None
        self._changed = threading.Condition()

    def share(self) -> "Share":
        """What one body takes; nothing yet."""
        return Share(self)

    def take(self, share: "Share", number: int) -> None:
        """Wait for `number` bytes."""
        with self._changed:
            while self._taken + number > self._total and self._privileged is not share:
                if self._privileged is None:
                    self._privileged = share
                else:
                    self._changed.wait()
            self._taken += number

    def give_back(self, share: "Share", number: int) -> None:
        """Return all that a share has taken."""
        with self._changed:
            self._taken -= number
            if self._privileged is share:
                self._privileged = None
            self._changed.notify_all()


class Share:
    """The bytes of one body, given back at the end of a `with` block."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._number = 0

    def take(self, number: int) -> None:
        """Wait for `number` bytes more."""
        self._budget.take(self, number)
        self._number += number

    def close(self) -> None:
        """Give all bytes back."""
        number, self._number = self._number, 0
        self._budget.give_back(self, number)

    def __enter__(self) -> "Share":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()
