"""The demo's web server: the world's pictures, rendered when asked for, with every fault.

    python -m darkroom_demo.server --source-json '{"kind": "demo", "num_scenes": 100, ...}' --port 0

prints one line of JSON, {"port": ..., "connect_to": {...}}, and serves until its standard input closes,
so that it never outlives the process that started it.
"""

import argparse
import json
import os
import select
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

import cv2

from darkroom.settings.download import Download
from darkroom_demo.addresses import BASE
from darkroom_demo.answers import WorldServer
from darkroom_demo.section import DemoSource
from darkroom_demo.world import DemoWorld

HOST = "127.0.0.1"
NOMINAL = BASE.removeprefix("http://")
_START_S = 120.0


class DemoServer(WorldServer):
    """A running server; `port` is the one it got. Use it in a `with` block or call `close`."""

    def __init__(self, world: DemoWorld, port: int, stall_s: float, drip_s: float) -> None:
        super().__init__((HOST, port), world, stall_s, drip_s)
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def connect_to(self) -> dict[str, str]:
        """Nominal "host:port" of the list's URLs -> where this server listens."""
        return {NOMINAL: f"{HOST}:{self.port}"}

    def server_bind(self) -> None:
        """Bind without the reverse DNS query that http.server makes."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.port

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is no error; anything else is reported."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def close(self) -> None:
        """Stop answering and free the port; may be called twice."""
        if not self.stopping.is_set():
            self.stopping.set()
            self.shutdown()
            self.server_close()
            self._thread.join()

    def __enter__(self) -> "DemoServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(
    world: DemoWorld, host: str = HOST, port: int = 0, stall_s: float = 30.0, drip_s: float = 120.0
) -> DemoServer:
    """Start a server in a background thread.

    Args:
        world: what to serve.
        host: 127.0.0.1; nothing else, for some of what it serves is malicious on purpose.
        port: 0 takes any free one.
        stall_s: how long a stalled answer stays silent, seconds.
        drip_s: how long a dripping answer takes, seconds.

    Raises:
        ValueError: another host.
        OSError: the port is taken.
    """
    if host != HOST:
        raise ValueError(f"host {host!r}: the demo server listens on {HOST} only")
    return DemoServer(world, port, stall_s, drip_s)


def slow_seconds(download: Download) -> tuple[float, float]:
    """(stall_s, drip_s) that a download with these settings gives up on."""
    return 1.5 * download.timeout_s + 1.0, 1.5 * download.total_timeout_s + 1.0


@contextmanager
def running_server(source: DemoSource, download: Download | None = None) -> Iterator[dict[str, str]]:
    """Run the server of a source's world in a process of its own, for the length of the block.

    Args:
        source: the world.
        download: whose timeouts the slow answers exceed; None means the defaults.

    Yields:
        connect_to for the download stage: {"127.0.0.1:8907": "127.0.0.1:<port>"}.

    Raises:
        RuntimeError: the server did not start.
    """
    stall_s, drip_s = slow_seconds(download or Download.model_validate({}))
    command = [sys.executable, "-m", "darkroom_demo.server", "--source-json", source.model_dump_json()]
    command += ["--stall-s", str(stall_s), "--drip-s", str(drip_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], _START_S)
            line = process.stdout.readline() if ready else b""
            if not line:
                raise RuntimeError(f"the demo server did not start; exit status {process.poll()}")
            yield json.loads(line)["connect_to"]
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(
        prog="python -m darkroom_demo.server", description="serve the demo world"
    )
    parser.add_argument("--source-json", required=True, help="the dataset's source section, as JSON")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--stall-s", type=float, default=30.0, help="silence of a stalled answer, seconds")
    parser.add_argument("--drip-s", type=float, default=120.0, help="length of a dripping answer, seconds")
    options = parser.parse_args(arguments)
    parent = os.getppid()
    cv2.setNumThreads(1)
    world = DemoWorld(DemoSource.model_validate_json(options.source_json))
    with serve(world, port=options.port, stall_s=options.stall_s, drip_s=options.drip_s) as server:
        print(json.dumps({"port": server.port, "connect_to": server.connect_to}), flush=True)
        # A sibling that was forked while we ran may hold our input open: ask for the parent as well.
        with suppress(KeyboardInterrupt):
            while os.getppid() == parent:
                ready, _, _ = select.select([0], [], [], 0.5)
                if ready and not os.read(0, 1 << 16):
                    break


if __name__ == "__main__":
    main()
