"""The chat completions API as servers of many makes speak it: a request, and what an answer says.

https://platform.openai.com/docs/api-reference/chat. An answer is read as what anybody may have written: whatever
it is, it ends as an `Answer` or as a `Failed` with one word.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# How an answer ends. The last two are the server's own decision, and there is no text.
STOP, LENGTH, CONTENT_FILTER, REFUSAL = "stop", "length", "content_filter", "refusal"
# Why there is no answer, beside `http_<code>`.
CONNECTION_ERROR, TIMEOUT, INCOMPLETE, TOO_LARGE = "connection_error", "timeout", "incomplete", "too_large"
HTML, NOT_JSON, NO_CHOICES, WRONG_TYPE = "html", "not_json", "no_choices", "wrong_type"
WORDS = (CONNECTION_ERROR, TIMEOUT, INCOMPLETE, TOO_LARGE, HTML, NOT_JSON, NO_CHOICES, WRONG_TYPE)

_MAX_TOKENS = 2**31 - 1  # of the column's type
_NUM_QUOTED = 200  # characters of a server's words
_MAY_PASS = frozenset({CONNECTION_ERROR, TIMEOUT, INCOMPLETE, HTML, NOT_JSON})
_CODES_THAT_MAY_PASS = frozenset({408, 409, 425, 429})
# Codes that say of a request, and not of the server, that it is wrong.
_CODES_OF_A_REQUEST = frozenset({400, 413, 415, 422})
_FILTERED = frozenset({"content_filter", "content_policy_violation"})


@dataclass(frozen=True)
class Answer:
    """What the server said of one request. Tokens are None, and the model empty, where it did not say."""

    text: str
    finish_reason: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str = ""


@dataclass(frozen=True)
class Failed:
    """Why there is no answer: a word, the server's own words if any, and the pause that it asked for, seconds."""

    word: str
    detail: str = ""
    wait_s: float = 0.0

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered later."""
        return self.word in _MAY_PASS or self._code in _CODES_THAT_MAY_PASS or self._code >= 500

    @property
    def is_of_server(self) -> bool:
        """Whether every other request would end in the same way as long as nothing is mended."""
        return self.word in _MAY_PASS or (self._code >= 300 and self._code not in _CODES_OF_A_REQUEST)

    @property
    def _code(self) -> int:
        return int(self.word.removeprefix("http_")) if self.word.startswith("http_") else 0


def request_body(options: Mapping[str, Any], content: Any) -> bytes:
    """A request's JSON. content: of the one message, words alone or with a picture."""
    return json.dumps({**options, "messages": [{"role": "user", "content": content}]}).encode()


def read_answer(code: int, content: bytes) -> Answer | Failed:
    """What an HTTP status and a whole body say."""
    if code != 200:
        return _read_error(code, content)
    body = _json(content)
    if body is None:
        return Failed(HTML if content.lstrip()[:1] == b"<" else NOT_JSON, quoted(content))
    choices = body.get("choices") if isinstance(body, dict) else None
    if choices == []:
        return Failed(NO_CHOICES, quoted(content))
    choice = choices[0] if isinstance(choices, list) else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(body, dict) or not isinstance(choice, dict) or not isinstance(message, dict):
        return Failed(WRONG_TYPE, quoted(content))
    return _read_message(body, choice.get("finish_reason"), message) or Failed(WRONG_TYPE, quoted(content))


def quoted(content: bytes | str) -> str:
    """The beginning of what a server said, in one line that is safe to print."""
    text = content[: 4 * _NUM_QUOTED].decode(errors="replace") if isinstance(content, bytes) else content
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:_NUM_QUOTED]


def _read_message(body: Mapping[str, Any], reason: Any, message: Mapping[str, Any]) -> Answer | None:
    text, refusal, model = message.get("content"), message.get("refusal"), body.get("model")
    usage = body.get("usage")
    told = usage if isinstance(usage, dict) else {}
    about = {
        "prompt_tokens": _tokens(told.get("prompt_tokens")),
        "completion_tokens": _tokens(told.get("completion_tokens")),
        "model": quoted(_plain(model)) if isinstance(model, str) else "",
    }
    if reason == CONTENT_FILTER:
        return Answer("", CONTENT_FILTER, **about)  # type: ignore[arg-type]
    if isinstance(refusal, str) and refusal:
        return Answer("", REFUSAL, **about)  # type: ignore[arg-type]
    if text is None and reason == LENGTH:
        # All tokens went into what the model thinks before it speaks.
        text = ""
    if not isinstance(text, str):
        return None
    # Makes of servers have words of their own for the model's end.
    return Answer(_plain(text), LENGTH if reason == LENGTH else STOP, **about)  # type: ignore[arg-type]


def _read_error(code: int, content: bytes) -> Answer | Failed:
    body = _json(content)
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and code in _CODES_OF_A_REQUEST and str(error.get("code")) in _FILTERED:
        return Answer("", CONTENT_FILTER)
    said = error.get("message") if isinstance(error, dict) else error
    # What refuses a key may repeat it.
    detail = "" if code in (401, 403) else quoted(said if isinstance(said, str) else content)
    return Failed(f"http_{code}", detail)


def _json(content: bytes) -> Any:
    """What the JSON says; None where it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _plain(text: str) -> str:
    """Text that any file holds: JSON can have halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode().strip()


def _tokens(number: Any) -> int | None:
    is_number = isinstance(number, int) and not isinstance(number, bool)
    return number if is_number and 0 <= number <= _MAX_TOKENS else None
