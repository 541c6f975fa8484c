"""The opener: what is fetched, what is refused, and that every wait ends."""

import datetime
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
from test_download_server import GOOD, Server, serving, settings

from darkroom.download import connection, fetch
from darkroom.download.fetch import PictureOpener, installed
from darkroom.download.policy import Target, parse_url
from darkroom.download.status import STATUSES, Failure, FetchError, is_status, is_transient


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "RETRY_WAIT_S", 0.02)


@pytest.fixture
def contacted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that sockets connect to."""
    addresses: list[str] = []

    class Spy(socket.socket):
        def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override]
            addresses.append(address[0])
            super().connect(address)

    monkeypatch.setattr(connection.socket, "socket", Spy)
    return addresses


def failure(url: str, **changes: object) -> Failure:
    connect_to = changes.pop("connect_to", None)
    with pytest.raises(FetchError) as caught:
        PictureOpener(settings(**changes), connect_to).open(url)  # type: ignore[arg-type]
    return Failure.from_message(str(caught.value))


def body(url: str, connect_to: dict[str, str] | None = None, **changes: object) -> bytes:
    return PictureOpener(settings(**changes), connect_to).open(url).read()


def test_a_picture_is_fetched_with_an_honest_user_agent(server: Server) -> None:
    server.seen_headers.clear()
    assert body(server.base + "/good.jpg") == GOOD
    assert server.seen_headers[0]["User-Agent"].startswith("darkroom/")


def test_urlopen_uses_the_installed_opener_only_inside_the_block(server: Server) -> None:
    before = urllib.request._opener  # type: ignore[attr-defined]
    with installed(PictureOpener(settings())):
        with urllib.request.urlopen(server.base + "/good.jpg", timeout=5) as answer:
            assert answer.read() == GOOD
        with pytest.raises(FetchError, match="blocked_scheme"):
            urllib.request.urlopen("file:///etc/passwd")
        with pytest.raises(RuntimeError, match="one process"), installed(PictureOpener(settings())):
            pass
    assert urllib.request._opener is before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/404.jpg", "http_404"),
        ("/410.jpg", "http_410"),
        ("/busy.jpg", "http_503"),
        ("/reset.jpg", "connection_error"),
        ("/cut.jpg", "connection_error"),
        ("/ssh.jpg", "connection_error"),
        ("/empty.jpg", "empty_body"),
        ("/announced.jpg", "too_many_bytes"),
        ("/endless.jpg", "too_many_bytes"),
        ("/noai.jpg", "opted_out"),
        ("/noai-us.jpg", "opted_out"),
        ("/to-file.jpg", "blocked_scheme"),
        ("/loop.jpg", "too_many_redirects"),
    ],
)
def test_failures_are_classed(server: Server, path: str, status: str) -> None:
    found = failure(server.base + path, max_bytes=1_000_000)
    assert found.status == status
    assert str(server.server_port) not in found.error


def test_a_silent_server_ends_at_the_timeout(server: Server) -> None:
    started = time.monotonic()
    assert failure(server.base + "/stall.jpg", timeout_s=0.3).status == "timeout"
    assert time.monotonic() - started > 0.25  # and before the server closes, which is another status


@pytest.mark.parametrize("path", ["/drip.jpg", "/drip-headers.jpg"])
def test_a_slow_drip_ends_at_the_total_timeout(server: Server, path: str) -> None:
    started = time.monotonic()
    assert failure(server.base + path, total_timeout_s=0.6, num_retries=3).status == "timeout"
    assert time.monotonic() - started > 0.5  # and before all has come


def test_a_slow_lookup_ends_at_the_total_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    monkeypatch.setattr(connection.socket, "getaddrinfo", lambda *_, **__: free.wait(30) and [])
    started = time.monotonic()
    assert failure("http://slow.example/a.jpg", total_timeout_s=0.3).status == "timeout"
    assert time.monotonic() - started < 25
    free.set()


def test_transient_failures_are_tried_again_and_permanent_ones_are_not(server: Server) -> None:
    server.requests.clear()
    assert body(server.base + "/busy-once.jpg", num_retries=1) == GOOD
    for path, tries in [("/busy.jpg", 3), ("/reset.jpg", 3), ("/404.jpg", 1), ("/noai.jpg", 1)]:
        failure(server.base + path, num_retries=2)
        assert (path, server.requests[path]) == (path, tries)


def test_a_server_that_asks_for_a_long_pause_is_left_alone(server: Server) -> None:
    server.requests.clear()
    started = time.monotonic()
    assert failure(server.base + "/busy-long.jpg", num_retries=5).status == "http_429"
    assert server.requests["/busy-long.jpg"] == 1
    assert time.monotonic() - started < 600


@pytest.mark.parametrize("path", ["/to-private.jpg", "/to-metadata.jpg"])
def test_a_redirect_to_a_private_address_is_never_contacted(
    server: Server, contacted: list[str], path: str
) -> None:
    assert failure(server.base + path).status == "blocked_address"
    assert contacted == ["127.0.0.1"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_loopback_is_refused_however_it_is_written(contacted: list[str], host: str) -> None:
    assert failure(f"http://{host}:8009/a.jpg", allow_networks=()).status == "blocked_address"
    assert contacted == []


def test_a_name_with_a_private_address_is_refused_and_one_with_both_uses_the_public_one(
    server: Server, contacted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[str] = []
    monkeypatch.setattr(
        connection.socket,
        "getaddrinfo",
        lambda host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in answers],
    )
    answers[:] = ["192.168.0.7"]
    found = failure("http://rebinding.example/a.jpg")
    assert (found.status, contacted) == ("blocked_address", [])
    assert "192.168.0.7" in found.error
    answers[:] = ["192.168.0.7", "127.0.0.1"]  # loopback stands for the public one here
    assert body(f"http://mixed.example:{server.server_port}/good.jpg") == GOOD
    assert contacted == ["127.0.0.1"]


def test_connect_to_replaces_the_endpoint_and_still_obeys_the_address_policy(
    server: Server, contacted: list[str]
) -> None:
    endpoint = {"images.example:80": f"127.0.0.1:{server.server_port}"}
    server.seen_headers.clear()
    assert body("http://images.example/redirect.jpg", endpoint) == GOOD
    assert [headers["Host"] for headers in server.seen_headers] == ["images.example"] * 2
    contacted.clear()
    refused = failure("http://images.example/a.jpg", connect_to={"images.example:80": "10.0.0.1:80"})
    assert (refused.status, contacted) == ("blocked_address", [])


@pytest.mark.parametrize("entry", [("a", "127.0.0.1:1"), ("a:80", "b:80"), ("a:80", "127.0.0.1:99999")])
def test_a_malformed_connect_to_is_a_clear_error(entry: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"connect_to: .* should be"):
        PictureOpener(settings(), dict([entry]))


def test_the_proxy_of_the_environment_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert body(server.base + "/good.jpg") == GOOD


def test_spaces_and_other_alphabets_are_quoted_once(server: Server) -> None:
    assert body(server.base + "/space and é.jpg?q=ü#part") == GOOD
    assert body(server.base + "/space%20and%20%C3%A9.jpg?q=%C3%BC") == GOOD


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("file:///etc/passwd", "blocked_scheme"),
        ("ftp://example.com/a.jpg", "blocked_scheme"),
        ("data:image/png;base64,AAAA", "blocked_scheme"),
        ("picture.jpg", "blocked_scheme"),
        ("", "blocked_scheme"),
        ("http:///a.jpg", "invalid_url"),
        ("http://[::1/a.jpg", "invalid_url"),
        ("http://host:port/a.jpg", "invalid_url"),
        ("http://two words/a.jpg", "invalid_url"),
        (f"http://{'a' * 70}.example/a.jpg", "invalid_url"),
    ],
)
def test_urls_that_are_not_ours_are_refused_before_any_lookup(url: str, status: str) -> None:
    with pytest.raises(FetchError) as caught:
        parse_url(url)
    assert caught.value.failure.status == status


def test_a_line_break_in_a_url_cannot_add_a_header() -> None:
    target = parse_url("http://example.com/a\r\nX-Evil: 1\x00 b")
    assert not set(target.path) & set("\r\n\x00 ")


def test_a_body_that_is_opted_out_is_not_read(server: Server) -> None:
    def unfinished(handler: object) -> None:
        handler.send_response(200)  # type: ignore[attr-defined]
        handler.send_header("X-Robots-Tag", "noai")  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]
        time.sleep(0.5)

    server.routes["/noai-unfinished.jpg"] = unfinished
    assert failure(server.base + "/noai-unfinished.jpg").status == "opted_out"


def test_a_further_policy_sees_every_hop_and_can_refuse(server: Server) -> None:
    class OnlyJpg:
        def __init__(self) -> None:
            self.paths: list[str] = []

        def before_request(self, target: Target) -> None:
            self.paths.append(target.path)
            if target.path == "/good.jpg":
                raise FetchError("opted_out", "a registry says no")

        def after_headers(self, target: Target, headers: Message) -> tuple[str, ...]:
            return ()

    policy = OnlyJpg()
    with pytest.raises(FetchError, match="a registry says no"):
        PictureOpener(settings(), policies=[policy]).open(server.base + "/redirect.jpg")
    assert policy.paths == ["/redirect.jpg", "/good.jpg"]


def test_tls_asks_for_the_host_of_the_url_and_refuses_a_wrong_certificate(tmp_path: Path) -> None:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(tmp_path))
    context.sni_callback = lambda sock, name, _: names.append(name)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                plain, _address = listener.accept()
                try:
                    with context.wrap_socket(plain, server_side=True) as tls:
                        tls.recv(1000)
                        tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                except OSError:
                    plain.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        endpoint = {"images.example:443": f"127.0.0.1:{listener.getsockname()[1]}"}
        found = failure("https://images.example/a.jpg", connect_to=endpoint, num_retries=3)
        assert (found.status, "certificate" in found.error) == ("connection_error", True)
        opener = PictureOpener(settings(), endpoint)
        opener._connector._tls.load_verify_locations(tmp_path / "both.pem")
        assert opener.open("https://images.example/a.jpg").read() == b"hi"
        thread.join(5)
    assert names == ["images.example"] * 2  # the certificate failure was not tried again


def _self_signed(folder: Path) -> Path:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "images.example")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("images.example")]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = folder / "both.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    return path


def test_the_vocabulary_knows_its_words_and_survives_the_trip_through_an_exception() -> None:
    assert all(map(is_status, STATUSES))
    assert is_status("http_404")
    assert not is_status("http_")
    assert is_transient("http_502")
    assert not is_transient("http_404")
    told = Failure("truncated_image", "cut", "ab" * 32, 12)
    assert Failure.from_message(told.to_message()) == told
    for foreign in ("unknown url type: 'x'", "[1]", '{"status": "great", "error": "x"}'):
        assert Failure.from_message(foreign).status == "internal_error"
