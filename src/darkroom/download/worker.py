"""The process that decodes: pictures arrive on a socket, JPEGs or words go back; it ends with its parent.

Run as `python -m darkroom.download.worker JSON`, its standard input a socket; see `decoders`. What it can take of
the machine is bounded by the kernel: its address space for good, and its processor time picture by picture.
"""

import json
import os
import resource
import signal
import socket
import struct
import sys
import traceback

from PIL import Image

from darkroom.download import status as words
from darkroom.download.decode import Wanted, decode
from darkroom.download.manners.marks import marks
from darkroom.download.status import Refused

# What goes to the worker: processor seconds, bytes of the picture that follow.
REQUEST = struct.Struct("!dQ")
# What comes back: width, height, original width, original height, whether the process should be ended because it
# ran out of memory, bytes of text, bytes of JPEG. Beside a JPEG the text is the marks that were found in the file,
# without one a status, a sentence and, where it is a fault of ours, a traceback, in lines.
REPLY = struct.Struct("!IIII?IQ")
# Sent once, when the worker can take pictures.
READY = b"\n"
MAX_TEXT_BYTES = 8_000
# Its messages on standard error; a decoder that prints without end is none of ours.
_MAX_FILE_BYTES = 1_000_000
_MEMORY = "it takes more memory than any picture of max_pixels does"


def main() -> None:
    """Decode until the socket is closed."""
    told = json.loads(sys.argv[1])
    channel = socket.socket(fileno=0)
    # Ctrl-C is the parent's to answer; of this process's own it would only be noise.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _load_decoders()
    _limit(told["memory_bytes"])
    try:
        channel.sendall(READY)
        _serve(channel, Wanted(*told["wanted"]))
    except (ConnectionError, EOFError):
        pass


def _load_decoders() -> None:
    """Import what decodes before the address space is measured and bounded."""
    from PIL import (  # noqa: F401
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    Image.preinit()


def _limit(memory_bytes: int) -> None:
    """Bound the address space to what there is now and so much more, and what it may write."""
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    for kind, limit in (
        (resource.RLIMIT_AS, used + memory_bytes),
        (resource.RLIMIT_FSIZE, _MAX_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _serve(channel: socket.socket, wanted: Wanted) -> None:
    while True:
        cpu_s, size = REQUEST.unpack(_receive(channel, REQUEST.size))
        content = _receive(channel, size)
        # Counts the processor time of all threads; its signal, which nobody handles, ends the process.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        reply = _answer(content, wanted)
        signal.setitimer(signal.ITIMER_PROF, 0)
        channel.sendall(reply)
        del content, reply


def _answer(content: bytes, wanted: Wanted) -> bytes:
    try:
        found = decode(content, wanted)
        text = "\n".join(marks(content)).encode()
    except Refused as refused:
        return _failure(refused.status, refused.error)
    except MemoryError:
        return _failure(words.TOO_COSTLY, _MEMORY, is_spent=True)
    except Exception as error:
        sentence = f"unexpected {type(error).__name__} while decoding"
        return _failure(words.INTERNAL_ERROR, sentence, traceback.format_exc())
    return REPLY.pack(*found[1:], False, len(text), len(found.jpeg)) + text + found.jpeg


def _failure(status: str, error: str, more: str = "", is_spent: bool = False) -> bytes:
    text = f"{status}\n{error}\n{more}".encode(errors="backslashreplace")[:MAX_TEXT_BYTES]
    return REPLY.pack(0, 0, 0, 0, is_spent, len(text), 0) + text


def _receive(channel: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes.

    Raises:
        EOFError: the socket was closed.
    """
    content = bytearray(size)
    view, place = memoryview(content), 0
    while place < size:
        number = channel.recv_into(view[place:])
        if not number:
            raise EOFError
        place += number
    return bytes(content)


if __name__ == "__main__":
    main()
    # Nothing is left to be put in order.
    sys.stderr.flush()
    os._exit(0)
