"""`kind: server`: any endpoint of OpenAI's chat completions API (vLLM, SGLang, llama.cpp, a company's)."""

import asyncio
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from darkroom.captioners.base import Ask, Captioner, CaptionerSection, Generated, Pictures, Request, Wanted
from darkroom.captioners.served import is_loopback
from darkroom.components.base import Component
from darkroom.settings.base import Section

if TYPE_CHECKING:
    from darkroom.captioners.served.ask import Guard, Question
    from darkroom.captioners.served.chat import Answer, Failed
    from darkroom.captioners.served.client import Endpoint

_PORT = "{port}"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Of an answer, beside its text, and of the text; letters may be six bytes of JSON each.
_MAX_BYTES, _MAX_BYTES_PER_TOKEN = 64_000, 200
_NUM_SEEDS = 2**31
_NUM_MODELS = 20  # names of a part that a server may give
_LOG = logging.getLogger(__name__)


class Price(Section):
    """What a million tokens cost, in any one currency."""

    input: float = Field(ge=0, description="of prompts, pictures included")
    output: float = Field(ge=0, description="of captions")


class Requests(Section):
    """How the server is asked. None of it changes what a caption is, so none of it is recorded."""

    key_variable: str | None = Field(
        None,
        description="variable of the environment that holds the key, e.g. OPENAI_API_KEY; null: no key is sent",
    )
    concurrency: int = Field(32, ge=1, le=1024, description="requests under way at once, of one part")
    timeout_s: float = Field(120.0, gt=0, description="longest wait for a whole answer, seconds")
    num_retries: int = Field(8, ge=0, le=20, description="more tries after a failure that may pass")
    start_timeout_s: float = Field(
        900.0, gt=0, description="longest wait until the server of `command` takes requests, seconds"
    )
    price_per_million_tokens: Price | None = Field(
        None, description="what tokens cost; the manifest then tells the cost"
    )

    @model_validator(mode="after")
    def _is_a_name(self) -> Self:
        if self.key_variable is not None and not _NAME.fullmatch(self.key_variable):
            # Not quoted: it may be the key.
            raise ValueError("key_variable: it should be a variable's name, such as OPENAI_API_KEY")
        return self


class Server(CaptionerSection):
    """An endpoint of the chat completions API, and its decoding."""

    can_sample: ClassVar[bool] = True

    kind: Literal["server"]
    url: str = Field(
        description="of the API, e.g. https://api.example/v1; with `command`, {port} stands for a free port"
    )
    model: str = Field(min_length=1, description="name of the model, as the server knows it")
    temperature: float | None = Field(  # type: ignore[assignment]
        0.0, ge=0, le=2, description="of sampling; null: the server's own"
    )
    seed: int | None = Field(
        0,
        description="of sampling: sent as it is with temperature 0, and else one of it, the picture, the caption"
        " and the try; null: none is sent",
    )
    limit_name: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens",
        description="what the API calls max_new_tokens; OpenAI's newer models take the second alone",
    )
    detail: Literal["auto", "low", "high"] | None = Field(
        None, description="how closely the picture is looked at, where the server knows it; null: not sent"
    )
    max_side_px: int = Field(
        1024, ge=16, description="pictures with a longer side are reduced before they are sent"
    )
    command: tuple[str, ...] = Field(
        (),
        description="starts the server beside each job, in words, e.g. [vllm, serve, NAME, --port, '{port}']",
    )
    requests: Requests = Field(Requests(), exclude=True, description="how the server is asked")

    @field_validator("url")
    @classmethod
    def _without_end(cls, url: str) -> str:
        return url.rstrip("/")

    @model_validator(mode="after")
    def _holds_no_key(self) -> Self:
        # Of the whole section: an error of one option would quote it, and that may be a key.
        if any(sign in self.url for sign in "@?#"):
            raise ValueError(
                "url: it has a user, a query or a fragment; a key is given by requests.key_variable alone"
            )
        if any(word.lstrip("-").replace("_", "-").lower().startswith("api-key") for word in self.command):
            raise ValueError(
                "command: a key stands in the environment alone; servers read it there (vLLM: VLLM_API_KEY), and"
                " requests.key_variable names it"
            )
        return self

    @model_validator(mode="after")
    def _is_an_address(self) -> Self:
        url, example = self.url.replace(_PORT, "1"), "http://127.0.0.1:8000/v1"
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError(f"url: {self.url!r} is no address of an API such as {example}")
        has_port = _PORT in self.url and any(_PORT in word for word in self.command)
        if not has_port and (self.command or _PORT in self.url):
            raise ValueError(
                f"command: it goes together with {_PORT}, which stands in it and in url, as in"
                f" {example.replace('8000', _PORT)}"
            )
        if self.command and not is_loopback(url):
            raise ValueError(f"url: the server of a command is on this machine: 127.0.0.1, not {self.url}")
        return self


def missing_here(section: Server) -> str:
    """What a job needs that is not there, in a sentence; jobs may run where it is."""
    name = section.requests.key_variable
    if name is None or os.environ.get(name):
        return ""
    return (
        f"recaption.requests.key_variable: the environment variable {name} is not set here; jobs that ask"
        f" {section.url} need it where they run"
    )


class _Loaded:
    """See `captioners.base.Loaded`: many requests of a part are under way at once."""

    def __init__(self, section: Server) -> None:
        import httpx

        self._section = section
        self._key = _key(section)
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
        names = ("model", "seed", "limit_name", "detail", "max_side_px")
        return {name: getattr(self._section, name) for name in names}

    @property
    def counts(self) -> Mapping[str, Any]:
        from darkroom.captioners.served.chat import Answer, Failed

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
    def asking(self, pictures: Pictures) -> Iterator[Ask]:
        """See `captioners.base.Loaded`. A job goes on from the answers that one before it was given.

        The server of a command is started when it is first needed, and runs until the end of the block.
        """
        from darkroom.captioners.served.ask import Questions, ask_all
        from darkroom.captioners.served.journal import Journal
        from darkroom.store.digest import sha256_json

        # What is done to an answer afterwards makes none of it again.
        later: Any = {"strip_prefixes": True, "captions": {"__all__": {"strip_prefixes"}}}
        settings = self._section.model_dump(mode="json", exclude=later)
        made_of = sha256_json([settings, list(pictures.uids)])
        questions = Questions(_bodies(self._section), self._section.detail, self._section.max_side_px)
        with ExitStack() as stack, Journal(pictures.scratch, made_of) as journal:
            endpoints: list[tuple[Endpoint, Guard | None]] = []

            def ask(wanted: Wanted) -> dict[tuple[int, str], Generated]:
                keys = {(place, name): (place, name, wanted.attempt) for place, name in wanted}
                left = {place for place, name in wanted if keys[place, name] not in journal.answers}
                if len(left) < len(wanted.names):
                    _LOG.info("goes on after %d pictures that have answers", len(wanted.names) - len(left))
                if left and not endpoints:
                    log = pictures.scratch / "server.log"
                    endpoints.append(stack.enter_context(self._endpoint(log)))
                if left:
                    todo = Wanted({place: wanted.names[place] for place in sorted(left)}, wanted.attempt)
                    failed = asyncio.run(ask_all(*endpoints[0], questions, pictures, todo, journal))
                    self._answers |= failed
                self._answers |= {
                    key: journal.answers[key] for key in keys.values() if key in journal.answers
                }
                return {asked: _generated(self._answers[key]) for asked, key in keys.items()}

            yield ask

    def _models(self) -> dict[str, int]:
        """Name of a model, as the server gives it -> its answers."""
        from darkroom.captioners.served.chat import Answer

        found = Counter(a.model for a in self._answers.values() if isinstance(a, Answer) and a.model)
        return dict(sorted(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:_NUM_MODELS]))

    @contextmanager
    def _endpoint(self, log: Path) -> "Iterator[tuple[Endpoint, Guard | None]]":
        """Whom to ask; with a command, the server runs for the block."""
        from darkroom.captioners.served.ask import Guard
        from darkroom.captioners.served.client import Endpoint
        from darkroom.captioners.served.process import free_port, running

        section, asked = self._section, self._section.requests
        port = str(free_port()) if section.command else ""
        url = section.url.replace(_PORT, port)
        # A server that lies must not fill the memory: a part holds all of its answers.
        most_tokens = max(request.max_new_tokens for request in section.asked().values())
        max_bytes = _MAX_BYTES + _MAX_BYTES_PER_TOKEN * most_tokens
        limits = (asked.concurrency, asked.timeout_s, asked.num_retries, max_bytes)
        endpoint = Endpoint(url, self._key, asked.key_variable, *limits)
        if not section.command:
            yield endpoint, None
            return
        with running([word.replace(_PORT, port) for word in section.command], log) as process:
            yield endpoint, Guard(process, log, endpoint, asked.start_timeout_s)


def _bodies(section: Server) -> "Mapping[str, Question]":
    """Name of a caption -> how it is asked for."""
    from darkroom.captioners.served.ask import Question

    return {
        name: Question(request.prompt, partial(_options, section, request))
        for name, request in section.asked().items()
    }


def _options(section: Server, request: Request, uid: str, attempt: int) -> dict[str, Any]:
    """All of a request but its message."""
    options: dict[str, Any] = {"model": section.model, section.limit_name: request.max_new_tokens}
    seed, temperature = section.seed, request.temperature_at(attempt)
    if seed is not None and temperature != 0:
        seed = (seed + request.seed(uid, attempt)) % _NUM_SEEDS
    sampling = {"temperature": temperature, "seed": seed}
    options |= {name: number for name, number in sampling.items() if number is not None}
    return {**options, **({"top_p": request.top_p} if request.top_p < 1 else {})}


def _generated(found: "Answer | Failed") -> Generated:
    from darkroom.captioners.served.chat import Failed

    if isinstance(found, Failed):
        return Generated("", None, found.word)
    return Generated(found.text, found.completion_tokens, found.finish_reason)


def _key(section: Server) -> str | None:
    """The key of the environment. Raises ValueError, which does not quote it."""
    name = section.requests.key_variable
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ValueError(f"{missing_here(section)}: export {name}=KEY")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            f"recaption.requests.key_variable: what the environment variable {name} holds is no key: it has spaces"
            " or signs that no key has"
        )
    return key


def _load(section: Server, components: Mapping[str, Component]) -> _Loaded:
    del components
    return _Loaded(section)


SPEC = Captioner("server", Server, _load, missing=missing_here)
