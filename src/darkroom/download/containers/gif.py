"""GIF: the first frame alone, and whether another follows; at most so many blocks.

The blocks are those of the GIF89a specification (CompuServe, 1990).
"""

import struct

from darkroom.download.containers.base import Plain, animated, check_size, damaged, too_costly

MAX_BLOCKS = 500_000
"""Encoders fill sub-blocks of 255 bytes, so that 50 MB have 200,000."""

_EXTENSION, _FRAME, _TRAILER = b"!", b",", b";"
_GRAPHIC_CONTROL = 0xF9


class _Reader:
    """Walks blocks."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 13 + _table_bytes(content[10])
        self._num_blocks = 0

    def count(self) -> None:
        self._num_blocks += 1
        if self._num_blocks > MAX_BLOCKS:
            raise too_costly(f"more than {MAX_BLOCKS} blocks")

    def skip_sub_blocks(self) -> None:
        """Go behind the empty sub-block that ends a chain, or to the end of the file."""
        content, place = self.content, self.place
        number, limit = self._num_blocks, MAX_BLOCKS
        while place < len(content) and (size := content[place]):
            place += 1 + size
            number += 1
            if number > limit:
                raise too_costly(f"more than {MAX_BLOCKS} blocks")
        self.place, self._num_blocks = place + 1, number

    def to_frame(self) -> bytes | None:
        """Go to the next frame; its control block, if it has one. None: there is no other frame."""
        control = b""
        while self.place < len(self.content):
            self.count()
            kind = self.content[self.place : self.place + 1]
            if kind == _FRAME:
                return control
            if kind == _TRAILER:
                return None
            start = self.place
            self.place += 1
            # What is no block is passed over, as browsers do.
            if kind == _EXTENSION:
                self.place += 1
                self.skip_sub_blocks()
                block = self.content[start : start + 8]
                if block[1:2] == bytes([_GRAPHIC_CONTROL]) and len(block) == 8:
                    control = block
        return None


def _table_bytes(flags: int) -> int:
    """Length of a colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def read(content: bytes, max_pixels: int) -> Plain:
    """See `containers.plain`."""
    if len(content) < 13:
        raise damaged()
    width, height = struct.unpack_from("<HH", content, 6)
    check_size(max(width, 1), max(height, 1), max_pixels)
    reader = _Reader(content)
    head = content[: reader.place]
    control = reader.to_frame()
    start = reader.place
    if control is None or start + 11 > len(content):
        raise damaged()
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", content, start + 1)
    # A frame that reaches beyond the screen enlarges it.
    width, height = max(width, left + frame_width), max(height, top + frame_height)
    check_size(width, height, max_pixels)
    # A descriptor of 10 bytes, its colours, and a byte that tells the size of the codes.
    reader.place = start + 10 + _table_bytes(content[start + 9]) + 1
    reader.skip_sub_blocks()
    frame, is_ended = content[start : reader.place], reader.place <= len(content)
    if reader.to_frame() is not None:
        raise animated()
    # A file that ends within the data stays one, for its decoder to say how many pixels that leaves.
    trailer = _TRAILER if is_ended else b""
    return Plain("GIF", head + control + frame + trailer)
