"""The options of who asks a server, whatever about: an endpoint of OpenAI's chat completions API."""

import os
import re
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from darkroom.captioners.base import CaptionerSection, Request
from darkroom.captioners.served import is_loopback
from darkroom.settings.base import Section

PORT = "{port}"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUM_SEEDS = 2**31


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


class ServedSection(CaptionerSection):
    """An endpoint of the chat completions API, and its decoding; a kind of captioner adds `kind` and more."""

    can_sample: ClassVar[bool] = True

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
        url, example = self.url.replace(PORT, "1"), "http://127.0.0.1:8000/v1"
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError(f"url: {self.url!r} is no address of an API such as {example}")
        has_port = PORT in self.url and any(PORT in word for word in self.command)
        if not has_port and (self.command or PORT in self.url):
            raise ValueError(
                f"command: it goes together with {PORT}, which stands in it and in url, as in"
                f" {example.replace('8000', PORT)}"
            )
        if self.command and not is_loopback(url):
            raise ValueError(f"url: the server of a command is on this machine: 127.0.0.1, not {self.url}")
        return self


def missing_here(section: ServedSection) -> str:
    """What a job needs that is not there, in a sentence; jobs may run where it is."""
    name = section.requests.key_variable
    if name is None or os.environ.get(name):
        return ""
    return (
        f"{section.key}.requests.key_variable: the environment variable {name} is not set here; jobs that ask"
        f" {section.url} need it where they run"
    )


def options_of(section: ServedSection, request: Request, uid: str, attempt: int) -> dict[str, Any]:
    """All of a request but its message."""
    options: dict[str, Any] = {"model": section.model, section.limit_name: request.max_new_tokens}
    seed, temperature = section.seed, request.temperature_at(attempt)
    if seed is not None and temperature != 0:
        seed = (seed + request.seed(uid, attempt)) % _NUM_SEEDS
    sampling = {"temperature": temperature, "seed": seed}
    options |= {name: number for name, number in sampling.items() if number is not None}
    return {**options, **({"top_p": request.top_p} if request.top_p < 1 else {})}


def key_of(section: ServedSection) -> str | None:
    """The key of the environment. Raises ValueError, which does not quote it."""
    name = section.requests.key_variable
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ValueError(f"{missing_here(section)}: export {name}=KEY")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            f"{section.key}.requests.key_variable: what the environment variable {name} holds is no key: it has"
            " spaces or signs that no key has"
        )
    return key
