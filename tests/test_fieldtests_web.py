"""Servers that are away or never end, and pictures that are hostile, beside those of the other tests."""

import logging
import socket
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from decoding import decode, status
from hostile import bmp, chunk, curve_bomb, encoded, grey_tiff, png, profile, squeezed
from PIL import Image
from test_download_hostile_server import CHUNKED, failure, plain, raw_server
from test_download_journal import listed
from test_download_server import GOOD, Handler, serving, settings

from darkroom.download.fetch import PictureOpener
from darkroom.download.manners.crawl import Crawl
from darkroom.download.stage import TooManyFailures, download_part
from darkroom.download.status import Failure, FetchError
from darkroom.settings.download import Manners

HOST = "http://images.example:80"


@pytest.mark.parametrize("obeys_robots_txt", [False, True])
def test_a_part_none_of_whose_40_servers_answers_fails_each_time_until_they_do(
    tmp_path: Path, obeys_robots_txt: bool
) -> None:
    names = [f"/{number}.jpg" for number in range(40)]
    urls = listed(tmp_path / "urls.parquet", names)
    out = tmp_path / "part-00000.tar", tmp_path / "part-00000.parquet"
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    chosen = settings(obey_robots_txt=obeys_robots_txt)
    crawl = Crawl(Manners(host_connections=8, host_pause_s=0), tmp_path / "hosts")
    for _ in range(2):
        with pytest.raises(TooManyFailures) as failed:
            download_part(
                urls, 0, 40, chosen, *out, {"images.example:80": f"127.0.0.1:{closed}"},
                max_transport_failures=0.2, crawl=crawl,
            )  # fmt: skip
        assert "40 of 40 rows ended without an answer (connection_error 40)" in str(failed.value)
        assert not any(path.exists() for path in out)
    with serving() as server:
        server.routes |= dict.fromkeys(names, server.routes["/good.jpg"])
        to = {"images.example:80": f"127.0.0.1:{server.server_port}"}
        counts = download_part(urls, 0, 40, chosen, *out, to, max_transport_failures=0.2, crawl=crawl)
    assert counts["status"] == {"ok": 40}


@pytest.mark.parametrize(
    "trailer", [b"X-Trailer: " + b"x" * 60_000 + b"\r\n", b"X: x\r\n" * 1_000, b"x" * 65_536]
)
def test_what_follows_the_last_chunk_is_not_read_however_much_it_is(trailer: bytes) -> None:
    whole = CHUNKED + b"%x\r\n%b\r\n0\r\n" % (len(GOOD), GOOD)
    with raw_server(plain(whole, for_ever=trailer)) as port:
        opener = PictureOpener(settings(max_bytes=100_000, total_timeout_s=30.0))
        assert opener.open(f"http://127.0.0.1:{port}/a.jpg").read() == GOOD
        opener.close()


@pytest.mark.parametrize(
    "content",
    [
        chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(range(256)) * 6_000, 0)),
        chunk(b"iTXt", b"Title\0\0\0\0\0" + b"x" * 1_500_000),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"x" * 1_500_000),
        chunk(b"tEXt", b"Title\0" + b"x" * 1_500_000),
        chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(1_500_000), 0)),
        chunk(b"eXIf", b"II*\0" + bytes(1_500_000)),
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_metadata_of_more_than_a_megabyte_in_the_file_is_left_out(content: bytes, place: str) -> None:
    assert decode(png(8, 8, colour=2, **{place: content})).jpeg == decode(png(8, 8, colour=2)).jpeg


def test_of_several_pieces_of_pixels_one_with_a_wrong_checksum_is_enough() -> None:
    data = zlib.compress(bytes((1 + 3 * 8) * 8))
    for wrong in range(3):
        pieces = [data[:5], data[5:9], data[9:]]
        first, *others = (
            chunk(b"IDAT", piece, crc=1 if i == wrong else None) for i, piece in enumerate(pieces)
        )
        whole = png(8, 8, colour=2, data=b"")
        empty = chunk(b"IDAT", b"")
        content = whole.replace(empty, first + b"".join(others))
        assert status(content) == "truncated_image"


def _silent(_: socket.socket) -> None:
    time.sleep(30)


def _drip(sock: socket.socket) -> None:
    for byte in b"\x16\x03\x03\x40\x00" + bytes(100):
        sock.sendall(bytes((byte,)))
        time.sleep(0.3)


def _alerts(sock: socket.socket) -> None:
    while True:
        sock.sendall(b"\x15\x03\x03\0\2\1\x5a" * 1_000)  # a warning that asks for nothing


@pytest.mark.parametrize("serve", [_silent, _drip, _alerts])
def test_a_handshake_without_end_ends_in_the_whole_time(serve: Callable[[socket.socket], None]) -> None:
    with raw_server(serve) as port:
        started = time.monotonic()
        found = failure(port, "https", timeout_s=60.0, total_timeout_s=0.6)
        assert found.status in {"timeout", "connection_error"} and time.monotonic() - started < 20
        assert found.status == "timeout" or serve is _alerts


def test_redirects_share_the_whole_time(tmp_path: Path) -> None:
    with serving() as server:

        def later(handler: Handler) -> None:
            time.sleep(0.4)
            number = int(handler.path.strip("/"))
            handler.answer(b"", 302, Location=f"/{number + 1}")

        server.routes |= {f"/{number}": later for number in range(20)}
        opener = PictureOpener(settings(timeout_s=60.0, total_timeout_s=1.0, num_retries=2))
        with pytest.raises(FetchError) as caught:
            opener.open(f"{server.base}/0")
        opener.close()
    assert Failure.from_message(str(caught.value)).status == "timeout"
    assert sum(server.requests.values()) <= 3


@pytest.mark.parametrize(
    "after", ["-5", "1e9", "inf", "nan", "soon", "1 2", "Wed, 21 Oct 0001 07:28:00 +9999", "x" * 60_000]
)
def test_a_pause_that_makes_no_sense_is_none(after: str) -> None:
    with serving() as server:
        asked = server.requests

        def busy(handler: Handler) -> None:
            handler.answer(b"", 429, Retry_After=after) if asked["/a"] == 1 else handler.answer(GOOD)

        server.routes["/a"] = busy
        opener = PictureOpener(settings(num_retries=1))
        assert opener.open(f"{server.base}/a").read() == GOOD
        opener.close()


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "TIFF"])
def test_profiles_of_every_format_are_bounded(kind: str) -> None:
    plain_picture = Image.new("RGB", (8, 8), (200, 0, 0))
    options = {"lossless": True} if kind == "WEBP" else {}
    expected = decode(encoded(plain_picture, kind, **options))
    large = profile([(b"wtpt", b"XYZ \0\0\0\0" + bytes(12)), (b"abcd", bytes(10_000_000))])
    for icc in (curve_bomb(5_000), large):
        content = encoded(plain_picture, kind, icc_profile=icc, **options)
        if kind == "AVIF" and icc is large:
            # Where its pixels lie stands in the same box.
            assert status(content) == "too_costly"
        else:
            assert decode(content).jpeg == expected.jpeg


SIDE = 40_000_000
FLAT: dict[str, Callable[[], bytes]] = {
    "a TIFF": lambda: grey_tiff(SIDE, 1, 8, squeezed(SIDE)),
    "a BMP": lambda: bmp(1, SIDE, 8, 0, bytes(64)),
    "a BMP upside down": lambda: bmp(8, -(2**31), 8, 0, bytes(64)),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_picture_that_is_nearly_a_line_is_refused_in_every_format(name: str) -> None:
    assert status(FLAT[name]()) in {"too_many_pixels", "too_costly", "unsupported_image"}


HEAD = b"HTTP/1.1 200 OK\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nLocation: "
ODD = {
    "a length below 0": (HEAD + b"Content-Length: -5\r\n\r\n" + GOOD, "ok"),
    "a length of 5,000 digits": (HEAD + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n" + GOOD, "ok"),
    "a length that nobody has": (HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", "too_many_bytes"),
    "another encoding": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + GOOD, "ok"),
    "escape sequences in its phrase": (b"HTTP/1.1 404 \x1b[31mforged\x07\r\n\r\n", "http_404"),
    "no status": (b"HTTP/1.1 0 x\r\n\r\n", "connection_error"),
    "a status of four digits": (b"HTTP/1.1 1000 x\r\n\r\n", "connection_error"),
    "a status in other digits": ("HTTP/1.1 ٢٠٠ OK\r\n\r\n".encode(), "connection_error"),
    "no head": (GOOD, "connection_error"),
    "200 headers": (HEAD + b"X: x\r\n" * 200 + b"\r\n" + GOOD, "connection_error"),
    "a long header": (HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n" + GOOD, "connection_error"),
    "zeros in headers": (HEAD + b"X\0: \0\r\n\r\n" + GOOD, "ok"),
    "another protocol": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + GOOD, "http_101"),
    "nowhere to go": (b"HTTP/1.1 302 Found\r\n\r\n", "http_302"),
    "no address": (MOVED + b"http://[::1\r\n\r\n", "invalid_url"),
    "half a pair in a host's name": (MOVED + b"http://\xed\xa0\x80/\r\n\r\n", "invalid_url"),
    "a port that there is not": (MOVED + b"http://a.example:99999/\r\n\r\n", "invalid_url"),
    "a script": (MOVED + b"javascript:alert(1)\r\n\r\n", "blocked_scheme"),
    "a long address": (MOVED + b"/" + b"a" * 60_000 + b"\r\n\r\n", "invalid_url"),
    "itself": (MOVED + b"\r\n\r\n", "too_many_redirects"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer_is_a_picture_or_ends_with_a_word(name: str, caplog: pytest.LogCaptureFixture) -> None:
    answer, expected = ODD[name]
    with raw_server(plain(answer)) as port, caplog.at_level(logging.DEBUG):
        opener = PictureOpener(settings(max_bytes=1_000_000))
        try:
            assert opener.open(f"http://127.0.0.1:{port}/a.jpg").read() == GOOD
            found = "ok"
        except FetchError as error:
            told = Failure.from_message(str(error))
            assert told.error.isprintable() and "forged" not in told.error
            found = told.status
        opener.close()
    assert found == expected
    assert not [record for record in caplog.records if record.name.startswith("darkroom")]
