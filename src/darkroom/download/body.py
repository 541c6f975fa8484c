"""The body of an answer: announced, in chunks, or up to the connection's end, and never more than so many bytes.

Python's http.client reads chunked bodies too, and takes `-1` for a size (RFC 9112, section 7.1, has hex digits).
"""

import re
from collections.abc import Callable
from http.client import HTTPResponse

from darkroom.download import status as words
from darkroom.download.connection import Reader, broken
from darkroom.download.status import FetchError

MIN_CHUNK_BYTES = 256
"""A smaller chunk counts as so many bytes: its size and line breaks were sent, and read, too."""
PIECE_BYTES = 65_536

_MAX_LINE_BYTES = 4_096
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")


def read_body(
    reader: Reader,
    response: HTTPResponse,
    max_bytes: int,
    take: Callable[[int], None],
    cut: bool = False,
) -> list[bytes]:
    """The body of `response` in pieces, read from `reader`, behind the headers.

    Args:
        reader: what the response's own headers were read from.
        response: its status and headers.
        max_bytes: longest body.
        take: asked before so many bytes are kept, and may wait.
        cut: of a longer body return about the first `max_bytes`, instead of raising.

    Raises:
        FetchError: too_many_bytes, empty_body or connection_error, besides what reading raises.
    """
    body = _Body(reader, max_bytes, take)
    try:
        if response.chunked:
            body.read_chunks()
        elif response.length is None:
            while body.read(PIECE_BYTES):
                pass
        elif response.length <= max_bytes:
            body.read_exactly(response.length)
        elif cut:
            body.read_exactly(max_bytes)
        else:
            raise body.too_many()
    except FetchError as error:
        if not cut or error.failure.status != words.TOO_MANY_BYTES:
            raise
    pieces = body.finished()
    if not pieces:
        raise FetchError(words.EMPTY_BODY, "the server sent an empty body")
    return pieces


class _Body:
    """Pieces of about PIECE_BYTES, however small what arrives is."""

    def __init__(self, reader: Reader, max_bytes: int, take: Callable[[int], None]) -> None:
        self._reader, self._max_bytes, self._take = reader, max_bytes, take
        self._pieces: list[bytes] = []
        self._last = bytearray()
        self._count = 0

    def too_many(self) -> FetchError:
        return FetchError(words.TOO_MANY_BYTES, f"the body is larger than max_bytes = {self._max_bytes}")

    def count(self, number: int) -> None:
        self._count += number
        if self._count > self._max_bytes:
            raise self.too_many()

    def read(self, most: int) -> int:
        """Keep at most so many bytes more; how many there were, 0 at the end of the stream."""
        piece = self._reader.read1(min(most, PIECE_BYTES))
        if piece:
            self.count(len(piece))
            self._take(len(piece))
            self._last += piece
            if len(self._last) >= PIECE_BYTES:
                self._pieces.append(bytes(self._last))
                self._last.clear()
        return len(piece)

    def read_exactly(self, size: int) -> None:
        while size:
            number = self.read(size)
            if not number:
                raise broken()
            size -= number

    def read_chunks(self) -> None:
        """Up to the chunk of no bytes; what may follow it, trailers, is nobody's."""
        while True:
            match = _SIZE.fullmatch(self._reader.readline(_MAX_LINE_BYTES))
            if match is None:
                raise broken()
            size = int(match[1], 16)
            if size == 0:
                return
            self.count(max(MIN_CHUNK_BYTES - size, 0))
            if size > self._max_bytes:
                raise self.too_many()
            self.read_exactly(size)
            if self._reader.readline(2) not in (b"\r\n", b"\n"):
                raise broken()

    def finished(self) -> list[bytes]:
        """All pieces."""
        return [*self._pieces, bytes(self._last)] if self._last else self._pieces
