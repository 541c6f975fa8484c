"""A small web server that misbehaves on request, shared by the tests of the download stage."""

import io
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

from darkroom.config.dataset import Download


def settings(**changes: object) -> Download:
    """Settings for the loopback server: few threads, and timeouts that a busy machine keeps."""
    base: dict[str, object] = {
        "allow_networks": ("127.0.0.0/8",),
        "num_threads": 8,
        "timeout_s": 4.0,
        "total_timeout_s": 8.0,
        "num_retries": 0,
        "max_side_px": 64,
        # The manners have tests of their own.
        "obey_robots_txt": False,
    }
    return Download(**{**base, **changes})  # type: ignore[arg-type]


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture(width: int = 48, height: int = 32, colour: object = (200, 30, 30)) -> Image.Image:
    return Image.new("RGB", (width, height), colour)  # type: ignore[arg-type]


def png_bomb(side: int = 30_000) -> bytes:
    """A 1-bit PNG of side x side black pixels: about 100 kB that would decode to gigabytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    squeeze = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))
    data = b"".join([squeeze.compress(row) for _ in range(side)]) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


class Server(ThreadingHTTPServer):
    """Answers from `routes` (path -> what it does with the request); counts requests by path."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, Callable[[Handler], None]] = dict(ROUTES)
        self.requests: Counter[str] = Counter()
        self.seen_headers: list[dict[str, str]] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.requests[self.path] += 1
        self.server.seen_headers.append(dict(self.headers))
        self.server.routes[self.path](self)

    def log_message(self, *_: object) -> None:
        """Silence."""

    def answer(self, content: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.get("length", str(len(content))))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _constant(content: bytes, code: int = 200, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(content, code, **headers)


def _busy_once(handler: Handler) -> None:
    if handler.server.requests[handler.path] == 1:
        handler.answer(b"later", 503)
    else:
        handler.answer(GOOD)


def _drip_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def _drip_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def _stall(_: Handler) -> None:
    time.sleep(2)


def _reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _cut(handler: Handler) -> None:
    handler.answer(GOOD[:100], length="5000")


def _endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(10_000):
        handler.wfile.write(b"x" * 65536)


def _not_http(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


GOOD = encoded(picture())
LOOP = 6

ROUTES: dict[str, Callable[[Handler], None]] = {
    "/good.jpg": _constant(GOOD),
    "/copy.jpg": _constant(GOOD),
    "/large.png": _constant(encoded(picture(200, 100, (10, 200, 90)), "PNG")),
    "/robots.txt": _constant(b"none", 404),
    "/404.jpg": _constant(b"gone", 404),
    "/410.jpg": _constant(b"gone", 410),
    "/busy-once.jpg": _busy_once,
    "/busy.jpg": _constant(b"later", 503),
    "/busy-long.jpg": _constant(b"later", 429, Retry_After="3600"),
    "/drip.jpg": _drip_body,
    "/drip-headers.jpg": _drip_headers,
    "/stall.jpg": _stall,
    "/reset.jpg": _reset,
    "/cut.jpg": _cut,
    "/endless.jpg": _endless,
    "/announced.jpg": _constant(b"", length="999999999999"),
    "/ssh.jpg": _not_http,
    "/truncated.jpg": _constant(encoded(Image.effect_noise((64, 64), 90))[:900]),
    "/page.jpg": _constant(b"<!DOCTYPE html><title>Not found</title>"),
    "/empty.jpg": _constant(b""),
    "/vector.svg": _constant(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "/animated.gif": _constant(
        encoded(picture(), "GIF", save_all=True, append_images=[picture(colour=(0, 0, 255))], duration=50)
    ),
    "/bomb.png": _constant(png_bomb(3000)),
    "/noai.jpg": _constant(GOOD, X_Robots_Tag="noai"),
    "/noai-others.jpg": _constant(GOOD, X_Robots_Tag="otherbot: noai, noindex"),
    "/noai-us.jpg": _constant(GOOD, X_Robots_Tag="otherbot: noindex, darkroom: noai"),
    "/redirect.jpg": _constant(b"", 302, Location="/good.jpg"),
    "/to-private.jpg": _constant(b"", 302, Location="http://10.0.0.1/a.jpg"),
    "/to-metadata.jpg": _constant(b"", 301, Location="http://169.254.169.254/latest/meta-data"),
    "/to-file.jpg": _constant(b"", 302, Location="file:///etc/passwd"),
    "/loop.jpg": _constant(b"", 302, Location="/loop.jpg"),
    "/space%20and%20%C3%A9.jpg?q=%C3%BC": _constant(GOOD),
}
