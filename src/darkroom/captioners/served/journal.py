"""The journal of a part: what was answered so far, beside the output until that is finished.

A job that is killed leaves it, and the next one asks only what is missing. A line is the CRC-32 of its JSON, and
the JSON; what a killed job left half-written is passed over, with what may follow it.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from darkroom.captioners.served.chat import Answer

_FORMAT = "darkroom captions 2"
# Place of a picture, name of a caption, and how often that was asked for before.
Key = tuple[int, str, int]


class Journal:
    """Answers by (place of the picture, name of the caption, try), kept in a folder.

    Each job appends to a file of its own, so that one that was given up and still lives spoils nothing.

    Args:
        folder: made where it is not there. Files in it of another `made_of` are removed.
        made_of: digest of what the answers depend on: pictures and settings.

    Raises:
        OSError: the disk failed; so does `keep`.
    """

    def __init__(self, folder: Path, made_of: str) -> None:
        self.answers: dict[Key, Answer] = {}
        folder.mkdir(parents=True, exist_ok=True)
        header = {"format": _FORMAT, "made_of": made_of}
        paths = sorted(path for path in folder.glob("*.jsonl") if path.stem.isdecimal())
        for path in paths:
            records = _records(path.read_bytes())
            if next(records, None) != header:
                path.unlink()
                continue
            for record in records:
                key = (record.pop("place"), record.pop("caption"), record.pop("attempt"))
                self.answers.setdefault(key, Answer(**record))
        number = int(paths[-1].stem) + 1 if paths else 0
        # Where two jobs begin at once, one of them fails here.
        self._file = open(folder / f"{number:06d}.jsonl", "xb", buffering=0)  # noqa: SIM115 - __exit__
        self._append(header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()

    def keep(self, key: Key, answer: Answer) -> None:
        """Keep what a request came to."""
        place, caption, attempt = key
        self._append({"place": place, "caption": caption, "attempt": attempt, **asdict(answer)})
        self.answers[key] = answer

    def _append(self, record: dict[str, Any]) -> None:
        text = json.dumps(record, ensure_ascii=False).encode()
        left = memoryview(b"%08x %s\n" % (zlib.crc32(text), text))
        while left:
            # A disk that is nearly full takes a piece, and refuses the next.
            left = left[self._file.write(left) or 0 :]


def _records(content: bytes) -> Iterator[dict[str, Any]]:
    """The records of a file up to the first that is not whole."""
    for line in content.split(b"\n")[:-1]:
        crc, _, text = line.partition(b" ")
        if crc != b"%08x" % zlib.crc32(text):
            return
        yield json.loads(text)
