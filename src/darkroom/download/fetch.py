"""The hardened opener that is put under img2dataset's `urllib.request.urlopen`.

One `PictureOpener` follows redirects, checks every hop against the policies, bounds bytes and time,
and tries transient failures again. It never reads proxies from the environment.
"""

import http.client
import importlib.metadata
import io
import logging
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from email.message import Message
from typing import Any, cast

from darkroom.config.dataset import Download
from darkroom.download import status as words
from darkroom.download.connection import Channel, Connector, Deadline, broken
from darkroom.download.policy import (
    AGENT_TOKEN,
    AddressPolicy,
    FetchPolicy,
    RobotsTagPolicy,
    Target,
    parse_url,
)
from darkroom.download.status import FetchError

MAX_REDIRECTS = 5
RETRY_WAIT_S = 0.5
"""Pause before the second try, seconds; doubled for each further one."""
MAX_RETRY_WAIT_S = 10.0
"""A server that asks for a longer pause (Retry-After) is not tried again by this fetch."""

USER_AGENT = f"{AGENT_TOKEN}/{importlib.metadata.version('darkroom')}"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 65536
_log = logging.getLogger(__name__)


class Body(io.BytesIO):
    """A whole response body, with the `headers` attribute that callers of `urlopen` expect."""

    def __init__(self, content: bytes, headers: Message) -> None:
        super().__init__(content)
        self.headers = headers


class PictureOpener:
    """Fetches URLs under the bounds of `settings`; safe to use from many threads.

    Args:
        settings: the `download` section.
        connect_to: "host:port" -> "ip:port", see `Connector`; the policies see the URL's own host.
        policies: rules besides the addresses and X-Robots-Tag.
    """

    def __init__(
        self,
        settings: Download,
        connect_to: Mapping[str, str] | None = None,
        policies: Sequence[FetchPolicy] = (),
    ) -> None:
        self._settings = settings
        self._policies: list[FetchPolicy] = [RobotsTagPolicy(settings.disallowed_directives), *policies]
        self._connector = Connector(
            AddressPolicy(settings.allow_networks), connect_to or {}, settings.num_threads
        )

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
            _log.exception("%s: unexpected failure of the fetch", url)
            raise FetchError(
                words.INTERNAL_ERROR, f"unexpected {type(error).__name__} while fetching", final=True
            ) from error

    def fetch(self, url: str) -> Body:
        """The body that `url` leads to, after at most 1 + num_retries tries.

        Raises:
            FetchError: the failure of the last try.
        """
        deadline = Deadline(self._settings.timeout_s, self._settings.total_timeout_s)
        pause = RETRY_WAIT_S
        for tries_left in range(self._settings.num_retries, -1, -1):
            try:
                return self._follow(url, deadline)
            except FetchError as error:
                wait = max(pause, error.wait_s)
                if not (tries_left and error.retry) or wait > min(MAX_RETRY_WAIT_S, deadline.left()):
                    raise
                time.sleep(wait)
                pause *= 2
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """Free the threads of the resolver."""
        self._connector.close()

    def _follow(self, url: str, deadline: Deadline) -> Body:
        for _ in range(MAX_REDIRECTS + 1):
            target = parse_url(url)
            for policy in self._policies:
                policy.before_request(target)
            with closing(self._connector.connect(target, deadline)) as channel:
                response = _request(channel, target)
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location is not None:
                    url = _redirected(url, str(location))
                    continue
                if not 200 <= response.status < 300:
                    raise _http_failure(response)
                for policy in self._policies:
                    policy.after_headers(target, response.headers)
                return Body(self._read(response), response.headers)
        raise FetchError(words.TOO_MANY_REDIRECTS, f"more than {MAX_REDIRECTS} redirects")

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        limit, announced = self._settings.max_bytes, response.length
        too_many = FetchError(words.TOO_MANY_BYTES, f"the body is larger than max_bytes = {limit}")
        if announced is not None and announced > limit:
            raise too_many
        pieces, count = [], 0
        try:
            while piece := response.read(_CHUNK):
                count += len(piece)
                if count > limit:
                    raise too_many
                pieces.append(piece)
        except http.client.HTTPException as error:  # a chunked body that is cut or malformed
            raise broken() from error
        if announced is not None and count < announced:
            raise broken()
        if not count:
            raise FetchError(words.EMPTY_BODY, "the server sent an empty body")
        return b"".join(pieces)


def _request(channel: Channel, target: Target) -> http.client.HTTPResponse:
    """Send the request and read the status line and the headers."""
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.host_header}",
        f"User-Agent: {USER_AGENT}",
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
    after = str(response.headers.get("Retry-After", "")).strip()
    wait_s = float(after) if after.isdecimal() and len(after) < 9 else 0.0
    return FetchError(f"http_{code}", f"the server answered {code} {phrase}".strip(), wait_s=wait_s)


_installing = threading.Lock()


@contextmanager
def installed(opener: PictureOpener) -> Iterator[None]:
    """Put `opener` under `urllib.request.urlopen` for the block, for the whole process."""
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
