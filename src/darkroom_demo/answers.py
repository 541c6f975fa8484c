"""How the demo's web server answers: HTTP/1.1, and each fault its own way."""

import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from darkroom_demo.addresses import BASE, FILE_URLS, PRIVATE_URLS
from darkroom_demo.encode import CONTENT_TYPES
from darkroom_demo.layout import Row
from darkroom_demo.pages import index_page
from darkroom_demo.world import DemoWorld

MOVED = "/moved"
"""Put before a path it gives the place that a redirect leads to."""

_REDIRECT_CODES = (301, 302, 303, 307, 308)
_OPT_OUTS = ("noai", "noimageai, noai", "noindex", "noindex, nofollow")
_ANNOUNCED_BYTES = 8_000_000_000
_ENDLESS_BYTES = 1_000_000_000
_CHUNK = b"\0" * 65_536
_PAGE = b"<!doctype html><html><head><title>Sorry</title></head><body><h1>Moved</h1></body></html>"


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: "WorldServer"
    protocol_version = "HTTP/1.1"
    server_version = "darkroom-demo"
    sys_version = ""
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: thousands of requests would drown what matters."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(timestamp, usegmt=True)

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/":
            self._send(200, index_page(self.server.world, query), "text/html; charset=utf-8")
            return
        if path == "/robots.txt":
            self._send(200, b"User-agent: *\nAllow: /\n", "text/plain")
            return
        moved = self.path.startswith(MOVED + "/")
        number = self.server.world.find(self.path.removeprefix(MOVED) if moved else self.path)
        if number is None:
            self._send(404, b"no such picture\n", "text/plain")
            return
        row = self.server.world.rows[number]
        special = _ANSWERS.get(row.fault or "")
        if special is None or (moved and row.fault != "redirect_loop"):
            self._send_picture(row)
        else:
            special(self, row)

    # Parts of an answer

    def _send(self, code: int, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        self._start(code, {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _start(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _start_picture(self, row: Row, length: int) -> None:
        self._start(200, {"Content-Type": CONTENT_TYPES[row.ending], "Content-Length": str(length)})

    def _picture(self, row: Row) -> bytes:
        with self.server.rendering:
            return self.server.world.picture_bytes(row.row)

    def _send_picture(self, row: Row, headers: dict[str, str] | None = None) -> None:
        if headers is None and row.index % 50 == 7:
            headers = {"X-Robots-Tag": "nofollow"}  # says nothing about training
        self._send(200, self._picture(row), CONTENT_TYPES[row.ending], headers)

    def _wait(self, seconds: float) -> bool:
        """Wait; whether the client is still there and the server still running."""
        step = 0.1
        while seconds > 0 and not self.server.stopping.is_set():
            readable, _, _ = select.select([self.connection], [], [], min(step, seconds))
            if readable:  # the client has hung up; it has nothing else to say
                return False
            seconds -= step
        return not self.server.stopping.is_set()

    # Faults

    def _gone(self, row: Row) -> None:
        self._send(410 if row.fault == "gone" else 404, b"no such picture\n", "text/plain")

    def _unavailable_once(self, row: Row) -> None:
        if self.server.first_request(row.row):
            self._send(503, b"come back later\n", "text/plain")
        else:
            self._send_picture(row)

    def _drip(self, row: Row) -> None:
        body = self._picture(row)
        self.close_connection = True
        self._start_picture(row, len(body))
        num_steps = min(200, len(body))
        for step in range(num_steps):
            self.wfile.write(body[step * len(body) // num_steps : (step + 1) * len(body) // num_steps])
            if not self._wait(self.server.drip_s / num_steps):
                return

    def _stall(self, row: Row) -> None:
        body = self._picture(row)
        self.close_connection = True
        sent = len(body) // 2 if row.index % 2 else 0
        if sent:
            self._start_picture(row, len(body))
            self.wfile.write(body[:sent])
        if self._wait(self.server.stall_s):
            if not sent:
                self._start_picture(row, len(body))
            self.wfile.write(body[sent:])

    def _reset(self, row: Row) -> None:
        if row.index % 2:
            body = self._picture(row)
            self._start_picture(row, len(body))
            self.wfile.write(body[: len(body) // 2])
        self.close_connection = True
        # Closing with a linger of zero seconds sends a reset and not a farewell.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def _cut_short(self, row: Row) -> None:
        body = self._picture(row)
        self.close_connection = True
        self._start_picture(row, len(body))
        self.wfile.write(body[: len(body) * 2 // 3])

    def _endless(self, row: Row) -> None:
        self.close_connection = True
        announced = row.index % 2 == 0
        length = {"Content-Length": str(_ANNOUNCED_BYTES)} if announced else {"Transfer-Encoding": "chunked"}
        self._start(200, {"Content-Type": CONTENT_TYPES[row.ending], **length})
        chunk = _CHUNK if announced else b"%x\r\n%b\r\n" % (len(_CHUNK), _CHUNK)
        # Not quite endless: a reader without a limit of its own keeps its memory.
        for _ in range(_ENDLESS_BYTES // len(chunk)):
            if self.server.stopping.is_set():
                return
            self.wfile.write(chunk)

    def _opted_out(self, row: Row) -> None:
        self._send_picture(row, {"X-Robots-Tag": _OPT_OUTS[row.index % len(_OPT_OUTS)]})

    def _empty(self, row: Row) -> None:
        self._send(200, b"", CONTENT_TYPES[row.ending])

    def _page(self, row: Row) -> None:
        self._send(200, _PAGE, "text/html" if row.index % 2 else CONTENT_TYPES[row.ending])

    def _redirect(self, row: Row) -> None:
        moved = self.path.startswith(MOVED + "/")
        place = {
            "redirect": f"{MOVED}{row.path}" if row.index % 2 else f"{BASE}{MOVED}{row.path}",
            "redirect_loop": f"{BASE}{row.path}" if moved else f"{BASE}{MOVED}{row.path}",
            "redirect_private": PRIVATE_URLS[row.index % len(PRIVATE_URLS)],
            "redirect_file": FILE_URLS[row.index % len(FILE_URLS)],
        }[row.fault or ""]
        code = _REDIRECT_CODES[row.index % len(_REDIRECT_CODES)]
        self._send(code, b"", "text/plain", {"Location": place})


_ANSWERS: dict[str, Callable[[Handler, Row], None]] = {
    "not_found": Handler._gone,
    "gone": Handler._gone,
    "unavailable_once": Handler._unavailable_once,
    "slow_drip": Handler._drip,
    "stall": Handler._stall,
    "reset": Handler._reset,
    "cut_short": Handler._cut_short,
    "too_many_bytes": Handler._endless,
    "opted_out": Handler._opted_out,
    "empty_body": Handler._empty,
    "html_page": Handler._page,
    "redirect": Handler._redirect,
    "redirect_loop": Handler._redirect,
    "redirect_private": Handler._redirect,
    "redirect_file": Handler._redirect,
}


class WorldServer(ThreadingHTTPServer):
    """A server that answers from a world, each connection in a thread of its own."""

    daemon_threads = True
    request_queue_size = 512
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], world: DemoWorld, stall_s: float, drip_s: float) -> None:
        self.world = world
        self.stall_s = stall_s
        self.drip_s = drip_s
        self.stopping = threading.Event()
        # More renderers than cores only take turns.
        self.rendering = threading.BoundedSemaphore(max(2, (os.cpu_count() or 2) // 2))
        self._asked: set[int] = set()
        self._lock = threading.Lock()
        super().__init__(address, Handler)

    def first_request(self, row: int) -> bool:
        """Whether nobody has asked this server for a row before; from now on somebody has."""
        with self._lock:
            first = row not in self._asked
            self._asked.add(row)
        return first
