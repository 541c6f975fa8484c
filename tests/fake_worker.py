"""A process that decodes, and that does what some pictures tell it: run in the place of the real one by tests."""

import os
import signal
import time
from pathlib import Path

from darkroom.download import worker
from darkroom.download.decode import Decoded, Wanted, decode


def obey(content: bytes, wanted: Wanted) -> Decoded:
    """Decode, but for pictures that are orders."""
    if content == b"die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if content.startswith(b"die once: "):
        mark = Path(content.removeprefix(b"die once: ").decode())
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Decoded(b"\xff\xd8\xff", 1, 1, 1, 1)
    if content == b"exit":
        os.write(2, b"\x1b[31mred\nforged: all is well\n")
        os._exit(3)
    if content == b"sleep":
        time.sleep(600)
    if content == b"spin":
        while True:
            pass
    if content == b"fail":
        raise RuntimeError("\x1b[31m\nforged: all is well")
    if content == b"eat":
        bytearray(8 << 30)
    if content == b"boast":
        return Decoded(b"\xff\xd8\xff", 10**9, 1, 1, 1)
    if content == b"lie":
        os.write(0, os.urandom(worker.REPLY.size))
        os._exit(0)
    return decode(content, wanted)


if __name__ == "__main__":
    worker.decode = obey
    worker.main()
