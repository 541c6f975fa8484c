"""Marks in a picture's file that reserve its use for training: of PLUS, as IPTC has them in XMP, and of C2PA.

They are looked for in the bytes, before a decoder leaves metadata out. Nothing is verified: a reservation needs no
signature. It runs in the process that decodes, and reads only so much.
"""

import itertools
import json
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

MAX_MARKS = 8
"""How many different ones are told."""
MAX_CHARS = 150

_MAX_XMP_BYTES = 4_000_000
_MAX_BOX_BYTES = 65_536
_MAX_PLACES, _MAX_LABELS = 1_000, 50
_MAX_SEGMENTS = 10_000
_MAX_ITEMS, _MAX_DEPTH = 4_096, 16

# A constant is looked for first, which is much faster than a pattern.
_PLUS, _DATA_MINING = b"ns.useplus.org/ldf/vocab/", re.compile(rb"DMI-PROHIBITED[A-Z-]{0,60}")
_XMP_IN_PNG = b"XML:com.adobe.xmp\0\1\0"
# In the description of a JUMBF box a label ends with a zero; where it is only named, in a claim, it does not.
_MINING, _LABEL = b".training-mining", re.compile(rb"((?:c2pa|cawg)\.training-mining)(?:__[0-9]{1,4})?\0")
_CONTENT = re.compile(rb"cbor|json")
_TO_CONTENT = 256
_TRAINING = ("ai_generative_training", "ai_training", "data_mining")
_RESERVED = ("notAllowed", "constrained")


def marks(content: bytes) -> list[str]:
    """What a picture's file says against its use for training, such as "plus:DataMining: DMI-PROHIBITED"."""
    found: dict[str, None] = {}
    for mark in _all(content):
        found[mark[:MAX_CHARS]] = None
        if len(found) == MAX_MARKS:
            break
    return list(found)


def _all(content: bytes) -> Iterator[str]:
    for text in (content, _packed_xmp(content)):
        for place in _places(text, _PLUS):
            if match := _DATA_MINING.match(text, place + len(_PLUS)):
                yield f"plus:DataMining: {match[0].decode()}"
    boxes = _jumbf_of_jpeg(content) if content.startswith(b"\xff\xd8") else content
    labels = (_LABEL.match(boxes, place - 4) for place in _places(boxes, _MINING) if place >= 4)
    for label in itertools.islice(filter(None, labels), _MAX_LABELS):
        entries = _assertion(boxes, label.end()).get("entries")
        for use, value in entries.items() if isinstance(entries, dict) else ():
            said = value.get("use") if isinstance(value, dict) else None
            if isinstance(use, str) and use.endswith(_TRAINING) and said in _RESERVED:
                yield f"{label[1].decode()}: {use}={said}"


def _places(content: bytes, word: bytes) -> Iterator[int]:
    """Where `word` stands; at most so many times."""
    place = -1
    for _ in range(_MAX_PLACES):
        place = content.find(word, place + 1)
        if place < 0:
            return
        yield place


def _packed_xmp(content: bytes) -> bytes:
    """XMP that a PNG has compressed; other files have it as it is."""
    start = content.find(_XMP_IN_PNG) if content.startswith(b"\x89PNG") else -1
    if start < 8:
        return b""
    end = start + struct.unpack(">I", content[start - 8 : start - 4])[0]
    start += len(_XMP_IN_PNG)
    # Then a language and the keyword's translation, both of which end with a zero.
    for _ in range(2):
        start = content.find(b"\0", start, end) + 1
        if not start:
            return b""
    try:
        return zlib.decompressobj().decompress(content[start:end], _MAX_XMP_BYTES)
    except zlib.error:
        return b""


def _jumbf_of_jpeg(content: bytes) -> bytes:
    """The boxes that a JPEG has in APP11 segments, put together; what is damaged ends them."""
    boxes, place = bytearray(), 2
    for _ in range(_MAX_SEGMENTS):
        if place + 4 > len(content) or content[place] != 0xFF or content[place + 1] == 0xDA:
            break
        kind, length = struct.unpack(">xBH", content[place : place + 4])
        segment = content[place + 4 : place + 2 + length]
        if kind == 0xEB and segment.startswith(b"JP"):
            # An identifier, the number of a box and that of its piece; later pieces repeat the head of the box.
            piece = int.from_bytes(segment[4:8])
            boxes += segment[8:] if piece == 1 else segment[16:]
        place += 2 + max(length, 2)
    return bytes(boxes)


def _assertion(boxes: bytes, start: int) -> dict[str, Any]:
    """The content of the box behind a description whose label ends at `start`; empty where it is none."""
    match = _CONTENT.search(boxes, start, start + _TO_CONTENT)
    if match is None or match.start() < 4:
        return {}
    size = int.from_bytes(boxes[match.start() - 4 : match.start()])
    payload = boxes[match.end() : match.start() - 4 + min(size, _MAX_BOX_BYTES)]
    try:
        found = json.loads(payload) if match[0] == b"json" else _Cbor(payload).item()
    except (ValueError, IndexError, struct.error, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class _Cbor:
    """Reads one item of CBOR (RFC 8949) of known lengths, without tags' meanings.

    Raises:
        ValueError: it is none, or too large; IndexError: it is cut.
    """

    def __init__(self, content: bytes) -> None:
        self._content, self._place, self._items = content, 0, 0

    def item(self, depth: int = 0) -> Any:
        """The next item; floats as None."""
        self._items += 1
        if self._items > _MAX_ITEMS or depth > _MAX_DEPTH:
            raise ValueError("too many items")
        kind, more = divmod(self._take(1)[0], 32)
        if more > 27:
            raise ValueError("a length that is open, or none")
        number = more if more < 24 else int.from_bytes(self._take(1 << (more - 24)))
        if kind == 0:
            return number
        if kind == 1:
            return -1 - number
        if kind == 2:
            return self._take(number)
        if kind == 3:
            return self._take(number).decode()
        if kind == 4:
            return [self.item(depth + 1) for _ in range(self._few(number))]
        if kind == 5:
            return self._map(self._few(number), depth + 1)
        if kind == 6:
            return self.item(depth + 1)
        return {20: False, 21: True}.get(more)

    def _map(self, number: int, depth: int) -> dict[Any, Any]:
        found = {}
        for _ in range(number):
            key = self.item(depth)
            value = self.item(depth)
            if isinstance(key, str):
                found[key] = value
        return found

    def _few(self, number: int) -> int:
        if number > _MAX_ITEMS:
            raise ValueError("too many items")
        return number

    def _take(self, number: int) -> bytes:
        end = self._place + number
        if end > len(self._content):
            raise IndexError("the content is cut")
        found = self._content[self._place : end]
        self._place = end
        return found
