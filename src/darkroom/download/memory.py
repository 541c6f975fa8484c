"""How much memory a part takes at most, whatever servers send: a number that a job can be given."""

from darkroom.settings.download import Download

BODIES_BYTES = 200_000_000
"""Bodies in memory together; one may go beyond, so that never all of them wait."""
SPOOL_BYTES = 64 * 2**20
"""Encoded pictures kept in memory before they are spooled to a file."""

BYTES_A_PIXEL = 22
"""Address space for each of max_pixels while a picture is decoded and reduced; 18.5 of a WebP (measured)."""
BYTES_A_STORED_PIXEL = 14
"""Besides, for each pixel of the reduced picture."""
COPIES = 3
"""Of a picture's file: as it came, as its decoder sees it, and inside the decoder."""
SPARE_BYTES = 64_000_000
"""For profiles, tables and what an allocator keeps."""

_IDLE_DECODER_BYTES = 40_000_000
_JOB_BYTES = 250_000_000
"""Libraries, and a part of 10,000 rows."""
_THREAD_BYTES = 200_000
_ROBOTS_BYTES = 60_000_000
"""Files robots.txt that are remembered, and what is parsed of them."""
_ROBOTS_A_THREAD_BYTES = 1_000_000
_JPEG_BYTES_A_PIXEL = 3


def picture_bytes(settings: Download) -> int:
    """Address space that one picture may take in its process, bytes; above it, it is too costly."""
    stored = min(settings.max_pixels, settings.max_side_px**2)
    pixels = BYTES_A_PIXEL * settings.max_pixels + BYTES_A_STORED_PIXEL * stored
    return pixels + COPIES * settings.max_bytes + SPARE_BYTES


def job_bytes(settings: Download, num_decoders: int) -> int:
    """What a part may take with so many processes that decode, bytes."""
    bodies = BODIES_BYTES + settings.max_bytes + settings.num_threads * _THREAD_BYTES
    robots = _ROBOTS_BYTES + settings.num_threads * _ROBOTS_A_THREAD_BYTES
    # img2dataset lets two pictures a thread wait for the one thread that stores them.
    waiting = 2 * settings.num_threads * _JPEG_BYTES_A_PIXEL * settings.max_side_px**2
    decoders = num_decoders * (_IDLE_DECODER_BYTES + picture_bytes(settings))
    return _JOB_BYTES + SPOOL_BYTES + bodies + robots + waiting + decoders
