"""Asks a server about what is in a part: many requests under way at once, each answer kept as it comes."""

import asyncio
import logging
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from darkroom.captioners.base import Request, Subjects, Wanted
from darkroom.captioners.journal import Journal, Key
from darkroom.captioners.served.chat import Answer, Failed, request_body
from darkroom.captioners.served.client import Client, Endpoint, Patience
from darkroom.captioners.served.process import tail

_READERS = 2
_READY_EVERY_S = 0.2
_NUM_LOGGED = 20  # failures of a part
_LOG = logging.getLogger(__name__)


class Messages(Protocol):
    """How what is asked about is shown to a server."""

    def shown(self, subjects: Any, place: int) -> Any:
        """What all requests about one of a part are made of; called on another thread.

        Raises:
            ValueError: it cannot be read; names its uid.
        """

    def content(self, request: Request, shown: Any) -> Any:
        """The message of a request, as the API has it: a text, or a list of a text and a picture."""


@dataclass(frozen=True)
class Questions:
    """What is asked.

    Args:
        of: name of a caption -> how it is asked for.
        options: (a caption, uid, try) -> all of a request but its message.
        messages: what that says.
    """

    of: Mapping[str, Request]
    options: Callable[[Request, str, int], Mapping[str, Any]]
    messages: Messages

    def body(self, name: str, uid: str, attempt: int, shown: Any) -> bytes:
        """The request for a caption."""
        request = self.of[name]
        return request_body(self.options(request, uid, attempt), self.messages.content(request, shown))


class Guard:
    """The server that runs beside the job, see `served.process`."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", log: Path, endpoint: Endpoint, timeout_s: float
    ) -> None:
        self._process, self._log, self._endpoint, self._timeout_s = process, log, endpoint, timeout_s

    async def wait(self, client: Client) -> None:
        """Until it takes requests. Raises ValueError where it ends before, or takes too long."""
        end = time.monotonic() + self._timeout_s
        while not await client.is_ready():
            self.refuse_ended()
            if time.monotonic() > end:
                section, url = self._endpoint.section, self._endpoint.url
                raise ValueError(
                    f"{section}.command: took no requests at {url} within {self._timeout_s:g} s"
                    f" ({section}.requests.start_timeout_s){self._last_lines()}"
                )
            await asyncio.sleep(_READY_EVERY_S)
        self.refuse_ended()

    def refuse_ended(self) -> None:
        """Raises ValueError where it has ended."""
        status = self._process.poll()
        if status is not None:
            raise ValueError(
                f"{self._endpoint.section}.command: ended with status {status}{self._last_lines()}"
            )

    def _last_lines(self) -> str:
        return f". Its last lines:\n{self._endpoint.without_key(tail(self._log))}"


async def ask_all(
    endpoint: Endpoint,
    guard: Guard | None,
    questions: Questions,
    subjects: Subjects,
    wanted: Wanted,
    journal: Journal[Answer],
) -> dict[Key, Failed]:
    """Have the journal hold an answer to everything that is wanted.

    Returns:
        Why there is no answer, where there is none.

    Raises:
        ValueError: a picture cannot be read, or the server is given up.
    """
    concurrency = min(endpoint.concurrency, len(wanted.names))
    with ThreadPoolExecutor(_READERS) as readers:
        async with Client(endpoint) as client:
            if guard is not None:
                await guard.wait(client)
            asking = _Asking(Patience(endpoint), client, questions, subjects, wanted, journal)
            tasks = asking.tasks(readers, concurrency)
            try:
                await asyncio.gather(*tasks)
                asking.patience.end()
            except ValueError:
                if guard is not None:
                    guard.refuse_ended()
                raise
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            _LOG.info("%d requests, tries included", client.num_requests)
    return asking.failed


@dataclass
class _Asking:
    """Reads ahead what is asked about, and asks, on many tasks."""

    patience: Patience
    client: Client
    questions: Questions
    subjects: Subjects
    wanted: Wanted
    journal: Journal[Answer]
    failed: dict[Key, Failed] = field(default_factory=dict)

    def tasks(self, readers: ThreadPoolExecutor, concurrency: int) -> list["asyncio.Task[None]"]:
        """What does all of it: one task that reads, and as many that ask as requests may be under way."""
        ready: asyncio.Queue[tuple[int, Any] | None] = asyncio.Queue(concurrency)
        places: Iterator[int] = iter(self.wanted.names)
        loop = asyncio.get_running_loop()

        async def read() -> None:
            for place in places:
                look = self.questions.messages.shown
                shown = await loop.run_in_executor(readers, look, self.subjects, place)
                await ready.put((place, shown))

        async def read_all() -> None:
            await asyncio.gather(*(read() for _ in range(_READERS)))
            for _ in range(concurrency):
                await ready.put(None)

        async def ask() -> None:
            while (found := await ready.get()) is not None:
                await self._ask(*found)

        return [loop.create_task(work) for work in (read_all(), *(ask() for _ in range(concurrency)))]

    async def _ask(self, place: int, shown: Any) -> None:
        """The requests about one picture in turn: the second finds what the server read for the first."""
        uid, attempt = self.subjects.uids[place], self.wanted.attempt
        for name in self.wanted.names[place]:
            key = (place, name, attempt)
            if key in self.journal.answers:
                continue
            found = await self.client.ask(self.questions.body(name, uid, attempt, shown))
            if isinstance(found, Failed):
                self.failed[key] = found
                if len(self.failed) <= _NUM_LOGGED:
                    _LOG.warning(
                        "picture %s: no %s caption: %s", uid, name, f"{found.word} {found.detail}".strip()
                    )
            else:
                self.journal.keep({key: found})
            self.subjects.tell(1)
            self.patience.add(found)
