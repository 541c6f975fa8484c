"""The journal of a part: how its rows ended so far, beside the output until that is finished.

A job that is killed leaves it. The next one goes on with the rows that are missing, and knows which were being
fetched or decoded when it died: the cause may be among them.
"""

import json
import logging
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import IO

from darkroom.download.decoders import Picture
from darkroom.download.status import TRANSPORT, Failure
from darkroom.download.writer import Stored

_log = logging.getLogger(__name__)

# Of a record: kind, row's position, bytes of JSON, bytes of JPEG, and the CRC-32 of these numbers and all bytes.
_NUMBERS, _CRC = struct.Struct("!BIIQ"), struct.Struct("!I")
FETCHED, DECODED = 1, 10
"""How much a row is to blame for a job that died while the row was fetched, or its bytes were there and decoded.

Waiting for an answer kills no job, takes long, and is what most rows do when one is killed for another reason."""


class _Kind(IntEnum):
    """What a record says."""

    BEGUN = 1  # the row is being fetched
    ENDED = 2
    REOPENED = 3  # rows that ended without an answer are to be fetched again
    STOPPED = 4  # the job ended in order, and none of its rows is to blame
    ARRIVED = 5  # the row's bytes are there, and are being decoded


class Journal:
    """Outcomes of a part's rows by their position, kept in a folder; safe to use from many threads.

    Each job appends to a file of its own, so that one that was given up and still lives spoils nothing. A record
    that a killed job left half-written is passed over, with what may follow it.

    Args:
        folder: made where it is not there. What is there for another `made_of` is removed.
        made_of: digest of what the outcomes depend on: rows, settings, version.

    Attributes:
        outcomes: position -> how the row ended, in this job or an earlier one.
        blame: position -> the sum of FETCHED and DECODED over the jobs that died with the row, of rows that have
            not ended.
        failure: the first error of the disk; nothing is kept after it.
    """

    def __init__(self, folder: Path, made_of: str) -> None:
        self.outcomes: dict[int, Stored | Failure] = {}
        self.blame: dict[int, int] = {}
        self.failure: OSError | None = None
        self._title = f"darkroom journal 2 {made_of}\n".encode()
        self._writing, self._is_over = threading.Lock(), False
        self._files: list[IO[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(path for path in folder.iterdir() if path.name.isdecimal())
        for path in names:
            self._read(path)
        number = int(names[-1].name) + 1 if names else 0
        # Where two jobs begin at once, one of them fails here.
        self._files.append(open(folder / f"{number:06d}", "x+b", buffering=0))  # noqa: SIM115 - __exit__
        self._end = 0
        self._append(self._title)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._write(_Kind.STOPPED)
        with self._writing:
            # Threads that still fetch for a job that is over have nothing more to say.
            self._is_over = True
            for file in self._files:
                file.close()

    def begin(self, place: int) -> None:
        """Note that a row is being fetched."""
        self._write(_Kind.BEGUN, place)

    def arrive(self, place: int) -> None:
        """Note that a row's bytes are there, and are being decoded."""
        self._write(_Kind.ARRIVED, place)

    def keep(self, place: int, found: Picture | Failure) -> Stored | Failure | None:
        """Keep how a row ended; None where the disk failed, see `failure`."""
        jpeg = found.jpeg if isinstance(found, Picture) else b""
        text = (json.dumps(found[1:]) if isinstance(found, Picture) else found.to_message()).encode()
        start = self._write(_Kind.ENDED, place, text, jpeg)
        if start is None:
            return None
        outcome: Stored | Failure = (
            found
            if isinstance(found, Failure)
            else (Stored(found._replace(jpeg=b""), start + len(text), len(jpeg), len(self._files) - 1))
        )
        self.outcomes[place] = outcome
        return outcome

    def reopen(self) -> None:
        """Have the next job fetch the rows again that ended without an answer."""
        self._write(_Kind.REOPENED)

    def jpeg(self, stored: Stored) -> bytes:
        """The bytes of a picture that was kept."""
        return os.pread(self._files[stored.file].fileno(), stored.size, stored.start)

    def _write(self, kind: _Kind, place: int = 0, text: bytes = b"", jpeg: bytes = b"") -> int | None:
        """Append a record; where its JSON begins, or None where the disk failed, now or before."""
        numbers = _NUMBERS.pack(kind, place, len(text), len(jpeg))
        crc = zlib.crc32(jpeg, zlib.crc32(text, zlib.crc32(numbers)))
        with self._writing:
            if self.failure is not None or self._is_over:
                return None
            self._is_over = kind == _Kind.STOPPED
            start = self._end + _NUMBERS.size + _CRC.size
            try:
                self._append(numbers + _CRC.pack(crc) + text + jpeg)
            except OSError as error:
                self.failure = error
                return None
            return start

    def _append(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            # A disk that is nearly full takes a piece, and refuses the next.
            written = self._files[-1].write(left)
            self._end += written or 0
            left = left[written:]

    def _read(self, path: Path) -> None:
        """Take over what an earlier job wrote, up to where it died."""
        file = open(path, "rb")  # noqa: SIM115 - __exit__
        if file.readline(len(self._title) + 1) != self._title:
            file.close()
            path.unlink()
            return
        self._files.append(file)
        begun: dict[int, int] = {}
        for kind, place, outcome in _records(file, len(self._files) - 1):
            if kind in (_Kind.BEGUN, _Kind.ARRIVED):
                begun[place] = FETCHED if kind == _Kind.BEGUN else DECODED
            elif kind == _Kind.ENDED and outcome is not None:
                begun.pop(place, None)
                self.blame.pop(place, None)
                self.outcomes[place] = outcome
            elif kind == _Kind.REOPENED:
                self.outcomes = {p: o for p, o in self.outcomes.items() if not _is_unanswered(o)}
            else:
                begun.clear()
        for place, share in begun.items():
            self.blame[place] = self.blame.get(place, 0) + share


def _is_unanswered(outcome: Stored | Failure) -> bool:
    return isinstance(outcome, Failure) and outcome.status in TRANSPORT


def _records(file: IO[bytes], number: int) -> Iterator[tuple[_Kind, int, Stored | Failure | None]]:
    """(kind, position, outcome) of every record that is whole, up to the first that is not."""
    size = os.fstat(file.fileno()).st_size
    while len(head := file.read(_NUMBERS.size + _CRC.size)) == _NUMBERS.size + _CRC.size:
        kind, place, text_size, jpeg_size = _NUMBERS.unpack_from(head)
        start = file.tell()
        if start + text_size + jpeg_size > size:
            return
        text, jpeg = file.read(text_size), file.read(jpeg_size)
        crc = zlib.crc32(jpeg, zlib.crc32(text, zlib.crc32(head[: _NUMBERS.size])))
        if crc != _CRC.unpack_from(head, _NUMBERS.size)[0]:
            return
        outcome: Stored | Failure | None = None
        if kind == _Kind.ENDED:
            if jpeg:
                *numbers, opt_outs, same_bytes = json.loads(text)
                picture = Picture._make((b"", *numbers, tuple(opt_outs), same_bytes))
                outcome = Stored(picture, start + text_size, jpeg_size, number)
            else:
                outcome = Failure.from_message(text.decode())
        yield _Kind(kind), place, outcome


def journal_folder(tar: Path) -> Path:
    """Where the journal of a part with this tar lies."""
    return tar.parent / f".{tar.stem}.journal"


def forget(tar: str | Path) -> None:
    """Remove the journal of a part that is finished."""
    shutil.rmtree(journal_folder(Path(tar)), ignore_errors=True)


@contextmanager
def journal_of(tar: Path, made_of: str, stay: bool) -> Iterator[Journal]:
    """The journal of a part; it stays where the block fails, or where that is asked for."""
    with Journal(journal_folder(tar), made_of) as journal:
        if journal.outcomes or journal.blame:
            _log.info("%s: goes on after %d rows that have ended", tar.stem, len(journal.outcomes))
        yield journal
    if not stay:
        forget(tar)
