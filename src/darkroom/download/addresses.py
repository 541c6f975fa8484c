"""Which addresses may be contacted: the public internet, less what a configuration denies, plus what it allows.

The tables are IANA's registries of special-purpose addresses, IPv4 and IPv6, as of 2025, with what is left of the
multicast and reserved space. Python's own differ from version to version.
"""

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SPECIAL = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a carrier's NAT; metadata services of some clouds
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # in no registry: Azure's own services, from within a virtual machine
        "169.254.0.0/16",  # link-local; metadata services of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF's protocols; Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112: answers to look-ups that should not have been made
        "192.52.193.0/24",  # relays of multicast
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # IETF's protocols: Teredo, ORCHID, AMT and others
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: any IPv4 address in disguise
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
]
# Outside is what is not routed: loopback, link-local, unique-local, multicast, segments.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressPolicy:
    """Public internet addresses without `deny_networks`, and those inside `allow_networks` (CIDR strings).

    Raises:
        ValueError: one of the networks is none.
    """

    def __init__(self, allow_networks: Iterable[str] = (), deny_networks: Iterable[str] = ()) -> None:
        self._allowed = _networks("allow_networks", allow_networks)
        self._denied = _networks("deny_networks", deny_networks)

    def allows(self, address: str) -> bool:
        """Whether a connection to this numeric address may be made; False if it is not one."""
        try:
            written = ipaddress.ip_address(address)
        except ValueError:
            return False
        plain = _unwrap(written)
        if any(either in network for network in self._denied for either in (written, plain)):
            return False
        if any(plain in network for network in self._allowed):
            return True
        if plain.version == 6 and plain not in _GLOBAL_UNICAST:
            return False
        return not any(plain in network for network in _SPECIAL)


def _networks(key: str, texts: Iterable[str]) -> list[Network]:
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise ValueError(f"{key}: {text!r} is not a network such as 127.0.0.0/8 ({error})") from error
    return found


def _unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for: ::ffff:a.b.c.d and NAT64."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
