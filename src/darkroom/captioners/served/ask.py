"""Asks a server about the pictures of a part: many requests under way at once, each answer kept as it comes."""

import asyncio
import io
import logging
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.captioners.base import Pictures, Wanted
from darkroom.captioners.served.chat import Failed, request_body
from darkroom.captioners.served.client import Client, Endpoint, Patience
from darkroom.captioners.served.journal import Journal, Key
from darkroom.captioners.served.process import tail

_JPEG_QUALITY = 95
_READERS = 2
_READY_EVERY_S = 0.2
_NUM_LOGGED = 20  # failures of a part
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """How a caption is asked for. options: (uid, try) -> all of a request but its message."""

    prompt: str
    options: Callable[[str, int], Mapping[str, Any]]


@dataclass(frozen=True)
class Questions:
    """What is asked about pictures.

    Args:
        of: name of a caption -> how it is asked for.
        detail: how closely the picture is looked at; None: not said.
        max_side_px: pictures with a longer side are reduced.
    """

    of: Mapping[str, Question]
    detail: str | None
    max_side_px: int

    def jpeg(self, pictures: Pictures, place: int) -> bytes:
        """What is sent of a picture: the stored JPEG, where that is small enough."""
        content = pictures.jpeg(place)
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as stored:
            if max(stored.size) <= self.max_side_px:
                return content
        image = pictures.image(place)
        image.thumbnail((self.max_side_px, self.max_side_px), Image.Resampling.LANCZOS)
        reduced = io.BytesIO()
        image.save(reduced, "JPEG", quality=_JPEG_QUALITY)
        return reduced.getvalue()

    def body(self, name: str, uid: str, attempt: int, jpeg: bytes) -> bytes:
        """The request for a caption of a picture."""
        question = self.of[name]
        return request_body(question.options(uid, attempt), question.prompt, jpeg, self.detail)


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
                raise ValueError(
                    f"recaption.command: took no requests at {self._endpoint.url} within {self._timeout_s:g} s"
                    f" (recaption.requests.start_timeout_s){self._last_lines()}"
                )
            await asyncio.sleep(_READY_EVERY_S)
        self.refuse_ended()

    def refuse_ended(self) -> None:
        """Raises ValueError where it has ended."""
        status = self._process.poll()
        if status is not None:
            raise ValueError(f"recaption.command: ended with status {status}{self._last_lines()}")

    def _last_lines(self) -> str:
        return f". Its last lines:\n{self._endpoint.without_key(tail(self._log))}"


async def ask_all(
    endpoint: Endpoint,
    guard: Guard | None,
    questions: Questions,
    pictures: Pictures,
    wanted: Wanted,
    journal: Journal,
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
            asking = _Asking(Patience(endpoint), client, questions, pictures, wanted, journal)
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
    """Reads pictures ahead and asks about them, on many tasks."""

    patience: Patience
    client: Client
    questions: Questions
    pictures: Pictures
    wanted: Wanted
    journal: Journal
    failed: dict[Key, Failed] = field(default_factory=dict)

    def tasks(self, readers: ThreadPoolExecutor, concurrency: int) -> list["asyncio.Task[None]"]:
        """What does all of it: one task that reads, and as many that ask as requests may be under way."""
        ready: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(concurrency)
        places: Iterator[int] = iter(self.wanted.names)
        loop = asyncio.get_running_loop()

        async def read() -> None:
            for place in places:
                jpeg = await loop.run_in_executor(readers, self.questions.jpeg, self.pictures, place)
                await ready.put((place, jpeg))

        async def read_all() -> None:
            await asyncio.gather(*(read() for _ in range(_READERS)))
            for _ in range(concurrency):
                await ready.put(None)

        async def ask() -> None:
            while (found := await ready.get()) is not None:
                await self._ask(*found)

        return [loop.create_task(work) for work in (read_all(), *(ask() for _ in range(concurrency)))]

    async def _ask(self, place: int, jpeg: bytes) -> None:
        """The requests about a picture one after another: the second finds what the server read for the first."""
        uid, attempt = self.pictures.uids[place], self.wanted.attempt
        for name in self.wanted.names[place]:
            key = (place, name, attempt)
            if key in self.journal.answers:
                continue
            found = await self.client.ask(self.questions.body(name, uid, attempt, jpeg))
            if isinstance(found, Failed):
                self.failed[key] = found
                if len(self.failed) <= _NUM_LOGGED:
                    _LOG.warning(
                        "picture %s: no %s caption: %s", uid, name, f"{found.word} {found.detail}".strip()
                    )
            else:
                self.journal.keep(key, found)
            self.pictures.tell(1)
            self.patience.add(found)
