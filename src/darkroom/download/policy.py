"""What may be fetched: URLs and their ports; `addresses` has the addresses, `manners` what servers ask for.

Rules of another kind (registries of opt-outs) implement `FetchPolicy` and are handed to the opener; nothing else
has to change.
"""

import ipaddress
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Protocol

from darkroom.download.status import BLOCKED_PORT, BLOCKED_SCHEME, INVALID_URL, FetchError

AGENT_TOKEN = "darkroom"
"""Our product name: in the User-Agent header, and in directives that are meant for us alone."""

MAX_URL_CHARS = 8_192
"""What servers take as a request line, and more than any list's honest URL has."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?")
_SAFE = "/%:@!$&'()*+,;=~-._[]|"
# Ports of other protocols, at which a request of ours could be taken for one of theirs: the "bad ports" of the
# Fetch standard of WHATWG, as browsers refuse them.
_PORTS = """
    0 1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113 115 117 119
    123 135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601 636 989
    990 993 995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665 6666 6667 6668 6669 6679 6697 10080
"""
_OTHER_PROTOCOLS = frozenset(int(port) for port in _PORTS.split())


@dataclass(frozen=True)
class Target:
    """Where a URL leads. `path` is quoted and includes the query; the fragment is gone."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str) -> Target:
    """Split `url`, quoting what HTTP does not allow in a request line (spaces, non-ASCII).

    Raises:
        FetchError: blocked_scheme, blocked_port or invalid_url.
    """
    if len(url) > MAX_URL_CHARS:
        raise FetchError(INVALID_URL, f"the URL is longer than {MAX_URL_CHARS} characters")
    try:
        parts = urllib.parse.urlsplit(url.strip())
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as error:
        raise FetchError(INVALID_URL, "the URL cannot be parsed") from error
    if scheme not in _DEFAULT_PORTS:
        what = f"{scheme}:" if scheme else "a URL without a scheme"
        raise FetchError(BLOCKED_SCHEME, f"only http: and https: are fetched, not {what}")
    if not host:
        raise FetchError(INVALID_URL, "the URL names no host")
    if port in _OTHER_PROTOCOLS:
        raise FetchError(BLOCKED_PORT, f"port {port} is that of another protocol")
    query = f"?{urllib.parse.quote(parts.query, safe=_SAFE + '?')}" if parts.query else ""
    path = (urllib.parse.quote(parts.path, safe=_SAFE) or "/") + query
    return Target(scheme, _ascii_host(host), port or _DEFAULT_PORTS[scheme], path)


def _ascii_host(host: str) -> str:
    if ":" in host:  # urlsplit leaves IPv6 literals without their brackets
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise FetchError(INVALID_URL, "the URL's IPv6 address is not one") from error
    try:
        ascii_host = host.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise FetchError(INVALID_URL, "the URL's host name is not valid") from error
    if not _HOST.fullmatch(ascii_host):
        raise FetchError(INVALID_URL, "the URL's host name is not valid")
    return ascii_host


class FetchPolicy(Protocol):
    """A rule that can refuse a fetch by raising FetchError; both methods run in fetch threads."""

    def before_request(self, target: Target) -> None:
        """Called before anything is sent, for the URL of the list and for every redirect."""

    def after_headers(self, target: Target, headers: Message) -> Sequence[str]:
        """Called with the headers of a successful answer, before its body is read.

        Returns: what reserves the use of the picture and does not refuse it, for the table's `opt_outs`.
        """
