"""A server of the chat completions API on loopback, that answers as it is told: by tests, or as a program.

python tests/played_captioner.py PORT [--late S] [--pages PATH ...] [--child FILE]
"""

import argparse
import base64
import hashlib
import io
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from darkroom.captioners.server import Server as Section

MODEL = "played-1"


def caption_of(jpeg: bytes, prompt: str) -> str:
    """What this server says of a picture: every picture and every prompt have their own."""
    return f"{prompt} {hashlib.sha256(jpeg).hexdigest()[:12]}"


class Request:
    """What was asked, and how to answer."""

    def __init__(self, handler: "Handler", body: dict[str, Any]) -> None:
        self.handler, self.body = handler, body
        content = body["messages"][0]["content"]
        self.prompt: str = content if isinstance(content, str) else content[1]["text"]
        self.image: dict[str, Any] = {} if isinstance(content, str) else content[0]["image_url"]
        url = self.image.get("url", "")
        self.jpeg = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"), validate=True)
        self.caption = caption_of(self.jpeg, self.prompt)

    def choice(self, message: Any, reason: Any = "stop", **more: Any) -> dict[str, Any]:
        usage = {"prompt_tokens": 100, "completion_tokens": len(self.caption)}
        return {
            "choices": [{"message": message, "finish_reason": reason}], "usage": usage, "model": MODEL, **more,
        }  # fmt: skip

    def answer(self, text: Any = None, reason: Any = "stop", **more: Any) -> None:
        """A right answer, or one that differs in this."""
        message = {"role": "assistant", "content": self.caption if text is None else text}
        self.send(json.dumps(self.choice(message, reason, **more)).encode())

    def send(
        self,
        content: bytes,
        code: int = 200,
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        """Any answer; a `length` that is not the content's ends the connection."""
        self.handler.send_response(code)
        self.handler.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in (headers or {}).items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(content)
        self.handler.close_connection |= length is not None


class Server(ThreadingHTTPServer):
    """Answers each request by `reply`; counts those of each caption, and how many are under way at once."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.reply: Callable[[Request], None] = Request.answer
        self.asked: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.bodies: list[dict[str, Any]] = []
        self.most = self.now = 0
        # So many requests wait until they are under way together, so that load does not decide `most`.
        self.together = 1
        self.counting = threading.Condition()
        self.ready_at, self.pages = 0.0, ["/v1/models", "/health"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def do_GET(self) -> None:
        is_ready = time.monotonic() >= self.server.ready_at
        code = (200 if is_ready else 503) if self.path in self.server.pages else 404
        self.send_response(code)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(self, body)
        with self.server.counting:
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
            self.server.asked[request.caption] += 1
            self.server.keys.add(self.headers["Authorization"])
            self.server.bodies.append(body)
            self.server.counting.notify_all()
            self.server.counting.wait_for(lambda: self.server.most >= self.server.together, timeout=30)
        try:
            assert self.path == "/v1/chat/completions"
            self.server.reply(request)
            self.wfile.flush()
        finally:
            with self.server.counting:
                self.server.now -= 1

    def log_message(self, *_: object) -> None:
        """Silence."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server in threads of this process."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def section(url: str, requests: dict[str, Any] | None = None, **values: Any) -> "Section":
    """A captioner that asks a server."""
    from darkroom.captioners.server import Server as Section

    asked = {"concurrency": 8, "num_retries": 2, "timeout_s": 20, **(requests or {})}
    captions = {name: {"prompt": name} for name in ("long", "short")}
    body = {"kind": "server", "url": url, "model": "m", "captions": captions}
    return Section.model_validate({**body, "requests": asked, **values})


def captioned(part: Any, chosen: "Section", out: Path) -> tuple["pl.DataFrame", dict[str, Any]]:
    """(the captions of a part, the counts of its manifest)."""
    from darkroom.recaption.stage import recaption_part
    from darkroom.store import read_table

    counts = recaption_part(*part, chosen, {}, out)
    return read_table(out), counts


def expected(jpegs: list[bytes], prompt: str) -> list[str]:
    """What the server says of the pictures."""
    return [caption_of(jpeg, prompt) for jpeg in jpegs]


def make_pictures(
    folder: Path, number: int, side_px: int = 16
) -> tuple[tuple[Path, Path, Path], list[bytes]]:
    """(tables and tar of a part, the JPEGs in the order of their uids), all kept, none like another."""
    import polars as pl
    from PIL import Image

    from darkroom.store import write_table, write_tar

    folder.mkdir(parents=True, exist_ok=True)
    jpegs = []
    for i in range(number):
        buffer = io.BytesIO()
        image = Image.new("RGB", (2 * side_px, side_px), (i % 256, 7 * i % 256, i // 256))
        image.putpixel((i % side_px, 0), (255, 255, 255))
        image.save(buffer, "JPEG", quality=95, comment=str(i).encode())
        jpegs.append(buffer.getvalue())
    uids = [f"{i:032x}" for i in range(number)]
    spans = write_tar(folder / "part.tar", [(f"{u}.jpg", jpeg) for u, jpeg in zip(uids, jpegs, strict=True)])
    at = [spans[f"{uid}.jpg"] for uid in uids]
    rows = {
        "uid": uids, "row": list(range(number)), "caption": [f"alt-text {i}" for i in range(number)],
        "width": [2 * side_px] * number, "height": [side_px] * number,
        "offset": [offset for offset, _ in at], "size": [size for _, size in at],
    }  # fmt: skip
    write_table(folder / "part.parquet", pl.DataFrame(rows), sort_by=None)
    kept = pl.DataFrame({"uid": uids, "row": list(range(number)), "kept": [True] * number})
    write_table(folder / "selection.parquet", kept, sort_by=None)
    return (folder / "part.parquet", folder / "part.tar", folder / "selection.parquet"), jpegs


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("port", type=int)
    asked.add_argument("--late", type=float, default=0.0, help="seconds until it is ready")
    asked.add_argument(
        "--child", type=Path, help="start a process in a session of its own, and write both ids"
    )
    asked.add_argument(
        "--pages", nargs="+", default=["/v1/models", "/health"], help="that tell whether it is"
    )
    options = asked.parse_args()
    server = Server(options.port)
    server.ready_at, server.pages = time.monotonic() + options.late, options.pages
    if options.child:
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
        )
        beside = options.child.with_suffix(".tmp")
        beside.write_text(f"{child.pid}")
        beside.rename(options.child)
    print("the played server listens", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
