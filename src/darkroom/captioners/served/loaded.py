"""A captioner that asks a server: what was answered before, the server's process, and what it counts."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from darkroom.captioners.base import Ask, Generated, Subjects, Wanted
from darkroom.captioners.journal import Journal
from darkroom.captioners.served.ask import Guard, Messages, Questions, ask_all
from darkroom.captioners.served.chat import Answer, Failed
from darkroom.captioners.served.client import Endpoint
from darkroom.captioners.served.options import PORT, ServedSection, key_of, options_of
from darkroom.captioners.served.process import free_port, running
from darkroom.store.digest import sha256_json

# Options of every server that are part of the provenance.
_RECORDED = ("model", "seed", "limit_name")
# Of an answer, beside its text, and of the text; letters may be six bytes of JSON each.
_MAX_BYTES, _MAX_BYTES_PER_TOKEN = 64_000, 200
_NUM_MODELS = 20  # names of a part that a server may give
_LOG = logging.getLogger(__name__)


class ServedLoaded:
    """See `captioners.base.Loaded`: many requests of a part are under way at once.

    Args:
        section: whom to ask, and for what.
        messages: what a request shows the server.
        recorded: options of the section that are part of the provenance, beside those of every server.
    """

    def __init__(self, section: ServedSection, messages: Messages, recorded: Sequence[str] = ()) -> None:
        self._section, self._messages = section, messages
        self._names = (*_RECORDED, *recorded)
        self._key = key_of(section)
        self._answers: dict[tuple[int, str, int], Answer | Failed] = {}
        self._library = f"httpx {httpx.__version__}"

    @property
    def provenance(self) -> Mapping[str, str | None]:
        models = ", ".join(sorted(self._models()))
        return {
            "model": models or self._section.model,
            "model_path": self._section.url,
            "model_sha256": None,
            "model_revision": None,
            "library": self._library,
        }

    @property
    def decoding(self) -> Mapping[str, Any]:
        return {name: getattr(self._section, name) for name in self._names}

    @property
    def counts(self) -> Mapping[str, Any]:
        answers = [found for found in self._answers.values() if isinstance(found, Answer)]
        failed = Counter(found.word for found in self._answers.values() if isinstance(found, Failed))
        prompt = sum(answer.prompt_tokens or 0 for answer in answers)
        completion = sum(answer.completion_tokens or 0 for answer in answers)
        counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion}
        counts |= {"answered_by": self._models(), "failed": dict(sorted(failed.items()))}
        unknown = sum(answer.completion_tokens is None for answer in answers)
        price = self._section.requests.price_per_million_tokens
        if price is not None:
            counts["cost"] = round((prompt * price.input + completion * price.output) / 1e6, 6)
        return {**counts, **({"answers_without_usage": unknown} if unknown else {})}

    @contextmanager
    def asking(self, subjects: Subjects) -> Iterator[Ask]:
        """See `captioners.base.Loaded`. A job goes on from the answers that one before it was given.

        The server of a command is started when it is first needed, and runs until the end of the block.
        """
        made_of = sha256_json([self._section.asked_with(), subjects.content])
        requests, options = self._section.asked(), partial(options_of, self._section)
        questions = Questions(requests, options, self._messages)
        with ExitStack() as stack, Journal(subjects.scratch, made_of, Answer) as journal:
            endpoints: list[tuple[Endpoint, Guard | None]] = []

            def ask(wanted: Wanted) -> dict[tuple[int, str], Generated]:
                keys = {(place, name): (place, name, wanted.attempt) for place, name in wanted}
                left = {place for place, name in wanted if keys[place, name] not in journal.answers}
                if len(left) < len(wanted.names):
                    _LOG.info("goes on after %d pictures that have answers", len(wanted.names) - len(left))
                if left and not endpoints:
                    log = subjects.scratch / "server.log"
                    endpoints.append(stack.enter_context(self._endpoint(log)))
                if left:
                    todo = Wanted({place: wanted.names[place] for place in sorted(left)}, wanted.attempt)
                    failed = asyncio.run(ask_all(*endpoints[0], questions, subjects, todo, journal))
                    self._answers |= failed
                self._answers |= {
                    key: journal.answers[key] for key in keys.values() if key in journal.answers
                }
                return {asked: _generated(self._answers[key]) for asked, key in keys.items()}

            yield ask

    def _models(self) -> dict[str, int]:
        """Name of a model, as the server gives it -> its answers."""
        found = Counter(a.model for a in self._answers.values() if isinstance(a, Answer) and a.model)
        return dict(sorted(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:_NUM_MODELS]))

    @contextmanager
    def _endpoint(self, log: Path) -> Iterator[tuple[Endpoint, Guard | None]]:
        """Whom to ask; with a command, the server runs for the block."""
        section, asked = self._section, self._section.requests
        port = str(free_port()) if section.command else ""
        url = section.url.replace(PORT, port)
        # A server that lies must not fill the memory: a part holds all of its answers.
        most_tokens = max(request.max_new_tokens for request in section.asked().values())
        max_bytes = _MAX_BYTES + _MAX_BYTES_PER_TOKEN * most_tokens
        limits = (asked.concurrency, asked.timeout_s, asked.num_retries, max_bytes)
        endpoint = Endpoint(url, self._key, asked.key_variable, *limits, section.key)
        if not section.command:
            yield endpoint, None
            return
        with running([word.replace(PORT, port) for word in section.command], log) as process:
            yield endpoint, Guard(process, log, endpoint, asked.start_timeout_s)


def _generated(found: Answer | Failed) -> Generated:
    if isinstance(found, Failed):
        return Generated("", None, found.word)
    return Generated(found.text, found.completion_tokens, found.finish_reason)
