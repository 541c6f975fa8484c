"""robots.txt (RFC 9309): asked once for each origin before its first picture, and obeyed for every hop.

A file that is not there allows everything, one that cannot be had now nothing for now. Protego parses it; before
that the lines are reduced to the groups that may concern us, because a parser's memory can grow with the number of
agents of a group times that of its rules.
"""

import re
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from email.message import Message
from typing import NamedTuple

from protego import Protego

from darkroom.download import status as words
from darkroom.download.manners.usage import rules_out_training, usages
from darkroom.download.policy import AGENT_TOKEN, Target
from darkroom.download.status import Failure, FetchError

MAX_BYTES = 512_000
"""Of a file; what comes behind is not read. RFC 9309 wants at least 500 KiB."""
ASK_AGAIN_S = 10.0
"""After so long without an answer the next row of the origin asks again."""
KEPT_BYTES, PARSED_CHARS = 16_000_000, 1_000_000
"""Files that are remembered, compressed; and of these, characters of what is also kept parsed."""

DISALLOWED, USAGE = "robots.txt: disallowed", "robots.txt: Content-Usage rules out training"

_AGENT = re.compile(r"user[- ]?agent\b[\s:]*(.*)", re.IGNORECASE)
_USAGE = re.compile(r"content-(?:usage|signal)\s*:\s*(?:(/\S*)\s+)?(.*)", re.IGNORECASE)
_OF_THE_SITE = re.compile(r"(?:sitemaps?|site-map|host)\b.*", re.IGNORECASE)
# As RFC 9309 has it: what the server says of the request, or a chain of redirects, makes the file unavailable, and
# that allows everything. Of 429 it does not mean that.
_UNAVAILABLE = re.compile(r"http_(?!429)[1-4]..|too_many_redirects|empty_body|blocked_.*|invalid_url")
_UNREACHABLE = re.compile(r"http_(429|5..)")


class Reduced(NamedTuple):
    """A robots.txt as far as it concerns us: its rules, and its preferences on use written as rules."""

    rules: str
    usage: str


@dataclass(frozen=True)
class _Said:
    """What an origin's robots.txt was: a file, compressed, or why nothing may be fetched until `again`."""

    content: bytes = b""
    failure: Failure | None = None
    again: float = 0.0


class Robots:
    """The policy, for one job; safe to use from many threads.

    Args:
        get: (URL, at most so many bytes) -> the file's first bytes. Raises FetchError.
        obey_usage: whether preferences on use in the file refuse a picture; they are recorded anyway.
        before_waiting: called before a thread waits for what another one asks.
    """

    def __init__(
        self,
        get: Callable[[str, int], bytes],
        obey_usage: bool = True,
        before_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._get = get
        self._obey_usage = obey_usage
        self._before_waiting = before_waiting
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Future[_Said]] = OrderedDict()
        self._parsed: OrderedDict[str, tuple[int, Protego, Protego]] = OrderedDict()
        self._kept_bytes = self._parsed_chars = 0

    def before_request(self, target: Target) -> None:
        """Ask for the origin's robots.txt if nobody has.

        Raises:
            FetchError: robots_disallowed; opted_out, where preferences refuse it; robots_unreachable, or what else
                kept the file from us.
        """
        is_allowed, is_free = self._judge(target)
        if not is_allowed:
            raise FetchError(
                words.ROBOTS_DISALLOWED, "the host's robots.txt disallows it", opt_outs=[DISALLOWED]
            )
        if not is_free and self._obey_usage:
            message = "the host's robots.txt says that this is not for training"
            raise FetchError(words.OPTED_OUT, message, opt_outs=[USAGE])

    def after_headers(self, target: Target, headers: Message) -> Sequence[str]:
        """What the file says of use, where that is not obeyed."""
        return () if self._judge(target)[1] else (USAGE,)

    def _judge(self, target: Target) -> tuple[bool, bool]:
        """Whether the file allows a fetch, and whether it leaves the use free."""
        origin = f"{target.scheme}://{target.host_header}"
        said = self._ask(origin)
        if said.failure is not None:
            raise FetchError(said.failure.status, f"robots.txt: {said.failure.error}", final=True)
        if not said.content:
            return True, True
        rules, usage = self._parse(origin, said.content)
        url = origin + target.path
        return rules.can_fetch(url, AGENT_TOKEN), usage.can_fetch(url, AGENT_TOKEN)

    def _ask(self, origin: str) -> _Said:
        with self._lock:
            known = self._known.get(origin)
            is_over = known is not None and known.done() and 0 < known.result().again < time.monotonic()
            if known is None or is_over:
                mine: Future[_Said] = Future()
                self._known[origin] = mine
                known = None
        if known is not None:
            if not known.done():
                self._before_waiting()
            return known.result()
        said = _Said(failure=Failure(words.INTERNAL_ERROR, "it was not read"), again=time.monotonic())
        try:
            said = self._fetch(origin)
        finally:
            mine.set_result(said)
        self._remember(len(said.content))
        return said

    def _fetch(self, origin: str) -> _Said:
        try:
            content = self._get(f"{origin}/robots.txt", MAX_BYTES)
        except FetchError as error:
            failure = error.failure
            if _UNAVAILABLE.fullmatch(failure.status):
                return _Said()
            if _UNREACHABLE.fullmatch(failure.status):
                failure = Failure(words.ROBOTS_UNREACHABLE, failure.error)
            return _Said(failure=failure, again=time.monotonic() + ASK_AGAIN_S)
        told = reduced(content.decode("utf-8-sig", errors="replace"))
        # NUL stands in neither: `reduced` leaves it out.
        return _Said(zlib.compress("\0".join(told).encode())) if any(told) else _Said()

    def _remember(self, number: int) -> None:
        """Count a new file, and forget the oldest ones beyond the bound."""
        with self._lock:
            self._kept_bytes += number
            for origin, known in list(self._known.items()):
                if self._kept_bytes <= KEPT_BYTES:
                    break
                if known.done() and known.result().content:
                    self._kept_bytes -= len(known.result().content)
                    del self._known[origin]

    def _parse(self, origin: str, content: bytes) -> tuple[Protego, Protego]:
        with self._lock:
            if origin in self._parsed:
                self._parsed.move_to_end(origin)
                return self._parsed[origin][1:]
        told = Reduced(*zlib.decompress(content).decode().split("\0"))
        number = sum(map(len, told))
        parsed = Protego.parse(told.rules), Protego.parse(told.usage)
        with self._lock:
            if origin not in self._parsed:
                self._parsed_chars += number
                self._parsed[origin] = number, *parsed
            while self._parsed_chars > PARSED_CHARS and len(self._parsed) > 1:
                self._parsed_chars -= self._parsed.popitem(last=False)[1][0]
        return parsed


def reduced(text: str) -> Reduced:
    """The groups of a robots.txt for everyone and for us; those for others become one, which concerns nobody.

    Content-Usage and Content-Signal, of a path or of all, become rules of a second file: what rules training out
    disallows there.
    """
    rules: list[str] = []
    usage: list[str] = []
    has_group = False
    for line in text.replace("\0", " ").splitlines():
        line = line.partition("#")[0].strip()
        if not line or _OF_THE_SITE.fullmatch(line):
            continue
        if found := _AGENT.fullmatch(line):
            name = found[1].strip().lower().partition("/")[0].strip()
            line = f"User-agent: {name if name in ('*', AGENT_TOKEN) else 'another'}"
            rules.append(line)
            usage.append(line)
            has_group = True
        elif found := _USAGE.fullmatch(line):
            if not has_group:
                usage.append("User-agent: *")
                has_group = True
            is_out = rules_out_training(usages(found[2]))
            verb = {True: "Disallow", False: "Allow", None: "Other"}[is_out]
            usage.append(f"{verb}: {found[1] or '/'}")
            # Rules that follow the agents of a group end their list.
            rules.append("Other: x")
        else:
            rules.append(line)
            usage.append("Other: x")
    is_said = any(line.startswith(("Disallow", "Allow")) for line in usage)
    return Reduced("\n".join(_once(rules)), "\n".join(_once(usage)) if is_said else "")


def _once(lines: Sequence[str]) -> list[str]:
    """Without repetitions that follow each other."""
    return [line for i, line in enumerate(lines) if not i or line != lines[i - 1]]
