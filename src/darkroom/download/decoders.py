"""Pictures decoded in processes of their own, each bounded in memory and time, and started again where it dies."""

import contextlib
import hashlib
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple

from darkroom.download import status as words
from darkroom.download.decode import Wanted
from darkroom.download.memory import SPARE_BYTES, picture_bytes
from darkroom.download.status import Failure, indented, is_status, printable
from darkroom.download.worker import MAX_TEXT_BYTES, READY, REPLY, REQUEST
from darkroom.settings.download import Download

WORKER = "darkroom.download.worker"
START_S = 60.0
WALL_FACTOR, WALL_S = 10, 60.0
"""A process may take WALL_FACTOR x max_decode_s + WALL_S for a picture, however busy the machine is."""
_TICK_S = 0.5

_log = logging.getLogger(__name__)

# Of the hashes that lists have.
MD5_DIGITS, SHA256_DIGITS = 32, 64


class Picture(NamedTuple):
    """A picture ready to be stored. Sizes are in pixels of the upright picture.

    `original_width` and `original_height` are those before reduction; `sha256` and `num_bytes` are
    of the bytes that were downloaded; `opt_outs` is what reserves its use, and `same_bytes` whether the list's
    hash is theirs, as in the table.
    """

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    sha256: str
    num_bytes: int
    opt_outs: tuple[str, ...] = ()
    same_bytes: bool | None = None


def compared(found: Picture | Failure, pieces: Sequence[bytes], listed_hash: str | None) -> Picture | Failure:
    """The same, with whether `listed_hash`, a SHA-256 or an MD5 in hex, is that of the file that is `pieces`."""
    if not listed_hash:
        return found
    if len(listed_hash) == SHA256_DIGITS:
        same_bytes = found.sha256 == listed_hash
    else:
        digest = hashlib.md5(usedforsecurity=False)
        for piece in pieces:
            digest.update(piece)
        same_bytes = digest.hexdigest() == listed_hash
    if isinstance(found, Picture):
        return found._replace(same_bytes=same_bytes)
    return replace(found, same_bytes=same_bytes)


def with_opt_outs(found: Picture | Failure, opt_outs: Sequence[str]) -> Picture | Failure:
    """The same, with these `opt_outs`."""
    if isinstance(found, Picture):
        return found._replace(opt_outs=tuple(opt_outs))
    return replace(found, opt_outs=tuple(opt_outs))


class DecoderError(RuntimeError):
    """No decoder starts here: a fault of the machine or of this program, and of no picture."""


class Decoders:
    """Decodes pictures in `number` processes; safe to use from many threads.

    A process starts when it is first needed.
    """

    def __init__(self, settings: Download, number: int = 1) -> None:
        self._obey_marks = settings.obey_marks
        # The last one used is the first one used again, so that one is enough where little is to be done.
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._workers = [_Worker(settings) for _ in range(max(number, 1))]
        for worker in self._workers:
            self._idle.put(worker)
        self.failure: DecoderError | None = None

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pids(self) -> list[int]:
        """Of the processes that are running."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.stop()

    def decode(self, pieces: Sequence[bytes]) -> Picture | Failure:
        """The picture whose file is `pieces` together, or why it is none.

        Raises:
            DecoderError: no process can be started; also kept as `failure`.
        """
        digest, size = hashlib.sha256(), 0
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
        worker = self._idle.get()
        try:
            if self.failure is not None:
                raise self.failure
            found = worker.decode(pieces, size)
        except DecoderError as error:
            self.failure = error
            raise
        finally:
            self._idle.put(worker)
        if isinstance(found, Failure):
            return Failure(found.status, found.error, digest.hexdigest(), size)
        if found.opt_outs and self._obey_marks:
            sentence = f"a mark in the file says {found.opt_outs[0]}"
            return Failure(words.OPTED_OUT, sentence, digest.hexdigest(), size, found.opt_outs)
        return found._replace(sha256=digest.hexdigest(), num_bytes=size)


class _Ended(Exception):
    """The process is gone. signal_number: what ended it; 0 where it ended itself; None where it took too long."""

    def __init__(self, signal_number: int | None) -> None:
        self.signal_number = signal_number


class _Worker:
    """One process, used by one thread at a time."""

    def __init__(self, settings: Download) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket
        self._messages: IO[bytes]

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._process.pid if self._process else None

    def decode(self, pieces: Sequence[bytes], size: int) -> Picture | Failure:
        """See `Decoders.decode`; sha256 and num_bytes are left open."""
        limit_s = self._settings.max_decode_s
        begin = time.monotonic()
        # Whoever kills the largest process of a machine kills this one, so a picture has a second chance.
        for is_last in (False, True):
            left_s = max(limit_s - (time.monotonic() - begin), 0.1) if is_last else limit_s
            try:
                return self._exchange(pieces, size, left_s)
            except _Ended as ended:
                number = ended.signal_number
            if number in (None, signal.SIGPROF):
                # One sentence for both limits: on a busy machine it is chance which of them comes first.
                return Failure(words.TOO_COSTLY, f"it takes longer than max_decode_s = {limit_s:g}")
        name = signal.Signals(number).name if number else "itself"
        return Failure(words.DECODER_DIED, f"the process that decoded it was ended by {name}")

    def _exchange(self, pieces: Sequence[bytes], size: int, cpu_s: float) -> Picture | Failure:
        if self._process is None:
            self._start()
        patience = _Patience(WALL_FACTOR * self._settings.max_decode_s + WALL_S)
        try:
            for piece in (REQUEST.pack(cpu_s, size), *pieces):
                self._send(piece, patience)
            reply = REPLY.unpack(self._receive(REPLY.size, patience))
            width, height, original_width, original_height, is_spent, text_size, jpeg_size = reply
            side = self._settings.max_side_px
            if (
                text_size > MAX_TEXT_BYTES
                or jpeg_size > 8 * side**2 + SPARE_BYTES
                or max(width, height) > side
            ):
                raise EOFError
            text = self._receive(text_size, patience).decode(errors="replace")
            jpeg = self._receive(jpeg_size, patience)
        except TimeoutError:
            self.stop()
            raise _Ended(None) from None
        except (OSError, EOFError):
            raise _Ended(self._end()) from None
        if is_spent:
            self.stop()
        if not jpeg:
            return _failure(text)
        found = tuple(printable(mark) for mark in text.split("\n") if mark)
        return Picture(jpeg, width, height, original_width, original_height, "", size, found)

    def _start(self) -> None:
        """Start the process and wait until it can take pictures.

        Raises:
            DecoderError: it cannot.
        """
        told = {"wanted": wanted(self._settings), "memory_bytes": picture_bytes(self._settings)}
        command = [sys.executable, "-P", "-m", WORKER, json.dumps(told)]
        # The same library as here, whichever way it was found.
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._messages = open(os.memfd_create("messages"), "w+b")  # noqa: SIM115 - closed by `stop`
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=self._messages, env=env
            )
        try:
            ready = self._receive(len(READY), _Patience(START_S))
        except (OSError, EOFError):
            ready = b""
        if ready != READY:
            said = self._said()
            self.stop()
            raise DecoderError(f"no process that decodes pictures starts here: {said or 'it says nothing'}")

    def _send(self, content: bytes, patience: "_Patience") -> None:
        view = memoryview(content)
        while view:
            with patience.during(self._channel):
                view = view[self._channel.send(view) :]

    def _receive(self, size: int, patience: "_Patience") -> bytes:
        content = bytearray(size)
        view = memoryview(content)
        while view:
            with patience.during(self._channel):
                number = self._channel.recv_into(view)
                if not number:
                    raise EOFError
                view = view[number:]
        return bytes(content)

    def _said(self) -> str:
        """The end of what the process wrote on standard error, in one line."""
        self._messages.seek(max(self._messages.seek(0, os.SEEK_END) - 1_000, 0))
        return printable(" / ".join(self._messages.read().decode(errors="replace").split("\n")))

    def _end(self) -> int:
        """Wait for a process that closed its channel, and put things in order; what signal ended it, or 0."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_TICK_S)
        code, said = self._process.poll(), self._said()
        if code != -signal.SIGPROF:
            _log.warning("a process that decodes pictures ended with %s: %s", code, said)
        self.stop()
        return -code if code is not None and code < 0 else 0

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._channel.close()
            self._messages.close()


class _Patience:
    """Counts what waits take together, in ticks: time in which this process was stopped too is nobody's fault."""

    def __init__(self, limit_s: float) -> None:
        self._left_s = limit_s

    @contextlib.contextmanager
    def during(self, channel: socket.socket) -> Iterator[None]:
        """A call that may be repeated.

        Raises:
            TimeoutError: there is no patience left.
        """
        channel.settimeout(_TICK_S)
        begin = time.monotonic()
        try:
            yield
        except TimeoutError:
            self._left_s -= min(time.monotonic() - begin, _TICK_S)
            if self._left_s <= 0:
                raise


def wanted(settings: Download) -> Wanted:
    """What decoding depends on."""
    return Wanted(settings.max_pixels, settings.max_side_px, settings.jpeg_quality)


def _failure(text: str) -> Failure:
    status, _, rest = text.partition("\n")
    error, _, more = rest.partition("\n")
    if more:
        _log.error("a fault while decoding:\n%s", indented(more))
    if not is_status(status) or status == words.OK:
        return Failure(words.DECODER_DIED, "the process that decoded it gave no answer that makes sense")
    return Failure(status, error)
