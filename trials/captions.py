"""The share of a server's capacity that the captioner `server` uses: whole parts, from the tar to the table.

The server is another process on 127.0.0.1 that reads each request, and answers it after a fixed time, so many at
once as it has slots; its capacity is slots / time. Fails below LIMIT.

    python trials/captions.py
    python trials/captions.py --slots 64 --seconds 1 --pictures 4000
"""

import argparse
import asyncio
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
from PIL import Image

from darkroom.captioners.server import Server
from darkroom.recaption.stage import recaption_part
from darkroom.store import write_table, write_tar

LIMIT = 0.95
_ANSWER = {"message": {"content": "a caption of a picture"}, "finish_reason": "stop"}
_BODY = json.dumps(
    {"choices": [_ANSWER], "usage": {"prompt_tokens": 700, "completion_tokens": 80}, "model": "m"}
).encode()
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


async def serve(slots: int, seconds: float) -> None:
    """Answer until the process ends; prints the port."""
    free = asyncio.Semaphore(slots)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                )
                await reader.readexactly(int(length.partition(b":")[2]))
                async with free:
                    await asyncio.sleep(seconds)
                writer.write(_REPLY)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**20, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def make_part(folder: Path, number: int, side_px: int) -> tuple[Path, Path, Path]:
    """Tables and tar of a part: one picture, as many times as wanted."""
    buffer = io.BytesIO()
    noise = Image.effect_noise((side_px // 2, side_px // 2), 40).resize((side_px, side_px))
    noise.convert("RGB").save(buffer, "JPEG", quality=95)
    uids = [f"{i:032x}" for i in range(number)]
    spans = write_tar(folder / "part.tar", [(f"{uid}.jpg", buffer.getvalue()) for uid in uids])
    keys = {"uid": uids, "row": list(range(number))}
    sides = {"caption": [""] * number, "width": [side_px] * number, "height": [side_px] * number}
    at = {name: [spans[f"{uid}.jpg"][i] for uid in uids] for i, name in enumerate(("offset", "size"))}
    write_table(folder / "part.parquet", pl.DataFrame({**keys, **sides, **at}), sort_by=None)
    kept = pl.DataFrame({**keys, "kept": [True] * number})
    write_table(folder / "selection.parquet", kept, sort_by=None)
    print(f"{number:,} pictures of {side_px} px, {len(buffer.getvalue()) / 1000:.0f} kB each")
    return folder / "part.parquet", folder / "part.tar", folder / "selection.parquet"


def main() -> int:
    """Print the share; 1 where it is below LIMIT."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--pictures", type=int, default=1000)
    asked.add_argument("--side", type=int, default=512, help="of the pictures, px")
    asked.add_argument("--slots", type=int, default=32, help="requests that the server answers at once")
    asked.add_argument("--seconds", type=float, default=0.5, help="that an answer takes")
    asked.add_argument(
        "--concurrency", type=int, help="requests under way at once; by default a quarter more"
    )
    asked.add_argument("--serve", action="store_true", help="be the server")
    options = asked.parse_args()
    if options.serve:
        asyncio.run(serve(options.slots, options.seconds))
        return 0
    concurrency = options.concurrency or options.slots + options.slots // 4
    command = [sys.executable, __file__, "--serve", "--slots", str(options.slots)]
    with subprocess.Popen(
        [*command, "--seconds", str(options.seconds)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            with tempfile.TemporaryDirectory() as folder:
                part = make_part(Path(folder), options.pictures, options.side)
                section = Server.model_validate(
                    {
                        "kind": "server", "url": f"http://127.0.0.1:{port}/v1", "model": "m",
                        "captions": {name: {"prompt": name} for name in ("long", "short")},
                        "requests": {"concurrency": concurrency},
                    }
                )  # fmt: skip
                begin, cpu = time.perf_counter(), time.process_time()
                counts = recaption_part(*part, section, {}, Path(folder) / "captions.parquet")
                seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        finally:
            server.kill()
    number = counts["answered_by"]["m"]
    assert number == 2 * options.pictures and not counts["failed"]
    rate, capacity = number / seconds, options.slots / options.seconds
    print(
        f"{number:,} captions in {seconds:.1f} s: {rate:.1f}/s of {capacity:.1f}/s with {concurrency} requests"
        f" under way, {rate / capacity:.1%}; {1000 * cpu / number:.1f} ms of a processor each"
    )
    return int(rate < LIMIT * capacity)


if __name__ == "__main__":
    sys.exit(main())
