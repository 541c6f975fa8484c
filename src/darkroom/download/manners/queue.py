"""Which row of a part is fetched next: one whose host may be asked now, so that no thread waits for a host."""

import heapq
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from darkroom.download.manners.hosts import Hosts
from darkroom.download.manners.turns import BUSY
from darkroom.download.policy import parse_url
from darkroom.download.status import HOST_BUSY, Failure, FetchError


class Next(NamedTuple):
    """The position of a row; the host that a turn was begun at for it; or why it is not asked for."""

    place: int
    host: str | None
    failure: Failure | None = None


class RowQueue:
    """The rows of a part by host; safe to use from many threads.

    Of the hosts that may be asked the one with most rows left comes first, because at its pace the part may end.
    Rows of a host that wants a pause beyond `patience_s` end at once, and are left to a later round.

    Args:
        urls: position of a row -> its URL.
        hosts: who else asks.
        patience_s: the longest pause of a host that is waited for, seconds.
    """

    def __init__(self, urls: Mapping[int, str], hosts: Hosts, patience_s: float) -> None:
        self._hosts, self._patience_s = hosts, patience_s
        self._rows: dict[str | None, deque[int]] = {}
        for place, url in urls.items():
            self._rows.setdefault(_host(url), deque()).append(place)
        self._changed = threading.Condition()
        self._ready: list[tuple[int, int, str | None]] = []
        self._waiting: list[tuple[float, str | None]] = []
        # When a host that waits may be asked; what `_waiting` says besides is out of date.
        self._at: dict[str | None, float] = {}
        self._full: set[str | None] = set()
        for host in self._rows:
            self._put(host, 0.0)
        hosts.on_end = self._free

    def next(self) -> Next:
        """The next row, after a wait if need be; as many calls as there are rows."""
        while True:
            host = self._next_host()
            wait = None if host is None else self._hosts.try_begin(host)
            with self._changed:
                is_hopeless = wait is not None and wait.is_asked_for and wait.seconds > self._patience_s
                if wait is None or is_hopeless:
                    place = self._rows[host].popleft()
                    if self._rows[host]:
                        self._put(host, 0.0 if is_hopeless or host is None else self._hosts.pause_s)
                    self._changed.notify()
                    break
                self._put(host, wait.seconds, is_full=wait.is_full)
                self._changed.notify()
        if is_hopeless:
            return Next(place, None, Failure(HOST_BUSY, BUSY))
        return Next(place, host)

    def _next_host(self) -> str | None:
        """Take a host that may be asked; nobody else looks at it until it is put back."""
        with self._changed:
            while True:
                now = time.monotonic()
                while self._waiting and self._waiting[0][0] <= now:
                    at, host = heapq.heappop(self._waiting)
                    if self._at.get(host) == at:
                        self._put(host, 0.0)
                if self._ready:
                    return heapq.heappop(self._ready)[-1]
                self._changed.wait(self._waiting[0][0] - now if self._waiting else None)

    def _put(self, host: str | None, seconds: float, is_full: bool = False) -> None:
        self._at.pop(host, None)
        self._full.discard(host)
        if seconds <= 0:
            rows = self._rows[host]
            heapq.heappush(self._ready, (-len(rows), rows[0], host))
            return
        self._at[host] = time.monotonic() + seconds
        heapq.heappush(self._waiting, (self._at[host], host or ""))
        if is_full:
            self._full.add(host)

    def _free(self, host: str) -> None:
        """A connection of this job's to a host has ended."""
        with self._changed:
            if host in self._full:
                self._put(host, 0.0)
                self._changed.notify()


def _host(url: str) -> str | None:
    """None where the URL leads nowhere, as its fetch will tell."""
    try:
        return parse_url(url).host
    except FetchError:
        return None
