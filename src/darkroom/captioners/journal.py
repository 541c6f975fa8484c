"""The journal of a part: the captions so far, beside the output until that is finished.

A job that is killed leaves it, and the next one makes only what is missing. A line is the CRC-32 of its JSON, and
the JSON; what a killed job left half-written is passed over, with what may follow it.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

_FORMAT = "darkroom captions 2"
# Place of a picture, name of a caption, and how often that was asked for before.
Key = tuple[int, str, int]
# A dataclass of plain values: what a captioner says of one caption.
AnswerT = TypeVar("AnswerT")


class Journal(Generic[AnswerT]):
    """Answers by (place of the picture, name of the caption, try), kept in a folder.

    Each job appends to a file of its own, so that one that was given up and still lives spoils nothing.

    Args:
        folder: made where it is not there. Files in it of another `made_of` are removed.
        made_of: digest of what the answers depend on: pictures and settings.
        answer: their class.

    Raises:
        OSError: the disk failed; so does `keep`.
    """

    def __init__(self, folder: Path, made_of: str, answer: type[AnswerT]) -> None:
        self.answers: dict[Key, AnswerT] = {}
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
                self.answers.setdefault(key, answer(**record))
        number = int(paths[-1].stem) + 1 if paths else 0
        # Where two jobs begin at once, one of them fails here.
        self._file = open(folder / f"{number:06d}.jsonl", "xb", buffering=0)  # noqa: SIM115 - __exit__
        self._append([header])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()

    def keep(self, answers: Mapping[Key, AnswerT]) -> None:
        """Keep some answers; they are there before this returns, should the job be killed then."""
        self._append(
            {"place": place, "caption": caption, "attempt": attempt, **asdict(answer)}  # type: ignore[call-overload]
            for (place, caption, attempt), answer in answers.items()
        )
        self.answers.update(answers)

    def _append(self, records: Iterable[dict[str, Any]]) -> None:
        texts = [json.dumps(record, ensure_ascii=False).encode() for record in records]
        left = memoryview(b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in texts))
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
