"""ICC profiles, of which only the tags that a conversion to sRGB looks at reach the library that makes it.

The tags and types are those of ICC.1:2022. Left out are multi-process elements above all: a profile of a few
hundred bytes can name one of them ten thousand times.
"""

import functools
import io
import struct

from PIL import ImageCms

from darkroom.download.containers.base import MAX_PROFILE_BYTES

_SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}
_MAX_TAGS = 1_000
# Of scanners, screens, printers and colour spaces; not links between devices, nor named colours.
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_POINT, _CURVE, _TABLE = (b"XYZ ",), (b"curv", b"para"), (b"mft1", b"mft2")
_TYPES = {
    **dict.fromkeys((b"wtpt", b"bkpt", b"rXYZ", b"gXYZ", b"bXYZ"), _POINT),
    **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC", b"kTRC"), _CURVE),
    **dict.fromkeys((b"A2B0", b"A2B1", b"A2B2"), (*_TABLE, b"mAB ")),
    **dict.fromkeys((b"B2A0", b"B2A1", b"B2A2"), (*_TABLE, b"mBA ")),
    b"chad": (b"sf32",),
}


@functools.lru_cache(maxsize=16)
def to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion to sRGB of colours in `mode`; None if the profile is damaged or for other colours."""
    plain = _plain(profile, _SPACES[mode])
    if plain is None:
        return None
    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(plain)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _plain(profile: bytes, space: bytes) -> bytes | None:
    """The profile with a table of the tags that matter, their data where they were; None if it does not fit."""
    if not 132 <= len(profile) <= MAX_PROFILE_BYTES:
        return None
    (number,) = struct.unpack_from(">I", profile, 128)
    if profile[12:16] not in _CLASSES or profile[16:20] != space:
        return None
    if number > _MAX_TAGS or 132 + 12 * number > len(profile):
        return None
    kept = []
    for place in range(132, 132 + 12 * number, 12):
        name, start = profile[place : place + 4], int.from_bytes(profile[place + 4 : place + 8], "big")
        if name in _TYPES:
            if profile[start : start + 4] not in _TYPES[name]:
                return None
            kept.append(profile[place : place + 12])
    table = struct.pack(">I", len(kept)) + b"".join(kept)
    return profile[:128] + table + profile[128 + len(table) :]
