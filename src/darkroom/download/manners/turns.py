"""The turn that a thread has at a host: one at a time, handed on from request to request."""

import contextlib
import threading
import time
from collections.abc import Iterator

from darkroom.download.manners.hosts import Hosts
from darkroom.download.status import HOST_BUSY, FetchError

BUSY = "the host has asked for a pause longer than total_timeout_s; it was left alone"
LONGEST_S = 3_600.0
"""For a turn where many redirects lead to one host, at its pace."""


class Turns:
    """Turns of threads, each of which holds one at most, so that redirects never make threads wait in a ring.

    Args:
        hosts: who else asks.
        patience_s: the longest pause of a host that is waited for, seconds.
    """

    def __init__(self, hosts: Hosts, patience_s: float) -> None:
        self._hosts = hosts
        self._patience_s = patience_s
        self._mine = threading.local()

    def hold(self, host: str) -> None:
        """This thread has begun a request to `host` (`Hosts.try_begin`), which it will make next."""
        self._mine.host, self._mine.is_begun = host, True

    def let_go(self) -> None:
        """Give back what this thread holds, if it does."""
        host, self._mine.host = getattr(self._mine, "host", None), None
        if host is not None:
            self._hosts.end(host)

    def wait_for(self, host: str) -> None:
        """Begin a request to `host`, and hold the turn.

        Raises:
            FetchError: host_busy, when the host wants a longer pause, or there is no turn within LONGEST_S.
        """
        if getattr(self._mine, "host", None) != host:
            self.let_go()
        is_held = getattr(self._mine, "host", None) == host
        if is_held and self._mine.is_begun:
            self._mine.is_begun = False
            return
        end = time.monotonic() + LONGEST_S
        while wait := self._hosts.try_again(host) if is_held else self._hosts.try_begin(host):
            if wait.seconds > (self._patience_s if wait.is_asked_for else end - time.monotonic()):
                raise FetchError(HOST_BUSY, BUSY, final=True)
            time.sleep(wait.seconds)
        self._mine.host, self._mine.is_begun = host, False

    @contextlib.contextmanager
    def given_back(self) -> Iterator[None]:
        """A block behind which this thread holds none."""
        try:
            yield
        finally:
            self.let_go()
