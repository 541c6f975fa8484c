"""Retry rounds against a web that fails for a while: is every row recovered, what stays, and what do rounds cost?

A server on loopback answers for many hosts. A tenth of its answers fail, as 503, as a connection that is reset or
cut, or by silence, until the first, second or third round of retries. Prints whether three rounds recover all of
them, whether the files that were finished before are the same, and the seconds of the rounds, planning included,
as a ratio to those of lists that hold the same rows and nothing else, fetched from the server in the same state.

    python trials/soak.py
    python trials/soak.py --rows 400 --rows-per-part 100
"""

import argparse
import io
import multiprocessing
import socket
import socketserver
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import polars as pl
from PIL import Image

from darkroom.download.rounds import find_failed, next_round, parts_of_rounds
from darkroom.download.stage import download_part, retry_part
from darkroom.settings.download import Download
from darkroom.store import num_parts, part_name, read_table, sha256_file

NUM_HOSTS = 200
NUM_ROUNDS = 3
SHARE = 0.1
# Of ten rows that fail: how many heal in the first, second and third round.
HEALED = (6, 3, 1)
KINDS = ("http_503", "reset", "cut", "silence")
LATENCY_S = 0.02
SETTINGS = Download(
    allow_networks=("127.0.0.0/8",),
    num_threads=16,
    timeout_s=2.0,
    total_timeout_s=10.0,
    num_retries=0,
    max_side_px=256,
)


def heals_in(row: int) -> int:
    """The round in which a row's answer is a picture; 0 for the first fetch."""
    if row % round(1 / SHARE):
        return 0
    place = row // round(1 / SHARE) % sum(HEALED)
    return 1 + (place >= HEALED[0]) + (place >= HEALED[0] + HEALED[1])


def picture(row: int) -> bytes:
    """A small JPEG of its own."""
    out = io.BytesIO()
    ramp = Image.linear_gradient("L").resize((160, 120))
    colours = [ramp.point(lambda v, k=k: (v * (1 + row % 7) + row * k) % 256) for k in (1, 3, 11)]
    Image.merge("RGB", colours).save(out, "JPEG", quality=80)
    return out.getvalue()


class _Answer(socketserver.StreamRequestHandler):
    """One request: `/ROW.jpg`."""

    server: "_Server"

    def handle(self) -> None:
        line = self.rfile.readline(1000)
        while self.rfile.readline(1000).strip():
            pass
        path = line.split(b" ")[1] if line.count(b" ") == 2 else b"/"
        if not path.endswith(b".jpg"):
            self._send(b"404 Not Found", b"")
            return
        row = int(path[1:-4])
        time.sleep(LATENCY_S)
        if self.server.now.value < heals_in(row):
            self._fail(KINDS[row // 10 % len(KINDS)])
        else:
            self._send(b"200 OK", self.server.pictures[row % len(self.server.pictures)])

    def _fail(self, kind: str) -> None:
        if kind == "http_503":
            self._send(b"503 Service Unavailable", b"")
        elif kind == "silence":
            time.sleep(SETTINGS.timeout_s + 1)
        elif kind == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\nhalf")
        else:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.connection.close()

    def _send(self, status: bytes, content: bytes) -> None:
        self.wfile.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(content), content))


_AT_ONCE = struct.pack("ii", 1, 0)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, now: "Synchronized[int]") -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.now = now
        self.pictures = [picture(i) for i in range(64)]

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that is closed under it is what it is for."""


def _serve(now: "Synchronized[int]", port: "Synchronized[int]") -> None:
    server = _Server(now)
    port.value = server.server_address[1]
    server.serve_forever()


@contextmanager
def serving() -> "Iterator[tuple[Synchronized[int], dict[str, str]]]":
    """(the round that it is now, for the server; where the hosts are)."""
    now, port = multiprocessing.Value("i", 0), multiprocessing.Value("i", 0)
    process = multiprocessing.Process(target=_serve, args=(now, port), daemon=True)
    process.start()
    try:
        while not port.value:
            time.sleep(0.05)
        yield now, {f"h{i}.example:80": f"127.0.0.1:{port.value}" for i in range(NUM_HOSTS)}
    finally:
        process.kill()
        process.join()


def write_list(path: Path, rows: list[int]) -> Path:
    """A list of the pictures of some rows."""
    urls = [f"http://h{row // 10 % NUM_HOSTS}.example/{row}.jpg" for row in rows]
    table = {"row": range(len(rows)), "url": urls, "caption": [f"picture {row}" for row in rows]}
    pl.DataFrame(table).write_parquet(path)
    return path


@dataclass
class Found:
    """What a soak has seen."""

    rows: int
    failed: list[int] = field(default_factory=list)
    rounds_s: list[float] = field(default_factory=list)
    alone_s: list[float] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    changed: int = 0

    @property
    def ratio(self) -> float:
        return sum(self.rounds_s) / max(sum(self.alone_s), 1e-9)


def fetch_list(
    urls: Path, num_rows: int, rows_per_part: int, folder: Path, to: dict[str, str]
) -> dict[str, Path]:
    """Fetch a list in parts; part -> its table."""
    folder.mkdir()
    tables = {
        part_name(i): folder / f"{part_name(i)}.parquet" for i in range(num_parts(num_rows, rows_per_part))
    }
    for index, table in enumerate(tables.values()):
        first = index * rows_per_part
        download_part(urls, first, rows_per_part, SETTINGS, table.with_suffix(".tar"), table, to)
    return tables


def soak(num_rows: int, rows_per_part: int, folder: Path) -> Found:
    """Fetch a list, three rounds of what failed, and for each round the same rows alone."""
    found = Found(num_rows)
    with serving() as (now, to):
        urls = write_list(folder / "urls.parquet", list(range(num_rows)))
        tables = fetch_list(urls, num_rows, rows_per_part, folder / "parts", to)
        before = {path: sha256_file(path) for path in (folder / "parts").iterdir()}
        rounds: tuple[tuple[tuple[str, ...], ...], ...] = ()
        for number in range(1, NUM_ROUNDS + 1):
            now.value = number
            started = time.perf_counter()
            failed = find_failed(tables, rounds)
            rounds = (*rounds, next_round(failed, rounds, rows_per_part, num_rows))
            new = {name: of for name, of in parts_of_rounds(rounds).items() if name not in tables}
            for name, sources in new.items():
                table = folder / "parts" / f"{name}.parquet"
                of = [tables[source] for source in sources]
                retry_part(of, number, SETTINGS, table.with_suffix(".tar"), table, to)
                tables[name] = table
            found.rounds_s.append(time.perf_counter() - started)
            found.failed.append(sum(failed.by_part.values()))

            again = sorted(row for name in new for row in read_table(tables[name], ["row"])["row"])
            alone = write_list(folder / f"alone-{number}.parquet", again)
            started = time.perf_counter()
            if again:
                fetch_list(alone, len(again), rows_per_part, folder / f"alone-{number}", to)
            found.alone_s.append(time.perf_counter() - started)
        stored = [
            read_table(table, ["row", "uid"], where=pl.col("status") == "ok") for table in tables.values()
        ]
        pictures = pl.concat(stored)
        found.lost = num_rows - pictures["row"].n_unique()
        found.doubled = len(pictures) - pictures["uid"].n_unique()
        found.changed = sum(sha256_file(path) != digest for path, digest in before.items())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=40_000, help="of the list")
    parser.add_argument("--rows-per-part", type=int, default=2_000)
    parser.add_argument(
        "--max-ratio", type=float, default=1.2, help="of the rounds' seconds; more is a failure"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        started = time.perf_counter()
        found = soak(args.rows, args.rows_per_part, Path(folder))
        seconds = time.perf_counter() - started
    print(f"rows                          {found.rows:,}, in {seconds:,.0f} s")
    for number, parts in enumerate(zip(found.failed, found.rounds_s, found.alone_s, strict=True), start=1):
        failed, rounds_s, alone_s = parts
        print(f"round {number}: rows that had failed  {failed:,}: {rounds_s:.1f} s, alone {alone_s:.1f} s")
    print(f"rows without a picture        {found.lost:,}")
    print(f"pictures twice                {found.doubled:,}")
    print(f"finished files that changed   {found.changed:,}")
    print(f"rounds / the same rows alone  {found.ratio:.2f} (at most {args.max_ratio:g})")
    is_right = not (found.lost or found.doubled or found.changed) and found.ratio <= args.max_ratio
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
