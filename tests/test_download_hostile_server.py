"""Servers that never end, never fall silent or do not speak HTTP: every fetch ends with a word, in its bounds."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from test_download_server import GOOD, settings

from darkroom.download import fetch
from darkroom.download.body import MIN_CHUNK_BYTES
from darkroom.download.budget import ByteBudget
from darkroom.download.fetch import PictureOpener
from darkroom.download.status import Failure, FetchError, indented, printable

Serve = Callable[[socket.socket], None]


@contextmanager
def raw_server(serve: Serve) -> Iterator[int]:
    """The port of a server that has each connection answered by `serve`, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(sock: socket.socket) -> None:
            with sock:
                try:
                    sock.settimeout(20)
                    serve(sock)
                except OSError:
                    pass  # who is cut off has done its part

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(sock,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def plain(*parts: bytes, for_ever: bytes = b"") -> Serve:
    """Sends these parts, then one again and again until the connection is cut."""

    def serve(sock: socket.socket) -> None:
        sock.recv(65_536)
        for part in parts:
            sock.sendall(part)
        while for_ever:
            sock.sendall(for_ever)

    return serve


def failure(port: int, scheme: str = "http", **changes: object) -> Failure:
    opener = PictureOpener(settings(**changes))
    with pytest.raises(FetchError) as caught:
        opener.open(f"{scheme}://127.0.0.1:{port}/a.jpg")
    opener.close()
    return Failure.from_message(str(caught.value))


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


# Each asks for another handshake, which a client may pass over.
@pytest.mark.parametrize("record", [b"\x16\x03\x03\0\4\0\0\0\0", b"\x16\x03\x01\0\4\0\0\0\0"])
def test_a_tls_server_that_always_has_something_to_say_ends_at_the_total_timeout(record: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        while True:
            sock.sendall(record * 1_000)

    with raw_server(serve) as port:
        assert failure(port, "https", timeout_s=60.0, total_timeout_s=0.6).status == "timeout"


@pytest.mark.parametrize(
    ("head", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (b"", b"HTTP/1.1 100 Continue\r\nX-Long: " + b"x" * 60_000 + b"\r\n\r\n"),
        (CHUNKED, b"1;" + b"x" * 3_000 + b"\r\nx\r\n"),
        (CHUNKED, b"1\r\nx\r\n" * 100),
        (HEAD + b"\r\n", b"x" * 65_536),
    ],
)
def test_an_answer_without_end_is_cut_at_max_bytes_whatever_it_consists_of(head: bytes, again: bytes) -> None:
    with raw_server(plain(head, for_ever=again)) as port:
        assert failure(port, max_bytes=100_000, total_timeout_s=30.0).status == "too_many_bytes"


@pytest.mark.parametrize(
    "body",
    [
        b"-5\r\nxxxxx\r\n0\r\n\r\n",
        b"-1\r\nxxxxx",
        b"+5\r\nxxxxx\r\n0\r\n\r\n",
        b"0x5\r\nxxxxx\r\n0\r\n\r\n",
        b"1_0\r\nxxxxxxxxxxxxxxxx\r\n0\r\n\r\n",
        b"\x1b[31m\n2026-01-01 forged\r\n",
        b"5\r\nxxxxxyyyyy\r\n0\r\n\r\n",
        b"5\r\nxx",
        b"",
        b"\r\n",
        b"5;" + b"x" * 5_000 + b"\r\nxxxxx\r\n0\r\n\r\n",
        b"\xd9\xa5\r\nxxxxx\r\n0\r\n\r\n",  # a five, in Arabic
    ],
)
def test_a_malformed_chunk_is_a_broken_connection_and_nothing_of_it_reaches_the_log(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with raw_server(plain(CHUNKED + body)) as port, caplog.at_level(logging.DEBUG):
        found = failure(port)
    assert found.status == "connection_error"
    assert found.error.isprintable() and "forged" not in found.error
    assert not [record for record in caplog.records if record.name.startswith("darkroom")]


@pytest.mark.parametrize(
    "body",
    [
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD),
        b"%X ; name=value\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD),
        b"%x\n%b\n0\n\n" % (len(GOOD), GOOD),
        b"5\r\n%b\r\n%x\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (GOOD[:5], len(GOOD) - 5, GOOD[5:]),
        b"".join(b"%x\r\n%b\r\n" % (1, GOOD[i : i + 1]) for i in range(len(GOOD))) + b"0\r\n",
    ],
)
def test_a_body_in_chunks_of_any_size_is_read(body: bytes) -> None:
    limit = MIN_CHUNK_BYTES * len(GOOD)
    with raw_server(plain(CHUNKED + body)) as port:
        found = PictureOpener(settings(max_bytes=limit)).open(f"http://127.0.0.1:{port}/a.jpg")
        assert found.read() == GOOD


def test_a_body_ends_with_its_connection_where_nothing_else_says_so() -> None:
    with raw_server(plain(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD)) as port:
        assert PictureOpener(settings()).open(f"http://127.0.0.1:{port}/a.jpg").read() == GOOD


def test_an_unexpected_failure_is_logged_without_what_it_could_forge(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("\x1b[2J\n2026-01-01 00:00:00 forged: all is well")

    monkeypatch.setattr(fetch, "parse_url", fails)
    with caplog.at_level(logging.ERROR, "darkroom.download"), pytest.raises(FetchError) as caught:
        PictureOpener(settings()).open("http://a.example/\x1b[31m\nforged.jpg")
    assert Failure.from_message(str(caught.value)).status == "internal_error"
    told = caplog.records[0].getMessage()
    assert "\x1b" not in told
    first, *others = told.splitlines()
    assert first.startswith("http://a.example/\\x1b[31m\\nforged.jpg: unexpected failure")
    assert all(line.startswith("    ") for line in others)


def test_text_becomes_one_line_that_can_be_printed() -> None:
    assert (
        printable("grün \x1b[31m\r\n\x00\x85\u202e\udc80") == "grün \\x1b[31m\\r\\n\\x00\\x85\\u202e\\udc80"
    )
    assert indented("a\nb\x1b\n") == "    a\n    b\\x1b"


def test_bodies_wait_for_bytes_and_hold_at_most_the_budget_and_one_of_them() -> None:
    total, size, step, number = 1_000, 700, 100, 8
    budget, lock = ByteBudget(total), threading.Lock()
    taken, peak, done = 0, 0, 0
    begin = threading.Barrier(number)

    def fetch_one() -> None:
        nonlocal taken, peak, done
        with budget.share() as share:
            for place in range(size // step):
                share.take(step)
                with lock:
                    taken += step
                    peak = max(peak, taken)
                if place == 0:
                    begin.wait()  # each has a part of its body
            with lock:
                taken -= size
                done += 1

    threads = [threading.Thread(target=fetch_one, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert done == number  # none waits for ever, though all had begun
    assert total < peak <= total + size


def test_a_wait_for_other_bodies_is_not_the_servers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "BODIES_BYTES", 1)
    with raw_server(plain(HEAD + b"\r\n" + GOOD)) as port:
        opener = PictureOpener(settings(total_timeout_s=1.0, timeout_s=1.0))
        url = f"http://127.0.0.1:{port}/a.jpg"
        first = opener.open(url)  # the one that may go beyond the budget
        timer = threading.Timer(1.5, first.close)
        timer.start()
        assert opener.open(url).read() == GOOD
        timer.join()
