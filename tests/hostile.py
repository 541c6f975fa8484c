"""Pictures that were made to cost more than they should, and the word that ends the row of each.

Each is a few lines of arithmetic rather than a file. The attacks are of kinds that were reported against decoders
of the web; docs/download.md says what any of them may cost.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

OK = "ok"
COSTLY = "too_costly"
LARGE = "too_many_pixels"
DAMAGED = "truncated_image"
MANY = "animated_image"
OTHER = "unsupported_image"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG; `crc` instead of the right one."""
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", crc or zlib.crc32(checked))


def squeezed(number: int) -> bytes:
    """So many zeros, as zlib packs them."""
    squeeze, block = zlib.compressobj(9), bytes(1_000_000)
    whole, rest = divmod(number, len(block))
    parts = [squeeze.compress(block) for _ in range(whole)] + [squeeze.compress(bytes(rest))]
    return b"".join(parts) + squeeze.flush()


def png(
    width: int,
    height: int,
    before: bytes = b"",
    after: bytes = b"",
    depth: int = 8,
    colour: int = 0,
    data: bytes | None = None,
    interlace: int = 0,
) -> bytes:
    """A PNG of black pixels with chunks before and after its data; colour 0 is grey, 2 RGB, 6 RGBA."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    if data is None:
        data = squeezed((1 + -(-width * depth * channels // 8)) * height)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    parts = chunk(b"IHDR", header), before, chunk(b"IDAT", data), after, chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def profile(tags: list[tuple[bytes, bytes]], space: bytes = b"RGB ", kind: bytes = b"mntr") -> bytes:
    """An ICC profile with these tags (signature, content)."""
    table, body = struct.pack(">I", len(tags)), b""
    start = 132 + 12 * len(tags)
    for name, content in tags:
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x04400000, kind, space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D) + bytes(48)
    return header + table + body


def curve_bomb(number: int = 10_000) -> bytes:
    """Multi-process elements that are the same set of curves, named again and again."""
    curve = b"curf" + bytes(4) + struct.pack(">HH", 1, 0) + b"parf" + bytes(4)
    curve += struct.pack(">HHffff", 0, 0, 2.2, 1.0, 0.0, 0.0)
    curves = b"cvst" + bytes(4) + struct.pack(">HH", 3, 3) + struct.pack(">II", 36, len(curve)) * 3 + curve
    position = struct.pack(">II", 16 + 8 * number, len(curves))
    element = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, number) + position * number + curves
    return profile([(b"D2B1", element), (b"D2B0", element), (b"wtpt", b"XYZ \0\0\0\0" + bytes(12))])


def iccp(icc: bytes) -> bytes:
    """A chunk with a colour profile."""
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(icc, 9))


def segment(marker: int, content: bytes = b"") -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def inside_jpeg(more: bytes, content: bytes | None = None) -> bytes:
    """A JPEG with `more` behind its first marker."""
    content = content or encoded(Image.new("RGB", (48, 32), (200, 30, 30)), "JPEG")
    return content[:2] + more + content[2:]


def scan(first: int, last: int, bits: str, refine: bool = False) -> bytes:
    """A scan of coefficients [first, last] of the one component, with these bits as its data."""
    data = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    return segment(0xDA, bytes((1, 1, 0, first, last, 16 * refine))) + data.replace(b"\xff", b"\xff\0")


def progressive(side: int, num_scans: int) -> bytes:
    """A grey progressive JPEG that says nothing, again and again: each scan runs over all its blocks."""
    blocks = (-(-side // 8)) ** 2
    # Huffman tables of one code, a single 0: no difference (DC), and a run of 16,384 empty blocks (AC).
    tables = segment(0xC4, b"\0" + b"\1" + bytes(15) + b"\0") + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    frame = segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes((1, 0x11, 0)))
    head = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([1] * 64)) + frame + tables
    empty = ("0" * 15) * -(-blocks // 16_384)
    known = scan(0, 0, "0" * blocks) + scan(1, 63, empty)
    return head + known + scan(1, 63, empty, refine=True) * (num_scans - 2) + b"\xff\xd9"


def exif_with(entries: list[tuple[int, int, int, int]]) -> bytes:
    """A TIFF directory of entries (tag, type, count, offset)."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


def gif(width: int, height: int, before: bytes = b"", data: bytes | None = None, after: bytes = b"") -> bytes:
    """A GIF of one frame with blocks before and after it; `data` instead of its sub-blocks."""
    plain = encoded(Image.new("L", (width, height)), "GIF")
    start = plain.index(b",", 13)
    # A descriptor has 10 bytes, and one more tells the size of the codes.
    blocks = plain[start + 11 : -1] if data is None else data
    return plain[:start] + before + plain[start : start + 11] + blocks + after + b";"


def riff(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A WebP of these chunks."""
    packed = (name + struct.pack("<I", len(c)) + c + bytes(len(c) % 2) for name, c in chunks)
    body = b"WEBP" + b"".join(packed)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a WebP."""
    found, place = [], 12
    while place + 8 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        found.append((content[place : place + 4], content[place + 8 : place + 8 + size]))
        place += 8 + size + size % 2
    return found


def tiff(entries: list[tuple[int, int, int, int]], body: bytes = b"", next_ifd: int = 0) -> bytes:
    """A little-endian TIFF whose directory lies at its end: entries (tag, type, count, value or offset).

    Offsets of the body count from 8.
    """
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    directory = struct.pack("<H", len(entries)) + table + struct.pack("<I", next_ifd)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


def grey_tiff(
    width: int, height: int, compression: int, data: bytes, next_ifd: int = 0, **more: int
) -> bytes:
    """A TIFF of grey pixels in one strip; more: t<TAG>=<value> entries of type LONG."""
    known = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 277: 1}
    known |= {int(name[1:]): value for name, value in more.items()}
    if 322 not in known:
        known |= {273: 8, 278: height, 279: len(data)}
    return tiff([(tag, 4, 1, value) for tag, value in known.items()], data, next_ifd)


def bmp(width: int, height: int, bits: int, compression: int, data: bytes, num_colours: int = 256) -> bytes:
    """A BMP; compression 0 is none, 1 and 2 are runs of 8 and 4 bits."""
    palette = b"".join(bytes((i, 255 - i, i, 0)) for i in range(num_colours))
    start = 54 + len(palette)
    info = (40, width, height, 1, bits, compression, len(data), 0, 0, num_colours, 0)
    head = struct.pack("<2sIII", b"BM", start + len(data), 0, start) + struct.pack("<IiiHHIIiiII", *info)
    return head + palette + data


def with_avif_size(content: bytes, width: int, height: int) -> bytes:
    """An AVIF that announces another size (ispe)."""
    place = content.index(b"ispe") + 8
    return content[:place] + struct.pack(">II", width, height) + content[place + 8 :]


def _animated(kind: str, number: int, **options: object) -> bytes:
    frames = [Image.new("RGB", (16, 16), (i * 90 % 256, i // 256, 7)) for i in range(number)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def _many_webp_frames(number: int) -> bytes:
    head, loop, frame, *_ = webp_chunks(_animated("WEBP", 9, lossless=True))
    return riff([head, loop] + [frame] * number)


def _overlapping_tags(number: int, size: int) -> bytes:
    entries = [(40_000 + i, 7, size, 8) for i in range(number)]
    known = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: 64}
    return tiff([(tag, 4, 1, value) for tag, value in known.items()] + entries, bytes(size))


def _tiny_tiles(side: int, number: int) -> bytes:
    offsets = struct.pack("<I", 8) * number
    known = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (277, 1), (322, 1), (323, 1)]
    arrays = [(324, 4, number, 8 + 16), (325, 4, number, 8 + 16)]
    return tiff([(tag, 4, 1, value) for tag, value in known] + arrays, bytes(16) + offsets)


def _pages(number: int) -> bytes:
    """A TIFF of which every page is followed by another."""
    size = 2 + 12 * 8 + 4
    known = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 278: 8, 279: 64}
    table = struct.pack("<H", 8) + b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in known.items())
    pages = b"".join(table + struct.pack("<I", 72 + size * (i + 1)) for i in range(number))
    return b"II*\0" + struct.pack("<I", 72) + bytes(64) + pages


def _announced(side: int) -> bytes:
    """A JPEG whose header says more than it has."""
    content = encoded(_PHOTO, "JPEG")
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", side, side) + content[place + 4 :]


@dataclass(frozen=True)
class Case:
    """A hostile picture. status: the word that its row is to end with."""

    make: Callable[[], bytes]
    status: str


_MB = 1_000_000
_PHOTO = Image.effect_noise((64, 64), 90).convert("RGB")
_ZEROS = zlib.compress(bytes(64 * _MB), 9)


def hostile(size: int = 49 * _MB) -> dict[str, Case]:
    """By name; those that are full of something have about `size` bytes."""
    return {
        "icc curves in a PNG": Case(lambda: png(8, 8, iccp(curve_bomb()), colour=2), OK),
        "icc curves in a JPEG": Case(
            lambda: encoded(_PHOTO, "JPEG", icc_profile=curve_bomb(5_000)),
            OK,
        ),
        "icc of 64 MB squeezed": Case(lambda: png(8, 8, chunk(b"iCCP", b"x\0\0" + _ZEROS), colour=2), OK),
        "icc of 3 MB": Case(
            lambda: encoded(_PHOTO, "WEBP", icc_profile=curve_bomb(100) + bytes(3 * _MB)), OK
        ),
        "40 MP in 2,000 scans": Case(lambda: progressive(6_300, 2_000), COSTLY),
        "4 MB of EXIF segments": Case(
            lambda: inside_jpeg(segment(0xE1, b"Exif\0\0" + bytes(58)) * 60_000),
            OK,
        ),
        "4 MB of XMP segments": Case(
            lambda: inside_jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(29)) * 64_000),
            OK,
        ),
        "full of empty segments": Case(lambda: inside_jpeg(segment(0xE5) * (size // 4)), COSTLY),
        "full of comments": Case(lambda: inside_jpeg(segment(0xFE, b"x") * (size // 5)), COSTLY),
        "full of fill bytes": Case(lambda: inside_jpeg(b"\xff" * (size)), OK),
        "full of junk before a marker": Case(lambda: inside_jpeg(b"\xff\0" * (size // 2)), OK),
        "full of restarts": Case(
            lambda: encoded(_PHOTO, "JPEG")[:-2] + b"\xff\xd0" * (size // 2) + b"\xff\xd9", OK
        ),
        "EXIF of 5,000 large tags": Case(
            lambda: inside_jpeg(
                segment(0xE1, b"Exif\0\0" + exif_with([(i, 7, 4_000, 8) for i in range(5_000)]))
            ),
            OK,
        ),
        "large EXIF in a PNG": Case(
            lambda: png(
                8,
                8,
                chunk(b"eXIf", exif_with([(i, 7, size - 100_000, 8) for i in range(2_000)]) + bytes(size)),
            ),
            OK,
        ),
        "large EXIF in a WebP": Case(
            lambda: encoded(
                _PHOTO,
                "WEBP",
                exif=exif_with([(i, 7, size - 100_000, 8) for i in range(2_000)]) + bytes(size),
            ),
            OK,
        ),
        "40,000,000 x 1": Case(lambda: png(40 * _MB, 1), LARGE),
        "1 x 40,000,000": Case(lambda: png(1, 40 * _MB), LARGE),
        "texts of 64 x 64 MB squeezed": Case(
            lambda: png(8, 8, b"".join(chunk(b"zTXt", b"k%d\0\0" % i + _ZEROS) for i in range(64))), OK
        ),
        "full of empty chunks": Case(lambda: png(8, 8, chunk(b"abCd", b"") * (size // 12)), COSTLY),
        "full of empty IDAT": Case(lambda: png(8, 8, chunk(b"IDAT", b"") * (size // 12)), COSTLY),
        "64 MB more data than pixels": Case(lambda: png(8, 8, data=_ZEROS), OK),
        "APNG of 1,000 frames": Case(lambda: _animated("PNG", 1_000), MANY),
        "APNG that announces 2^31 frames": Case(
            lambda: png(8, 8, chunk(b"acTL", struct.pack(">II", 2**31, 0))), MANY
        ),
        "full of one-byte sub-blocks": Case(lambda: gif(8, 8, data=b"\1\0" * (size // 2) + b"\0"), COSTLY),
        "full of comments in a GIF": Case(
            lambda: gif(8, 8, before=b"!\xfe" + b"\1x" * (size // 2) + b"\0"), COSTLY
        ),
        "full of extensions after a GIF": Case(lambda: gif(8, 8, after=b"!\xfe\1x\0" * (size // 5)), COSTLY),
        "GIF of 10,000 frames": Case(
            lambda: gif(8, 8, after=gif(8, 8)[gif(8, 8).index(b",", 13) : -1] * 10_000), MANY
        ),
        "GIF whose frame is 65,535 wide": Case(
            lambda: gif(8, 8).replace(b",\0\0\0\0\x08\0\x08\0", b",\0\0\0\0\xff\xff\xff\xff"), LARGE
        ),
        "WebP of 100,000 frames": Case(lambda: _many_webp_frames(100_000), MANY),
        "full of empty chunks in a WebP": Case(
            lambda: riff(webp_chunks(encoded(_PHOTO, "WEBP", exif=b"x" * 9))) + b"abcd\0\0\0\0" * (size // 8),
            OK,
        ),
        "TIFF of 2,000 tags over the same bytes": Case(lambda: _overlapping_tags(2_000, size // 2), COSTLY),
        "TIFF of tiles of a pixel": Case(lambda: _tiny_tiles(4_000, size // 5), COSTLY),
        "TIFF of itself again": Case(lambda: grey_tiff(8, 8, 1, bytes(64), next_ifd=72), OK),
        "TIFF whose tile is 2^30 pixels": Case(
            lambda: grey_tiff(64, 64, 5, bytes(64), t322=32_768, t323=32_768, t324=8, t325=64),
            LARGE,
        ),
        "TIFF with a JPEG of 2,000 scans": Case(
            lambda: grey_tiff(6_300, 6_300, 7, progressive(6_300, 2_000)), COSTLY
        ),
        "BMP of 40 MP in runs of one": Case(lambda: bmp(6_300, 6_300, 8, 1, b"\1\1" * (size // 2)), COSTLY),
        "BMP of ends of lines": Case(lambda: bmp(6_300, 6_300, 8, 1, b"\1\1\0\0" * 6_300), COSTLY),
        "AVIF that announces 40,000 x 40,000": Case(
            lambda: with_avif_size(encoded(_PHOTO, "AVIF"), 40_000, 40_000), DAMAGED
        ),
        "AVIF that announces 6,000 x 6,000": Case(
            lambda: with_avif_size(encoded(_PHOTO, "AVIF"), 6_000, 6_000), OK
        ),
        "AVIF of 1,000 frames": Case(lambda: _animated("AVIF", 1_000, speed=10), MANY),
        "AVIF with a large description": Case(
            lambda: encoded(_PHOTO, "AVIF") + struct.pack(">I4s", size, b"meta") + bytes(size), COSTLY
        ),
        "AVIF full of boxes": Case(
            lambda: encoded(_PHOTO, "AVIF") + struct.pack(">I4s", 8, b"free") * (size // 8), COSTLY
        ),
        "TIFF of 100,000 pages": Case(lambda: _pages(100_000), MANY),
        "JPEG of 65,535 x 65,535": Case(lambda: _announced(65_535), LARGE),
        "WebP of 16,384 x 16,384": Case(
            lambda: riff(
                [(b"VP8X", bytes(4) + b"\xff\x3f\0\xff\x3f\0"), *webp_chunks(encoded(_PHOTO, "WEBP"))]
            ),
            LARGE,
        ),
        "ICO with a PNG": Case(lambda: encoded(_PHOTO, "ICO"), OTHER),
    }


# The most that an honest picture of max_pixels costs.
LARGEST: dict[str, Case] = {
    "40 MP in 100 scans": Case(lambda: progressive(6_300, 100), OK),
    "60,000 x 660": Case(lambda: png(60_000, 660, colour=6), OK),
    "16-bit RGBA of 40 MP": Case(lambda: png(6_300, 6_300, depth=16, colour=6), OK),
    "interlaced RGBA of 40 MP": Case(
        lambda: png(6_300, 6_300, colour=6, interlace=1, data=zlib.compress(bytes(160 * _MB), 9)),
        OK,
    ),
    "WebP of 40 MP": Case(lambda: encoded(Image.new("RGBA", (6_300, 6_300)), "WEBP", lossless=True), OK),
    "TIFF of 40 MP squeezed": Case(
        lambda: grey_tiff(6_300, 6_300, 8, zlib.compress(bytes(6_300 * 6_300), 9)), OK
    ),
}
