"""TIFF, BMP and AVIF: the kinds that people keep are decoded, and the others end with a word."""

import struct

import numpy as np
import pytest
from decoding import assert_colour, decode, decoded, noise, status
from hostile import bmp, grey_tiff, tiff
from PIL import Image, ImageDraw
from test_download_server import encoded, picture

TIFF_MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]


def _half_red(width: int = 40, height: int = 20) -> Image.Image:
    """Red on the left, grey 100 on the right."""
    image = Image.new("RGB", (width, height), (100, 100, 100))
    ImageDraw.Draw(image).rectangle((0, 0, width // 2 - 1, height - 1), (255, 0, 0))
    return image


def _in_mode(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(_half_red().convert("L")).astype(np.uint16) << 8)
    return _half_red().quantize(4) if mode == "P" else _half_red().convert(mode)


@pytest.mark.parametrize("mode", TIFF_MODES)
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_of_every_common_kind_is_decoded(mode: str, compression: str | None) -> None:
    _, pixels = decoded(encoded(_in_mode(mode), "TIFF", compression=compression))
    colourful = mode in ("P", "RGB", "RGBA", "CMYK")
    left = (255, 0, 0) if colourful else (0, 0, 0) if mode == "1" else (76, 76, 76)
    if mode != "1":  # which is dithered
        assert_colour(pixels[:, :16], left, 6)
        assert_colour(pixels[:, 24:], (100, 100, 100), 6)


def test_a_tiff_may_be_a_fax_or_hold_a_jpeg() -> None:
    black = Image.new("1", (40, 20), 1)
    ImageDraw.Draw(black).rectangle((0, 0, 19, 19), 0)
    for compression in ("group3", "group4", "tiff_ccitt"):
        _, pixels = decoded(encoded(black, "TIFF", compression=compression))
        assert_colour(pixels[:, :12], (0, 0, 0))
        assert_colour(pixels[:, 28:], (255, 255, 255))
    _, pixels = decoded(encoded(_half_red(), "TIFF", compression="jpeg", quality=95))
    assert_colour(pixels[:, :12], (255, 0, 0), 8)


def test_a_tiff_in_tiles_and_one_of_the_other_byte_order_are_decoded() -> None:
    tile = bytes(range(0, 256)) * 1
    known = {256: 32, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: 16, 323: 16}
    entries = [(tag, 4, 1, value) for tag, value in known.items()]
    offsets = struct.pack("<IIII", 8 + 16, 8 + 16 + 256, 256, 256)
    content = tiff([*entries, (324, 4, 2, 8), (325, 4, 2, 16)], offsets + tile + bytes(reversed(tile)))
    _, pixels = decoded(content)
    assert_colour(pixels[:, :16, 0], np.arange(256).reshape(16, 16), 4)
    assert_colour(pixels[:, 16:, 0], np.arange(255, -1, -1).reshape(16, 16), 4)
    fewer = tiff([*entries, (324, 4, 1, 24), (325, 4, 1, 256)], offsets + tile)
    assert status(fewer) == "truncated_image"
    big = b"MM\0*" + struct.pack(">I", 8 + 64)
    table = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 0), (273, 8), (277, 1), (278, 8), (279, 64)]
    directory = struct.pack(">H", len(table)) + b"".join(struct.pack(">HHII", t, 4, 1, v) for t, v in table)
    _, pixels = decoded(big + bytes([200]) * 64 + directory + bytes(4))
    assert_colour(pixels, (55, 55, 55), 1)  # white is zero


def test_a_tiff_is_turned_and_its_profile_applied() -> None:
    from test_download_containers import _exchanged

    exif = Image.Exif()
    exif[0x0112] = 6
    red = Image.new("RGB", (20, 10), (200, 0, 0))
    found, pixels = decoded(encoded(red, "TIFF", exif=exif, icc_profile=_exchanged([])))
    assert found[1:5] == (10, 20, 10, 20)
    assert_colour(pixels, (0, 200, 0), 6)


def test_a_second_page_is_refused_and_a_preview_is_not_one() -> None:
    two = encoded(picture(), "TIFF", save_all=True, append_images=[picture(colour=(0, 0, 255))])
    assert status(two) == "animated_image"
    with_preview = bytearray(two)
    start = struct.unpack_from("<I", with_preview, 4)[0]
    number = struct.unpack_from("<H", with_preview, start)[0]
    second = struct.unpack_from("<I", with_preview, start + 2 + 12 * number)[0]
    # The first entry of the second page, its width, becomes its kind: fewer pixels.
    struct.pack_into("<HHII", with_preview, second + 2, 254, 4, 1, 1)
    assert_colour(decoded(bytes(with_preview))[1], (200, 30, 30))


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.new("F", (8, 8)), "TIFF"),
        encoded(Image.new("I", (8, 8)), "TIFF"),
        grey_tiff(8, 8, 50_001, bytes(64)),
        grey_tiff(8, 8, 50_000, bytes(64)),
        encoded(picture(), "TIFF", big_tiff=True),
        encoded(Image.new("LAB", (8, 8)), "TIFF"),
        grey_tiff(8, 8, 1, bytes(64), t254=1),  # the preview of a raw file
        grey_tiff(8, 8, 1, bytes(64), t50706=1),
        grey_tiff(8, 8, 1, bytes(64), t339=3),
        grey_tiff(8, 8, 6, bytes(64)),
    ],
)
def test_kinds_of_tiff_that_only_other_programs_read_are_not_decoded(content: bytes) -> None:
    assert status(content) == "unsupported_image"


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg"])
def test_a_tiff_without_some_of_its_data_is_truncated(compression: str) -> None:
    content = encoded(noise(64, 200), "TIFF", compression=compression, strip_size=3_000)
    assert decode(content)[3:] == (64, 200)
    start = struct.unpack_from("<I", content, 4)[0]
    number = struct.unpack_from("<H", content, start)[0]
    tags = {}
    for place in range(start + 2, start + 2 + 12 * number, 12):
        tags[struct.unpack_from("<H", content, place)[0]] = place
    fewer = bytearray(content)
    for tag in (273, 279):
        count = struct.unpack_from("<I", content, tags[tag] + 4)[0]
        assert count > 1
        struct.pack_into("<I", fewer, tags[tag] + 4, count - 1)
    assert status(bytes(fewer)) == "truncated_image"
    assert status(content[:6]) == status(content[:40]) == "truncated_image"


def test_a_tiff_both_in_strips_and_in_tiles_is_neither() -> None:
    both = grey_tiff(
        64, 64, 1, bytes(4_096), t322=64, t323=64, t324=8, t325=4_096, t273=8, t278=64, t279=4_096
    )
    assert status(both) == "truncated_image"


def test_bmps_of_all_depths_are_decoded_upside_down_or_not() -> None:
    for mode in ("1", "L", "P", "RGB"):
        _, pixels = decoded(encoded(_half_red().convert(mode), "BMP"))
        assert pixels.shape == (20, 40, 3)
    rows = bytes([1] * 8 + [2] * 8)
    _, upwards = decoded(bmp(8, 2, 8, 0, rows))
    _, downwards = decoded(bmp(8, -2, 8, 0, rows))
    assert_colour(upwards[1], (1, 254, 1), 4)
    assert_colour(downwards[0], (1, 254, 1), 4)
    assert_colour(decoded(bmp(8, 2, 8, 1, b"\10\7\0\0\10\7\0\1"))[1], (7, 248, 7), 4)


def test_the_fourth_byte_of_a_bmp_is_no_transparency_where_it_is_always_zero() -> None:
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 56, 2, 2, 1, 32, 3, 16, 0, 0, 0, 0) + masks
    for alpha, expected in ((0, (30, 20, 10)), (255, (30, 20, 10))):
        data = bytes((10, 20, 30, alpha)) * 4
        content = struct.pack("<2sIII", b"BM", 70 + 16, 0, 70) + info + data
        assert_colour(decoded(content)[1], expected, 3)
    half = struct.pack("<2sIII", b"BM", 70 + 16, 0, 70) + info + bytes((10, 20, 30, 0, 10, 20, 30, 255)) * 2
    assert_colour(decoded(half)[1][:, 0], (255, 255, 255), 60)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (bmp(8, 8, 8, 4, b""), "unsupported_image"),
        (bmp(8, 8, 2, 0, bytes(64)), "unsupported_image"),
        (bmp(8, 8, 8, 0, bytes(60)), "truncated_image"),
        (bmp(8, 8, 8, 1, b"\10\7\0\1"), "truncated_image"),
        (bmp(70_000, 8, 8, 0, b""), "too_many_pixels"),
        (bmp(0, 8, 8, 0, b""), "truncated_image"),
        (bmp(8, -(2**31), 8, 0, b""), "too_many_pixels"),
        (b"BM" + bytes(20), "truncated_image"),
        (b"BM" + bytes(12) + struct.pack("<I", 99) + bytes(60), "unsupported_image"),
    ],
)
def test_other_bmps_end_with_a_word(content: bytes, expected: str) -> None:
    assert status(content) == expected


def test_an_avif_is_turned_as_its_own_properties_say() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found, pixels = decoded(encoded(_half_red(), "AVIF", quality=95, exif=exif))
    assert found[1:5] == (20, 40, 20, 40)
    assert_colour(pixels[:16], (255, 0, 0), 10)
    alpha = _half_red().convert("RGBA")
    alpha.putalpha(Image.new("L", alpha.size, 0))
    assert_colour(decoded(encoded(alpha, "AVIF"))[1], (255, 255, 255), 3)


def test_what_is_no_avif_of_its_family_is_not_decoded() -> None:
    content = encoded(picture(), "AVIF")
    heic = content.replace(b"avif", b"heic")
    assert status(heic) == "unsupported_image"
    assert status(content.replace(b"meta", b"free")) == "truncated_image"
    assert status(content[: content.index(b"mdat") + 20]) == "truncated_image"
