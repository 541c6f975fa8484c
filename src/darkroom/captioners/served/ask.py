"""Asks a server about the pictures of a part: many requests under way at once, each answer kept as it comes."""

import asyncio
import io
import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.captioners.base import KINDS, Pictures
from darkroom.captioners.served.chat import Failed, request_body
from darkroom.captioners.served.client import Client, Endpoint, Patience
from darkroom.captioners.served.journal import Journal
from darkroom.captioners.served.process import tail

_JPEG_QUALITY = 95
_READERS = 2
_READY_EVERY_S = 0.2
_NUM_LOGGED = 20  # failures of a part
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Questions:
    """What is asked about every picture.

    Args:
        options: of every request: the model, its sampling, its limits.
        prompts: one for each of KINDS.
        detail: how closely the picture is looked at; None: not said.
        max_side_px: pictures with a longer side are reduced.
    """

    options: Mapping[str, Any]
    prompts: tuple[str, ...]
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

    def body(self, request: int, jpeg: bytes) -> bytes:
        """The request at this place of the prompts."""
        return request_body(self.options, self.prompts[request], jpeg, self.detail)


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
    todo: Sequence[int],
    journal: Journal,
) -> dict[tuple[int, int], Failed]:
    """Have the journal hold an answer to every request about the pictures at `todo`.

    Returns:
        (place of the picture, place of the request) -> why there is no answer, where there is none.

    Raises:
        ValueError: a picture cannot be read, or the server is given up.
    """
    concurrency = min(endpoint.concurrency, len(todo))
    with ThreadPoolExecutor(_READERS) as readers:
        async with Client(endpoint) as client:
            if guard is not None:
                await guard.wait(client)
            asking = _Asking(endpoint, client, questions, pictures, journal)
            tasks = asking.tasks(readers, todo, concurrency)
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


class _Asking:
    """Reads pictures ahead and asks about them, on many tasks."""

    def __init__(
        self, endpoint: Endpoint, client: Client, questions: Questions, pictures: Pictures, journal: Journal
    ) -> None:
        self.failed: dict[tuple[int, int], Failed] = {}
        self.patience = Patience(endpoint)
        self._client, self._questions = client, questions
        self._pictures, self._journal = pictures, journal

    def tasks(
        self, readers: ThreadPoolExecutor, todo: Sequence[int], concurrency: int
    ) -> list["asyncio.Task[None]"]:
        """What does all of it: one task that reads, and as many that ask as requests may be under way."""
        ready: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(concurrency)
        places, loop = iter(todo), asyncio.get_running_loop()

        async def read() -> None:
            for place in places:
                jpeg = await loop.run_in_executor(readers, self._questions.jpeg, self._pictures, place)
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
        for request in range(len(self._questions.prompts)):
            if (place, request) in self._journal.answers:
                continue
            found = await self._client.ask(self._questions.body(request, jpeg))
            if isinstance(found, Failed):
                self.failed[place, request] = found
                if len(self.failed) <= _NUM_LOGGED:
                    why = f"{found.word} {found.detail}".strip()
                    _LOG.warning(
                        "picture %s: no %s caption: %s", self._pictures.uids[place], KINDS[request], why
                    )
            else:
                self._journal.keep(place, request, found)
            self._pictures.tell(1)
            self.patience.add(found)
