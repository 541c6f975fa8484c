"""Which addresses, ports and lengths of URLs are refused, whatever they are disguised as."""

import pytest
from test_download_server import GOOD, serving, settings

from darkroom.download.addresses import AddressPolicy
from darkroom.download.fetch import PictureOpener
from darkroom.download.policy import MAX_URL_CHARS, parse_url
from darkroom.download.status import Failure, FetchError
from darkroom.settings.download import Download

NOT_PUBLIC = """
    0.0.0.0 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 168.63.129.16 169.254.169.254 172.16.0.1 172.31.255.255
    192.0.0.1 192.0.0.9 192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.1.1 192.175.48.1
    198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::ffff:10.0.0.1 ::ffff:168.63.129.16 ::ffff:169.254.169.254 ::ffff:0:10.0.0.1
    64:ff9b::a00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::a00:1 64:ff9b:1::808:808 100::1 100:0:0:1::1
    2001::1 2001:0:808:808::1 2001:1::1 2001:2::1 2001:3::1 2001:4:112::1 2001:10::1 2001:20::1 2001:30::1
    2001:db8::1 2002:a00:1:: 2002:808:808::1 2620:4f:8000::1 3fff::1 3fff:fff:ffff::1 4000::1 5f00::1
    fc00::1 fd00:ec2::254 fe80::1 fe80::1%lo fec0::1 ff02::1 text 1.2.3 08.8.8.8
"""
PUBLIC = """
    1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 168.63.129.15 172.15.0.1 172.32.0.1 192.0.1.1 192.0.3.1 198.17.0.1
    198.20.0.1 223.255.255.255 ::ffff:8.8.8.8 64:ff9b::808:808 2001:200::1 2001:4860:4860::8888 2606:4700::1111
    2003::1 3ffe::1 3fff:1000::1
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not AddressPolicy().allows(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public_addresses_pass(address: str) -> None:
    assert AddressPolicy().allows(address)


def test_networks_are_allowed_and_denied_also_in_disguise() -> None:
    assert AddressPolicy(["10.1.0.0/16"]).allows("10.1.2.3")
    assert AddressPolicy(["10.1.0.0/16"]).allows("::ffff:10.1.2.3")
    assert not AddressPolicy(["10.1.0.0/16"]).allows("10.2.0.1")
    denied = AddressPolicy(["10.0.0.0/8"], ["8.8.0.0/16", "10.1.0.0/16", "2606:4700::/32"])
    assert denied.allows("8.9.0.1") and denied.allows("10.2.0.1")
    for address in ("8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "10.1.0.1", "2606:4700::1111"):
        assert not denied.allows(address)
    assert not AddressPolicy([], ["64:ff9b::/96"]).allows("64:ff9b::808:808")
    for keys in ({"allow_networks": ["10.1.0.1/16"]}, {"deny_networks": ["10.1.0.1/16"]}):
        with pytest.raises(ValueError, match=rf"{next(iter(keys))}: '10.1.0.1/16' is not a network such as"):
            AddressPolicy(**keys)
        with pytest.raises(ValueError, match=r"'10\.1\.0\.1/16' is not a network such as"):
            Download(**keys)


def test_a_denied_network_is_never_contacted() -> None:
    with serving() as server:
        found = PictureOpener(settings()).open(server.base + "/good.jpg")
        assert found.read() == GOOD
        with pytest.raises(FetchError) as caught:
            PictureOpener(settings(deny_networks=("127.0.0.1/32",))).open(server.base + "/good.jpg")
        assert Failure.from_message(str(caught.value)).status == "blocked_address"
        assert server.requests["/good.jpg"] == 1


def _status(url: str) -> str:
    with pytest.raises(FetchError) as caught:
        parse_url(url)
    return caught.value.failure.status


@pytest.mark.parametrize("port", [1, 22, 25, 110, 139, 465, 587, 993, 2049, 6000, 6667, 10080])
def test_ports_of_other_protocols_are_refused(port: int) -> None:
    assert _status(f"http://images.example:{port}/a.jpg") == "blocked_port"
    assert _status(f"https://images.example:{port}/a.jpg") == "blocked_port"


@pytest.mark.parametrize("port", [80, 81, 443, 591, 8000, 8080, 8443, 9000, 65535])
def test_ports_at_which_pictures_are_served_are_not(port: int) -> None:
    assert parse_url(f"http://images.example:{port}/a.jpg").port == port


def test_a_url_has_a_longest_length() -> None:
    url = "http://images.example/"
    assert parse_url(url + "a" * (MAX_URL_CHARS - len(url))).host == "images.example"
    assert _status(url + "a" * (MAX_URL_CHARS - len(url) + 1)) == "invalid_url"
