"""How a row ended: the words of the column `status`, and how a failure travels through img2dataset.

| status             | the row ended because                                                     | transient |
|--------------------|---------------------------------------------------------------------------|-----------|
| ok                 | the picture is in the shard                                               |           |
| http_<code>        | the server answered with that code (neither 2xx nor a redirect)           | some (*)  |
| timeout            | silence longer than timeout_s, or total_timeout_s was used up             | yes       |
| connection_error   | DNS, refused, reset, cut short, TLS, or an answer that is not HTTP        | yes       |
| too_many_bytes     | the body is (or says it is) larger than max_bytes                         | no        |
| too_many_redirects | more than MAX_REDIRECTS redirects                                         | no        |
| no_url             | the row has no URL: the list leaves it empty, or it was withdrawn         | no        |
| invalid_url        | the URL has no host, a bad port, a bad host name or too many characters   | no        |
| blocked_scheme     | neither http nor https, in the list or after a redirect                   | no        |
| blocked_address    | the host has no address that may be contacted                             | no        |
| blocked_port       | the URL names a port of another protocol (mail, remote shells, ...)       | no        |
| opted_out          | its server, or a mark in it, reserves this use; `opt_outs` has the words  | no        |
| robots_disallowed  | the host's robots.txt disallows it; not asked for                         | no        |
| robots_unreachable | the host's robots.txt cannot be had now, which disallows all for now      | yes       |
| host_busy          | the host wants a longer pause than a fetch may take; not asked for        | yes       |
| empty_body         | a successful answer without a byte                                        | no        |
| not_an_image       | the bytes do not begin like any picture (an HTML page named .jpg)         | no        |
| truncated_image    | begins like a picture and cannot be decoded to its end: cut or damaged    | no        |
| too_many_pixels    | the header announces more than max_pixels, or a side above 65,535         | no        |
| animated_image     | more than one frame or page                                               | no        |
| unsupported_image  | a picture of a format, or of a kind of a format, that is not decoded      | no        |
| too_costly         | it would take more work, memory or time than any honest picture           | no        |
| decoder_died       | the process that decoded it was ended by it, twice                        | no        |
| job_died           | the part's job died while it was decoded, twice, the second time alone    | no        |
| duplicate_url      | an earlier row has the same URL, and keeps this caption; not fetched      | no        |
| no_caption         | a file whose caption is missing, empty or no UTF-8; not opened            | no        |
| no_picture         | a caption without a picture, or a file that is not there (any more)       | no        |
| blocked_path       | a path or link out of the source's folder, or a link to a folder          | no        |
| unreadable_file    | a file that may not be read, or is no regular file                        | no        |
| internal_error     | a fault in this program; the log has the traceback                        | yes       |

(*) 408, 425, 429 and 5xx. "Transient" means that another try may end differently: the opener tries
those again at once (`num_retries`), and a later round of retries fetches those rows again. The column
`error` holds one sentence for people. It is free of times, addresses in memory and ephemeral ports,
so that the same answers make the same table.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

OK = "ok"
TIMEOUT = "timeout"
CONNECTION_ERROR = "connection_error"
TOO_MANY_BYTES = "too_many_bytes"
TOO_MANY_REDIRECTS = "too_many_redirects"
NO_URL = "no_url"
INVALID_URL = "invalid_url"
BLOCKED_SCHEME = "blocked_scheme"
BLOCKED_ADDRESS = "blocked_address"
BLOCKED_PORT = "blocked_port"
OPTED_OUT = "opted_out"
ROBOTS_DISALLOWED = "robots_disallowed"
ROBOTS_UNREACHABLE = "robots_unreachable"
HOST_BUSY = "host_busy"
EMPTY_BODY = "empty_body"
NOT_AN_IMAGE = "not_an_image"
TRUNCATED_IMAGE = "truncated_image"
TOO_MANY_PIXELS = "too_many_pixels"
ANIMATED_IMAGE = "animated_image"
UNSUPPORTED_IMAGE = "unsupported_image"
TOO_COSTLY = "too_costly"
DECODER_DIED = "decoder_died"
JOB_DIED = "job_died"
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
        NO_URL,
        INVALID_URL,
        BLOCKED_SCHEME,
        BLOCKED_ADDRESS,
        BLOCKED_PORT,
        OPTED_OUT,
        ROBOTS_DISALLOWED,
        ROBOTS_UNREACHABLE,
        HOST_BUSY,
        EMPTY_BODY,
        NOT_AN_IMAGE,
        TRUNCATED_IMAGE,
        TOO_MANY_PIXELS,
        ANIMATED_IMAGE,
        UNSUPPORTED_IMAGE,
        TOO_COSTLY,
        DECODER_DIED,
        JOB_DIED,
        DUPLICATE_URL,
        NO_CAPTION,
        NO_PICTURE,
        BLOCKED_PATH,
        UNREADABLE_FILE,
        INTERNAL_ERROR,
    }
)
"""Every status except the family `http_<code>`."""

TRANSIENT = frozenset(
    {
        TIMEOUT,
        CONNECTION_ERROR,
        ROBOTS_UNREACHABLE,
        HOST_BUSY,
        INTERNAL_ERROR,
        "http_408",
        "http_425",
        "http_429",
    }
)
"""Statuses worth another try, besides every `http_5xx`."""

TRANSPORT = frozenset({TIMEOUT, CONNECTION_ERROR})
"""Statuses of rows that got no answer: a network, or a name server, that fails makes them by the thousand."""

_HTTP = re.compile(r"http_[0-9]{3}")


def is_status(text: str) -> bool:
    """Whether `text` is a word of the vocabulary."""
    return text in STATUSES or _HTTP.fullmatch(text) is not None


def is_transient(status: str) -> bool:
    """Whether a later try of a row that ended with `status` may succeed."""
    return status in TRANSIENT or status.startswith("http_5")


def printable(text: str) -> str:
    """`text` in one line without control characters: what a server sends can neither forge a line nor paint."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def indented(text: str) -> str:
    """Lines of a traceback, each printable and further to the right than any line of ours."""
    return "\n".join(f"    {printable(line)}" for line in text.rstrip("\n").split("\n"))


@dataclass(frozen=True)
class Failure:
    """Why a row has no picture. `sha256` and `num_bytes` are of the body, when one arrived; `opt_outs` is what
    reserves its use, and `same_bytes` whether the list's hash is the body's, as in the table."""

    status: str
    error: str
    sha256: str | None = None
    num_bytes: int | None = None
    opt_outs: tuple[str, ...] = ()
    same_bytes: bool | None = None

    def to_message(self) -> str:
        """As one string: img2dataset carries failures as the text of an exception."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_message(cls, message: str) -> "Failure":
        """The inverse of `to_message`; a string that is not ours becomes an `internal_error`."""
        try:
            told = json.loads(message)
            failure = cls(**{**told, "opt_outs": tuple(told.get("opt_outs", ()))})
        except (ValueError, TypeError, AttributeError):
            return cls(INTERNAL_ERROR, "img2dataset reported a failure that is not in our vocabulary")
        return failure if is_status(failure.status) else cls(INTERNAL_ERROR, failure.error)


class Refused(Exception):
    """A picture that is not stored: a status and a sentence."""

    def __init__(self, status: str, error: str) -> None:
        self.status = status
        self.error = error
        super().__init__(f"{status}: {error}")


class FetchError(Exception):
    """A fetch that ended without a body; its text is what `Failure.from_message` reads.

    Args:
        status: a word of the vocabulary.
        error: one sentence for people.
        final: do not try again, although the status is transient.
        wait_s: how long the server asked us to wait before another try.
        opt_outs: what reserves the use, as in the table.
    """

    def __init__(
        self,
        status: str,
        error: str,
        *,
        final: bool = False,
        wait_s: float = 0.0,
        opt_outs: Sequence[str] = (),
    ) -> None:
        self.failure = Failure(status, error, opt_outs=tuple(opt_outs))
        self.retry = is_transient(status) and not final
        self.wait_s = wait_s
        super().__init__(self.failure.to_message())
