"""Asks a server: one request with its tries, and when to give the whole server up."""

import asyncio
import email.utils
import random
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx

from darkroom.captioners.served import is_loopback
from darkroom.captioners.served.chat import (
    CONNECTION_ERROR,
    INCOMPLETE,
    TIMEOUT,
    TOO_LARGE,
    Answer,
    Failed,
    read_answer,
)

_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0
# A server that asks for a longer pause is not waited for.
MAX_WAIT_S = 300.0
# So many requests in a row that end in one same way are the server's fault and not theirs.
MAX_SAME_FAILURES = 16
# Where all requests that may be under way have had no answer in time, so often, none is tried again.
MAX_SILENCES = 2
_CONNECT_S, _LOOK_S = 10.0, 5.0


class ServerError(ValueError):
    """A server does not answer, so that it makes no sense to ask on; the text says which and why."""


@dataclass(frozen=True)
class Endpoint:
    """Whom to ask, and how.

    Args:
        url: of the API, e.g. http://127.0.0.1:8000/v1.
        key: sent as bearer token; None: none is sent.
        key_variable: where it is from, for messages.
        concurrency: requests under way at once.
        timeout_s: longest wait for a whole answer, seconds.
        num_retries: more tries of a request after a failure that may pass.
        max_bytes: longest answer.
        section: what a dataset calls the section with these options, for messages.
    """

    url: str
    key: str | None = field(repr=False)
    key_variable: str | None
    concurrency: int
    timeout_s: float
    num_retries: int
    max_bytes: int
    section: str

    def without_key(self, text: str) -> str:
        """`text` without the key, which a server may repeat."""
        return text.replace(self.key, "***") if self.key else text


class Client:
    """Asks an endpoint; ends as an async context manager.

    Attributes:
        num_requests: sent so far, tries included.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.num_requests = self._silences = 0
        self._endpoint = endpoint
        # No answer is longer as sent than as read: what is compressed can be far larger than it looks.
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if endpoint.key is not None:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            limits=httpx.Limits(
                max_connections=endpoint.concurrency, max_keepalive_connections=endpoint.concurrency
            ),
            follow_redirects=False,  # the key is for this server alone
            trust_env=not is_loopback(endpoint.url),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, body: bytes) -> Answer | Failed:
        """What a request came to, after the last try."""
        for tried in range(self._endpoint.num_retries + 1):
            found = await self._try(body)
            is_over = isinstance(found, Answer) or not found.may_pass or tried == self._endpoint.num_retries
            is_over |= self._silences >= MAX_SILENCES * self._endpoint.concurrency
            if is_over or (isinstance(found, Failed) and found.wait_s > MAX_WAIT_S):
                break
            # Half of the pause is chance, so that requests that failed together do not come back together.
            pause_s = min(_FIRST_PAUSE_S * 2**tried, _MAX_PAUSE_S) * random.uniform(0.5, 1)
            await asyncio.sleep(max(pause_s, found.wait_s) if isinstance(found, Failed) else pause_s)
        return found

    async def is_ready(self) -> bool:
        """Whether a server that is starting takes requests.

        /health tells it. Some list their models before they have loaded them, so these count where there is no
        /health.
        """
        health = await self._code(f"{self._endpoint.url.removesuffix('/v1')}/health")
        return health == 200 or (health == 404 and await self._code(f"{self._endpoint.url}/models") == 200)

    async def _code(self, url: str) -> int:
        """The status that a page has; 0 where nobody answers."""
        try:
            async with asyncio.timeout(_LOOK_S), self._http.stream("GET", url) as response:
                return response.status_code
        except (TimeoutError, httpx.HTTPError):
            return 0

    async def _try(self, body: bytes) -> Answer | Failed:
        self.num_requests += 1
        began = False
        try:
            # Of the whole: what drips must end too.
            async with asyncio.timeout(self._endpoint.timeout_s):
                request = self._http.stream("POST", f"{self._endpoint.url}/chat/completions", content=body)
                async with request as response:
                    began, content = True, b""
                    async for piece in response.aiter_raw():
                        content += piece
                        if len(content) > self._endpoint.max_bytes:
                            return Failed(TOO_LARGE)
        except TimeoutError:
            self._silences += 1
            return Failed(TIMEOUT)
        except httpx.HTTPError as error:
            return Failed(INCOMPLETE if began else CONNECTION_ERROR, str(error))
        self._silences = 0
        found = read_answer(response.status_code, content)
        if isinstance(found, Failed):
            wait_s = _seconds(response.headers.get("Retry-After", "").strip())
            return Failed(found.word, self._endpoint.without_key(found.detail), wait_s)
        return found


class Patience:
    """Says when to give a server up: too many requests in a row end in the same way."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._last, self._number, self._is_answered = Failed(""), 0, False

    def add(self, found: Answer | Failed) -> None:
        """Raises ServerError."""
        if isinstance(found, Answer):
            self._is_answered, self._number = True, 0
            return
        self._number = self._number + 1 if found.word == self._last.word else 1
        self._last = found
        if self._number >= MAX_SAME_FAILURES:
            raise self._error(f"{self._number} requests in a row")

    def end(self) -> None:
        """After the last request of a part. Raises ServerError where none was answered, for the server's fault."""
        if self._number and not self._is_answered and self._last.is_of_server:
            raise self._error("all requests")

    def _error(self, which: str) -> ServerError:
        last, variable = self._last, self._endpoint.key_variable
        said = f" ({last.detail})" if last.detail else ""
        waits = f", and asks for a pause of {last.wait_s:.0f} s" if last.wait_s else ""
        unnamed = f", as {self._endpoint.section}.requests.key_variable names none"
        key = f"the key of the environment variable {variable}" if variable else "no key"
        return ServerError(
            f"{self._endpoint.url}: {which} ended as {last.word}{said}{waits}; they were sent with {key}"
            f"{'' if variable else unnamed}. What was answered before is"
            " kept, and the next job goes on from there"
        )


def _seconds(after: str) -> float:
    """How long a Retry-After asks us to wait: a number of seconds, or a date; 0 where it is neither."""
    if after.isdecimal():
        return float(after[:9])
    try:
        return max(email.utils.parsedate_to_datetime(after).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0
