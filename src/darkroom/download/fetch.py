"""The hardened opener that is put under img2dataset's `urllib.request.urlopen`.

One `PictureOpener` follows redirects, checks every hop against the policies, bounds bytes and time,
and tries transient failures again. It never reads proxies from the environment.
"""

import email.utils
import http.client
import importlib.metadata
import logging
import threading
import time
import traceback
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from email.message import Message
from typing import Any, Protocol, TypeAlias, cast

from darkroom.download import status as words
from darkroom.download.addresses import AddressPolicy
from darkroom.download.body import read_body
from darkroom.download.budget import ByteBudget, Share
from darkroom.download.connection import Channel, Connector, Deadline, broken
from darkroom.download.manners.crawl import Crawl
from darkroom.download.manners.headers import HeaderPolicy
from darkroom.download.manners.hosts import MAX_BACK_OFF_S, Hosts
from darkroom.download.manners.robots import Robots
from darkroom.download.manners.turns import Turns
from darkroom.download.memory import BODIES_BYTES
from darkroom.download.policy import AGENT_TOKEN, FetchPolicy, Target, parse_url
from darkroom.download.status import FetchError, indented, printable
from darkroom.settings.download import Download

MAX_REDIRECTS = 5
RETRY_WAIT_S = 0.5
"""Pause before the second try, seconds; doubled for each further one."""
MAX_RETRY_WAIT_S = 10.0
"""A server that asks for a longer pause (Retry-After) is not tried again by this fetch."""

HEAD_BYTES = 1_000_000
"""What an answer may have besides max_bytes: headers, interim answers, sizes of chunks."""

USER_AGENT = f"{AGENT_TOKEN}/{importlib.metadata.version('darkroom')}"

BACK_OFF = frozenset({429, 503})
"""Answers after which the whole host is left alone for a while."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_log = logging.getLogger(__name__)

Read: TypeAlias = "Callable[[Channel, http.client.HTTPResponse, Deadline, Sequence[str]], Body]"


class Body:
    """A whole response body; its bytes count until it is closed. `opt_outs` is as in the table.

    It has what img2dataset asks of what `urlopen` returns.
    """

    def __init__(
        self,
        pieces: list[bytes],
        headers: Message,
        share: Share | None = None,
        opt_outs: Sequence[str] = (),
    ) -> None:
        self.pieces = pieces
        self.headers = headers
        self.opt_outs = tuple(opt_outs)
        self._share = share

    def read(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces)

    def close(self) -> None:
        """Forget the body."""
        self.pieces = []
        if self._share is not None:
            self._share.close()

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Opener(Protocol):
    """What can stand under `urllib.request.urlopen`."""

    def open(self, request: urllib.request.Request | str, data: Any = None, timeout: Any = None) -> Body:
        """The body of an answer, or an exception."""

    def close(self) -> None:
        """Free what it holds."""


class PictureOpener:
    """Fetches URLs under the bounds of `settings`; safe to use from many threads.

    Args:
        settings: the `download` section.
        connect_to: "host:port" -> "ip:port", see `Connector`; the policies see the URL's own host.
        policies: rules besides the addresses, robots.txt and what headers say.
        crawl: who asks, and how often; None: nobody tells, as fast as it goes.
    """

    def __init__(
        self,
        settings: Download,
        connect_to: Mapping[str, str] | None = None,
        policies: Sequence[FetchPolicy] = (),
        crawl: Crawl | None = None,
    ) -> None:
        self._settings = settings
        self._policies: list[FetchPolicy] = [HeaderPolicy(settings), *policies]
        contact = crawl and crawl.contact()
        self._user_agent = f"{USER_AGENT} (+{contact})" if contact else USER_AGENT
        self.hosts = crawl.hosts() if crawl else Hosts(settings.num_threads, 0.0)
        self.turns = Turns(self.hosts, settings.total_timeout_s)
        if settings.obey_robots_txt:
            robots = Robots(self._first_bytes, settings.obey_content_usage, self.turns.let_go)
            self._policies.insert(0, robots)
        self._connector = Connector(
            AddressPolicy(settings.allow_networks, settings.deny_networks),
            connect_to or {},
            settings.num_threads,
            settings.max_bytes + HEAD_BYTES,
        )
        self._budget = ByteBudget(BODIES_BYTES)

    def open(self, request: urllib.request.Request | str, data: Any = None, timeout: Any = None) -> Body:
        """What `urllib.request.urlopen` calls once this opener is installed.

        `data` is not sent and `timeout` is ignored: the settings hold the bounds.

        Raises:
            FetchError: always this, its text a `Failure` message.
        """
        url = request if isinstance(request, str) else request.full_url
        try:
            return self.fetch(url)
        except FetchError:
            raise
        except Exception as error:
            told = indented(traceback.format_exc())
            _log.error("%s: unexpected failure of the fetch\n%s", printable(url), told)
            raise FetchError(
                words.INTERNAL_ERROR, f"unexpected {type(error).__name__} while fetching", final=True
            ) from error

    def fetch(self, url: str) -> Body:
        """The body that `url` leads to, after at most 1 + num_retries tries.

        Raises:
            FetchError: the failure of the last try.
        """
        with self.turns.given_back():
            return self._tried(url, self._policies, self._read)

    def _first_bytes(self, url: str, number: int) -> bytes:
        """The first bytes of a file that no policy is asked about, such as robots.txt."""

        def read(channel: Channel, response: http.client.HTTPResponse, *_: object) -> Body:
            pieces = read_body(channel.reader, response, number, lambda _: None, cut=True)
            return Body(pieces, response.headers)

        return self._tried(url, (), read).read()[:number]

    def _tried(self, url: str, policies: Sequence[FetchPolicy], read: Read) -> Body:
        deadline = Deadline(self._settings.timeout_s, self._settings.total_timeout_s)
        pause = RETRY_WAIT_S
        for tries_left in range(self._settings.num_retries, -1, -1):
            try:
                return self._follow(url, deadline, policies, read, pause)
            except FetchError as error:
                wait = max(pause, error.wait_s)
                if not (tries_left and error.retry) or wait > min(MAX_RETRY_WAIT_S, deadline.left()):
                    raise
                self.turns.let_go()
                time.sleep(wait)
                pause *= 2
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """Free the threads of the resolver, and what other jobs wait for."""
        self._connector.close()
        self.hosts.close()

    def _follow(
        self, url: str, deadline: Deadline, policies: Sequence[FetchPolicy], read: Read, pause_s: float
    ) -> Body:
        for _ in range(MAX_REDIRECTS + 1):
            target = parse_url(url)
            # What is asked before, and waited for, is not this URL's fault.
            with deadline.paused():
                for policy in policies:
                    policy.before_request(target)
                self.turns.wait_for(target.host)
            with closing(self._connector.connect(target, deadline)) as channel:
                response = _request(channel, target, self._user_agent)
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location is not None:
                    url = _redirected(url, str(location))
                    continue
                if not 200 <= response.status < 300:
                    failure = _http_failure(response)
                    if response.status in BACK_OFF:
                        self.hosts.back_off(target.host, max(failure.wait_s, pause_s))
                    raise failure
                opt_outs = [
                    told for policy in policies for told in policy.after_headers(target, response.headers)
                ]
                return read(channel, response, deadline, opt_outs)
        raise FetchError(words.TOO_MANY_REDIRECTS, f"more than {MAX_REDIRECTS} redirects")

    def _read(
        self,
        channel: Channel,
        response: http.client.HTTPResponse,
        deadline: Deadline,
        opt_outs: Sequence[str],
    ) -> Body:
        share = self._budget.share()

        def take(number: int) -> None:
            # The wait is for other rows' bodies, and not this server's fault.
            with deadline.paused():
                share.take(number)

        try:
            pieces = read_body(channel.reader, response, self._settings.max_bytes, take)
        except BaseException:
            share.close()
            raise
        return Body(pieces, response.headers, share, opt_outs)


def _request(channel: Channel, target: Target, user_agent: str) -> http.client.HTTPResponse:
    """Send the request and read the status line and the headers."""
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.host_header}",
        f"User-Agent: {user_agent}",
        "Accept: image/*, */*;q=0.5",
        "Accept-Encoding: identity",
        "Connection: close",
        "",
        "",
    )
    channel.send("\r\n".join(lines).encode("ascii"))
    # A Channel has what HTTPResponse asks of a socket, `makefile`.
    response = http.client.HTTPResponse(cast(Any, channel), method="GET")
    try:
        response.begin()
    except http.client.RemoteDisconnected as error:
        raise broken() from error
    except (http.client.HTTPException, ValueError) as error:
        raise FetchError(words.CONNECTION_ERROR, "the answer is not HTTP", final=True) from error
    return response


def _redirected(url: str, location: str) -> str:
    # http.client reads headers as Latin-1; servers that send raw non-ASCII mean UTF-8.
    with suppress(UnicodeError):
        location = location.encode("latin-1").decode("utf-8")
    try:
        return urllib.parse.urljoin(url, location.strip())
    except ValueError as error:
        raise FetchError(words.INVALID_URL, "the redirect's URL cannot be parsed") from error


def _http_failure(response: http.client.HTTPResponse) -> FetchError:
    code = response.status
    phrase = http.client.responses.get(code, "")
    wait_s = _seconds(str(response.headers.get("Retry-After", "")).strip())
    return FetchError(f"http_{code}", f"the server answered {code} {phrase}".strip(), wait_s=wait_s)


def _seconds(after: str) -> float:
    """How long a Retry-After asks us to wait: a number of seconds, or a date; 0 where it is neither."""
    if after.isdecimal():
        return float(after) if len(after) < 9 else MAX_BACK_OFF_S
    try:
        return max(email.utils.parsedate_to_datetime(after).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


_installing = threading.Lock()


@contextmanager
def installed(opener: Opener) -> Iterator[None]:
    """Put `opener` under `urllib.request.urlopen` for the block, for the whole process, then close it."""
    if not _installing.acquire(blocking=False):
        raise RuntimeError("another part is being downloaded in this process; use one process a part")
    before = getattr(urllib.request, "_opener", None)
    try:
        urllib.request.install_opener(cast(Any, opener))
        yield
    finally:
        urllib.request.install_opener(before)  # type: ignore[arg-type]  # None restores the default
        _installing.release()
        opener.close()
