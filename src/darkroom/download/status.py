"""How a row ended: the words of the column `status`, and how a failure travels through img2dataset.

| status             | the row ended because                                                     | transient |
|--------------------|---------------------------------------------------------------------------|-----------|
| ok                 | the picture is in the shard                                               |           |
| http_<code>        | the server answered with that code (neither 2xx nor a redirect)           | some (*)  |
| timeout            | silence longer than timeout_s, or total_timeout_s was used up             | yes       |
| connection_error   | DNS, refused, reset, cut short, TLS, or an answer that is not HTTP        | yes       |
| too_many_bytes     | the body is (or says it is) larger than max_bytes                         | no        |
| too_many_redirects | more than MAX_REDIRECTS redirects                                         | no        |
| invalid_url        | the URL cannot be parsed: no host, a bad port, a bad host name            | no        |
| blocked_scheme     | neither http nor https, in the list or after a redirect                   | no        |
| blocked_address    | the host has no public address, and none in allow_networks                | no        |
| opted_out          | the server's X-Robots-Tag refuses this use                                | no        |
| empty_body         | a successful answer without a byte                                        | no        |
| not_an_image       | the bytes do not begin like any picture (an HTML page named .jpg)         | no        |
| truncated_image    | begins like a picture and cannot be decoded to its end: cut or damaged    | no        |
| too_many_pixels    | the header announces more than max_pixels; nothing was decoded            | no        |
| animated_image     | more than one frame                                                       | no        |
| unsupported_image  | a picture, of a format that is not JPEG, PNG, WebP or GIF                 | no        |
| duplicate_url      | an earlier row of the same part has the same URL; not fetched             | no        |
| no_caption         | a file whose caption is missing, empty or no UTF-8; not opened            | no        |
| no_picture         | a caption file beside which no picture lies                               | no        |
| blocked_path       | a link that leads out of the source's folder; not opened                  | no        |
| unreadable_file    | a file that vanished, may not be read, or is no regular file              | no        |
| internal_error     | a fault in this program; the log has the traceback                        | yes       |

(*) 408, 425, 429 and 5xx. "Transient" means that another try may end differently: the opener tries
those again at once (`num_retries`), and a later round of retries may use the same rule. The column
`error` holds one sentence for people. It is free of times, addresses in memory and ephemeral ports,
so that the same answers make the same table.
"""

import json
import re
from dataclasses import asdict, dataclass

OK = "ok"
TIMEOUT = "timeout"
CONNECTION_ERROR = "connection_error"
TOO_MANY_BYTES = "too_many_bytes"
TOO_MANY_REDIRECTS = "too_many_redirects"
INVALID_URL = "invalid_url"
BLOCKED_SCHEME = "blocked_scheme"
BLOCKED_ADDRESS = "blocked_address"
OPTED_OUT = "opted_out"
EMPTY_BODY = "empty_body"
NOT_AN_IMAGE = "not_an_image"
TRUNCATED_IMAGE = "truncated_image"
TOO_MANY_PIXELS = "too_many_pixels"
ANIMATED_IMAGE = "animated_image"
UNSUPPORTED_IMAGE = "unsupported_image"
DUPLICATE_URL = "duplicate_url"
NO_CAPTION = "no_caption"
NO_PICTURE = "no_picture"
BLOCKED_PATH = "blocked_path"
UNREADABLE_FILE = "unreadable_file"
INTERNAL_ERROR = "internal_error"

STATUSES = frozenset(
    {
        OK,
        TIMEOUT,
        CONNECTION_ERROR,
        TOO_MANY_BYTES,
        TOO_MANY_REDIRECTS,
        INVALID_URL,
        BLOCKED_SCHEME,
        BLOCKED_ADDRESS,
        OPTED_OUT,
        EMPTY_BODY,
        NOT_AN_IMAGE,
        TRUNCATED_IMAGE,
        TOO_MANY_PIXELS,
        ANIMATED_IMAGE,
        UNSUPPORTED_IMAGE,
        DUPLICATE_URL,
        NO_CAPTION,
        NO_PICTURE,
        BLOCKED_PATH,
        UNREADABLE_FILE,
        INTERNAL_ERROR,
    }
)
"""Every status except the family `http_<code>`."""

TRANSIENT = frozenset({TIMEOUT, CONNECTION_ERROR, INTERNAL_ERROR, "http_408", "http_425", "http_429"})
"""Statuses worth another try, besides every `http_5xx`."""

_HTTP = re.compile(r"http_[0-9]{3}")


def is_status(text: str) -> bool:
    """Whether `text` is a word of the vocabulary."""
    return text in STATUSES or _HTTP.fullmatch(text) is not None


def is_transient(status: str) -> bool:
    """Whether a later try of a row that ended with `status` may succeed."""
    return status in TRANSIENT or status.startswith("http_5")


@dataclass(frozen=True)
class Failure:
    """Why a row has no picture. `sha256` and `num_bytes` are of the body, when one arrived."""

    status: str
    error: str
    sha256: str | None = None
    num_bytes: int | None = None

    def to_message(self) -> str:
        """As one string: img2dataset carries failures as the text of an exception."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_message(cls, message: str) -> "Failure":
        """The inverse of `to_message`; a string that is not ours becomes an `internal_error`."""
        try:
            failure = cls(**json.loads(message))
        except (ValueError, TypeError):
            return cls(INTERNAL_ERROR, "img2dataset reported a failure that is not in our vocabulary")
        return failure if is_status(failure.status) else cls(INTERNAL_ERROR, failure.error)


class FetchError(Exception):
    """A fetch that ended without a body; its text is what `Failure.from_message` reads.

    Args:
        status: a word of the vocabulary.
        error: one sentence for people.
        final: do not try again, although the status is transient.
        wait_s: how long the server asked us to wait before another try.
    """

    def __init__(self, status: str, error: str, *, final: bool = False, wait_s: float = 0.0) -> None:
        self.failure = Failure(status, error)
        self.retry = is_transient(status) and not final
        self.wait_s = wait_s
        super().__init__(self.failure.to_message())
