"""Reading text in pictures with Tesseract: the program `tesseract`, as Debian's tesseract-ocr has it.

A process a picture, which gets it as PNG and answers with a table of words. It reads English, by its LSTM.
"""

import csv
import io
import os
import re
import shutil
import subprocess
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.store import sha256_file

if TYPE_CHECKING:
    import numpy as np

PROGRAM = "tesseract"
_LANGUAGE = "eng"
# Sparse text: words of a picture stand in no columns. Of its two engines the LSTM.
_OPTIONS = ("-l", _LANGUAGE, "--psm", "11", "--oem", "1")
_TIMEOUT_S = 60.0
_FOLDER = re.compile(r'languages in "(.+)"')
_WORD_LEVEL = "5"


def require(what: str) -> None:
    """Refuse what needs the program, where it is not installed.

    Raises:
        ValueError: says what to run.
    """
    if shutil.which(PROGRAM) is None:
        raise ValueError(
            f"{what} needs the program {PROGRAM}, which is not here: `apt-get install tesseract-ocr`"
        )


class Tesseract:
    """The program, with what tells it from another.

    Args:
        min_confidence: words that are read with less do not count, 0 to 1.
    """

    def __init__(self, min_confidence: float) -> None:
        self._least = 100 * min_confidence

    @cached_property
    def name(self) -> str:
        """Its name and version."""
        told = _run("--version").stdout.decode(errors="replace").split()
        return f"{PROGRAM} {told[1]}" if len(told) > 1 else PROGRAM

    @property
    def told(self) -> dict[str, str]:
        """What reads: options, and the digest of the file that it has learned English in."""
        listed = _run("--list-langs").stdout.decode(errors="replace")
        folder = _FOLDER.search(listed)
        path = Path(folder[1] if folder else "") / f"{_LANGUAGE}.traineddata"
        if not path.is_file():
            raise ValueError(f"{PROGRAM} has no {_LANGUAGE}.traineddata: `apt-get install tesseract-ocr-eng`")
        return {"options": " ".join(_OPTIONS), "sha256": sha256_file(path)}

    def lines(self, image: "np.ndarray") -> list[str]:
        """The lines of text in a uint8 RGB picture (height, width, 3), in its order: from top to bottom.

        Raises:
            RuntimeError: the program fails, or takes more than a minute.
        """
        from PIL import Image

        picture = io.BytesIO()
        Image.fromarray(image).save(picture, "PNG", compress_level=1)
        table = _run("stdin", "stdout", *_OPTIONS, "tsv", content=picture.getvalue()).stdout.decode("utf-8")
        lines: dict[tuple[str, ...], list[str]] = {}
        for row in csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["level"] == _WORD_LEVEL and row["text"].strip() and float(row["conf"]) >= self._least:
                place = tuple(row[key] for key in ("block_num", "par_num", "line_num"))
                lines.setdefault(place, []).append(row["text"].strip())
        return [" ".join(words) for words in lines.values()]


def _run(*arguments: str, content: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    # One thread: pictures are small, and jobs are told how many they have.
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    try:
        done = subprocess.run(
            [PROGRAM, *arguments], input=content, capture_output=True, timeout=_TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{PROGRAM} took more than {_TIMEOUT_S:.0f} s for a picture") from None
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip()[-300:]
        raise RuntimeError(f"{PROGRAM} ended with {done.returncode}: {told}")
    return done
