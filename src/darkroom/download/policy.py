"""What may be fetched: URLs, addresses, and what a server's headers forbid.

Policies that need more than this (robots.txt, opt-out registries, per-host politeness) implement
`FetchPolicy` and are handed to the opener; nothing else has to change.
"""

import ipaddress
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Protocol

from darkroom.download.status import BLOCKED_SCHEME, INVALID_URL, OPTED_OUT, FetchError

AGENT_TOKEN = "darkroom"
"""Our product name: in the User-Agent header, and in directives that are meant for us alone."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?")
_SAFE = "/%:@!$&'()*+,;=~-._[]|"
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


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
        FetchError: blocked_scheme or invalid_url.
    """
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


class AddressPolicy:
    """Public internet addresses, and those inside `allow_networks` (CIDR strings).

    Raises:
        ValueError: a network of `allow_networks` is not one.
    """

    def __init__(self, allow_networks: Iterable[str] = ()) -> None:
        self._allowed: list[Network] = []
        for network in allow_networks:
            try:
                self._allowed.append(ipaddress.ip_network(network))
            except ValueError as error:
                raise ValueError(
                    f"allow_networks: {network!r} is not a network such as 127.0.0.0/8 ({error})"
                ) from error

    def allows(self, address: str) -> bool:
        """Whether a connection to this numeric address may be made; False if it is not one."""
        try:
            plain = _unwrap(ipaddress.ip_address(address))
        except ValueError:
            return False
        if any(plain in network for network in self._allowed):
            return True
        # is_global alone is not enough: it is true for multicast, and for the old site-local IPv6 block.
        if plain.version == 6 and plain not in _GLOBAL_UNICAST:
            return False
        return plain.is_global and not (plain.is_multicast or plain.is_reserved)


def _unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for: ::ffff:a.b.c.d, NAT64 and 6to4."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.sixtofour is not None:
            return address.sixtofour
    return address


class FetchPolicy(Protocol):
    """A rule that can refuse a fetch by raising FetchError; both methods run in fetch threads."""

    def before_request(self, target: Target) -> None:
        """Called before anything is sent, for the URL of the list and for every redirect."""

    def after_headers(self, target: Target, headers: Message) -> None:
        """Called with the headers of a successful answer, before its body is read."""


class RobotsTagPolicy:
    """Refuses answers whose X-Robots-Tag has one of `directives`, for everyone or for us by name.

    The header is `directive, directive` or `agent: directive, directive`, several agents may follow
    each other, and a value such as `max-snippet: 20` is not an agent. `none` stands for noindex.
    """

    _WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})

    def __init__(self, directives: Sequence[str]) -> None:
        self._refused = {directive.strip().lower() for directive in directives}

    def before_request(self, target: Target) -> None:
        """Headers are all this policy looks at."""

    def after_headers(self, target: Target, headers: Message) -> None:
        """Raise FetchError(opted_out) when a directive refuses this use."""
        for value in headers.get_all("X-Robots-Tag", []):
            for directive in self._directives_for_us(str(value)):
                if directive in self._refused:
                    raise FetchError(OPTED_OUT, f"the server's X-Robots-Tag says {directive}")

    def _directives_for_us(self, value: str) -> Iterable[str]:
        ours = True
        for piece in value.lower().split(","):
            name, colon, rest = piece.strip().partition(":")
            if colon and name.strip() not in self._WITH_VALUE:
                ours, name = name.strip() in (AGENT_TOKEN, "*"), rest
            if ours:
                yield name.strip()
                if name.strip() == "none":
                    yield "noindex"
