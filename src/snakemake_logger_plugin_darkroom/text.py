"""Text for a terminal or a log of CI: times, what may be printed, and the end of a job's log."""

import unicodedata
from pathlib import Path

# A traceback of ours is shorter than this, and the message stands in its last line.
MAX_LINES = 40
# Of a log without a traceback.
NUM_LAST_LINES = 15
_MAX_BYTES = 65536
_TRACEBACK = "Traceback (most recent call last)"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")


def printable(text: str) -> str:
    """`text` with its control characters escaped: logs repeat what servers sent."""
    return "".join(char if _may_be_printed(char) else _escaped(char) for char in text)


def _may_be_printed(char: str) -> bool:
    return char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"


def _escaped(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def duration(seconds: float) -> str:
    """E.g. `12 s`, `3 min 4 s`, `2 h 5 min`."""
    total = max(0, round(seconds))
    minutes, rest = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def end_of_log(path: str | Path) -> list[str]:
    """The last traceback of a log with what it was caused by, else its last lines; none if there is no text.

    Raises:
        OSError: the log cannot be read.
    """
    with open(path, "rb") as log:
        size = log.seek(0, 2)
        log.seek(max(0, size - _MAX_BYTES))
        text = log.read().decode("utf-8", errors="backslashreplace")
    lines = printable(text.rstrip()).split("\n") if text.strip() else []
    start = _last_traceback(lines)
    if start is None:
        return lines[-NUM_LAST_LINES:]
    if len(lines) - start > MAX_LINES:
        return ["...", *lines[-MAX_LINES:]]
    return lines[start:]


def has_traceback(lines: list[str]) -> bool:
    """Whether some lines of a log say which error ended it."""
    return _last_traceback(lines) is not None or lines[:1] == ["..."]


def _last_traceback(lines: list[str]) -> int | None:
    begins = [i for i, line in enumerate(lines) if _TRACEBACK in line]
    while len(begins) > 1 and any(
        mark in line for line in lines[max(0, begins[-1] - 3) : begins[-1]] for mark in _CHAINED
    ):
        begins.pop()
    return begins[-1] if begins else None
