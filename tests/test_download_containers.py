"""Files that are damaged, odd or full: what their pixels need is kept, and what is missing of it is told."""

import io
import struct
import zlib

import numpy as np
import pytest
from decoding import assert_colour, decode, decoded, noise, status
from hostile import chunk, gif, iccp, inside_jpeg, png, profile, riff, segment, webp_chunks
from PIL import Image, ImageCms
from test_download_server import encoded, picture

BLACK = decode(png(8, 8, colour=2)).jpeg
TURNED = b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
XMP = b'<rdf:Description tiff:Orientation="6"/>'
TOO_LONG = zlib.compress(bytes(2_000_000))
METADATA = {
    b"pHYs": b"\0\0\1\0\0\0\1\0\1",
    b"tEXt": b"Title\0words",
    b"zTXt": b"Title\0\0" + zlib.compress(b"words"),
    b"iTXt": b"Title\0\0\0\0\0words",
    b"eXIf": TURNED,
    b"iCCP": b"x\0\0" + zlib.compress(b"no profile"),
    b"gAMA": b"\0\0\1\0",
    b"cHRM": bytes(32),
    b"sRGB": b"\0",
    b"acTL": b"\0\0\0\2\0\0\0\0",
    b"tIME": bytes(7),
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("after", [False, True])
def test_damaged_metadata_of_a_png_is_left_out(name: bytes, after: bool) -> None:
    wrong = chunk(name, METADATA[name], crc=1)
    assert decode(png(8, 8, colour=2, **{"after" if after else "before": wrong})).jpeg == BLACK


@pytest.mark.parametrize(
    "content",
    [
        chunk(b"iCCP", b"x\0\0" + TOO_LONG),
        chunk(b"iCCP", b"x\0\0broken"),
        chunk(b"zTXt", b"Title\0\0" + TOO_LONG),
        chunk(b"iTXt", b"Title\0\1\0\0\0" + TOO_LONG),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + TOO_LONG),
        chunk(b"pHYs", b"\0"),
        chunk(b"acTL", b""),
        chunk(b"gAMA", b""),
    ],
)
def test_metadata_that_is_too_long_or_too_short_is_left_out(content: bytes) -> None:
    assert decode(png(8, 8, content, colour=2)).jpeg == BLACK


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"tRNS", b"IDAT"])
def test_pixels_of_a_png_whose_checksum_is_wrong_are_damaged(name: bytes) -> None:
    content = encoded(picture().quantize(4), "PNG", transparency=0)
    place = content.index(name)
    size = int.from_bytes(content[place - 4 : place], "big")
    assert decode(content).width == 48
    wrong = bytearray(content)
    wrong[place + 4 + size] ^= 1
    assert status(bytes(wrong)) == "truncated_image"


@pytest.mark.parametrize("colour", [0, 2, 6])
@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("share", [0.2, 0.95])
def test_a_png_whose_data_end_early_is_truncated_though_they_end_well(
    colour: int, interlace: int, share: float
) -> None:
    whole = png(40, 30, colour=colour, interlace=interlace, data=zlib.compress(bytes(5_000)))
    assert decode(whole).width == 40
    size = 30 * (1 + 40 * {0: 1, 2: 3, 6: 4}[colour])
    data = zlib.compress(bytes(int(size * share)))
    assert status(png(40, 30, colour=colour, interlace=interlace, data=data)) == "truncated_image"


def test_a_png_without_its_end_or_in_pieces_of_a_byte_is_whole() -> None:
    content = encoded(noise(20, 20), "PNG")
    expected = decode(content).jpeg
    start = content.index(b"IDAT")
    size = int.from_bytes(content[start - 4 : start], "big")
    head, data = content[: start - 4], content[start + 4 : start + 4 + size]
    pieces = b"".join(chunk(b"IDAT", data[i : i + 1]) for i in range(size))
    for ending in (chunk(b"IEND", b""), b"", chunk(b"tEXt", b"Title\0cut")[:-6], b"\0\0\0"):
        assert decode(head + pieces + ending).jpeg == expected


def test_a_second_header_of_a_png_is_refused() -> None:
    wide = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    assert status(png(8, 8, wide, colour=2)) == "truncated_image"


@pytest.mark.parametrize(
    "told",
    [
        chunk(b"eXIf", TURNED),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        chunk(
            b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 26\n" + TURNED.hex().encode())
        ),
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_png_is_turned_by_whatever_tells_its_orientation(told: bytes, place: str) -> None:
    assert decode(png(20, 10, colour=2, **{place: told}))[1:5] == (10, 20, 10, 20)


@pytest.mark.parametrize("first", [b"Exif\0\0" + TURNED, b"http://ns.adobe.com/xap/1.0/\0" + XMP])
def test_of_a_jpegs_metadata_the_first_segment_tells_the_orientation(first: bytes) -> None:
    kind = first[:6]
    later = kind + (first[6:].replace(b"\6", b"\3") if kind == b"Exif\0\0" else first[6:].replace(b"6", b"3"))
    content = inside_jpeg(segment(0xE1, first) + segment(0xE1, later) * 3)
    assert decode(content)[1:3] == (32, 48)
    assert decode(inside_jpeg(segment(0xE1, later) + segment(0xE1, first)))[1:3] == (48, 32)


def test_xmp_tells_the_orientation_only_where_exif_does_not() -> None:
    upright = segment(0xE1, b"Exif\0\0" + TURNED.replace(b"\6", b"\1"))
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    assert decode(inside_jpeg(upright + xmp))[1:3] == (48, 32)
    assert decode(inside_jpeg(xmp))[1:3] == (32, 48)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_jpeg_whose_data_end_early_is_truncated_though_its_end_was_put_back(
    progressive: bool, mode: str, share: float
) -> None:
    content = encoded(noise(96, 80).convert(mode), progressive=progressive)
    cut = content[: int(len(content) * share)].rstrip(b"\xff")
    assert status(cut + b"\xff\xd9") == "truncated_image"


@pytest.mark.parametrize("more", [{}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_ends_in_grey_is_whole_where_it_has_its_data(more: dict[str, object]) -> None:
    grey = Image.new("RGB", (96, 80), (128, 128, 128))
    content = encoded(grey, quality=95, **more)
    assert_colour(decoded(content)[1], (128, 128, 128), 1)
    start = content.index(b"\xff\xda") + 14
    assert status(content[: start + 6].rstrip(b"\xff") + b"\xff\xd9") == "truncated_image"


def test_what_lies_between_and_behind_the_segments_of_a_jpeg_is_passed_over() -> None:
    content = encoded(noise(40, 40))
    expected = decode(content).jpeg
    place = content.index(b"\xff\xdb")
    assert decode(content[:place] + b"\0junk\xff\xff" + content[place:]).jpeg == expected
    assert decode(content + b"\xff\xd8junk" * 100).jpeg == expected
    assert status(content[:-2] + b"\xff\3\0\4junk") == "truncated_image"


def _with_frame(marker: int, depth: int = 8, height: int | None = None) -> bytes:
    """A JPEG whose frame says something else."""
    content = bytearray(encoded(picture()))
    place = content.index(b"\xff\xc0")
    content[place + 1], content[place + 4] = marker, depth
    if height is not None:
        content[place + 5 : place + 7] = struct.pack(">H", height)
    return bytes(content)


def test_kinds_of_jpeg_that_nothing_here_decodes_are_told_apart_from_damage() -> None:
    assert status(_with_frame(0xC0, height=0)) == "unsupported_image"  # a DNL would follow
    assert status(_with_frame(0xC1, depth=12)) == "unsupported_image"
    assert status(_with_frame(0xC3)) == "unsupported_image"  # lossless
    content = encoded(picture())
    place = content.index(b"\xff\xc0")
    frame = content[place : place + 19]
    assert status(content[:place] + frame + content[place:]) == "truncated_image"  # two frames


def test_a_hundred_scans_are_decoded_and_one_more_is_not() -> None:
    from hostile import progressive

    assert decode(progressive(16, 100)).width == 16
    assert status(progressive(16, 101)) == "too_costly"


def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _exchanged(more: list[tuple[bytes, bytes]], kind: bytes = b"mntr") -> bytes:
    """A profile whose red comes out green, with more tags."""
    plain, names = _srgb(), {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
    tags = []
    for place in range(132, 132 + 12 * int.from_bytes(plain[128:132], "big"), 12):
        name, (start, size) = plain[place : place + 4], struct.unpack_from(">II", plain, place + 4)
        tags.append((names.get(name, name), plain[start : start + size]))
    return profile(tags + more, kind=kind)


def test_a_profile_is_applied_without_what_is_not_needed_of_it() -> None:
    from hostile import curve_bomb

    bomb = curve_bomb(100)
    more = [(b"D2B1", bomb[168:]), (b"desc", bytes(10)), (b"abcd", bomb)]
    red = Image.new("RGB", (8, 8), (200, 0, 0))
    content = encoded(red, "PNG", icc_profile=_exchanged(more))
    assert_colour(decoded(content)[1], (0, 200, 0), 6)


@pytest.mark.parametrize(
    "wrong",
    [
        _exchanged([], kind=b"link"),
        _exchanged([], kind=b"nmcl"),
        _exchanged([(b"A2B0", b"mpet" + bytes(40))]),
        _exchanged([(b"padd", bytes(1_000_000))]),
        _exchanged([(b"abcd", b"")] * 2_000),
        _srgb()[:140],
        b"",
    ],
)
def test_a_profile_of_an_unusual_kind_is_left_out(wrong: bytes) -> None:
    red = Image.new("RGB", (8, 8), (200, 0, 0))
    for content in (encoded(red, "PNG", icc_profile=wrong), encoded(red, icc_profile=wrong, quality=100)):
        assert_colour(decoded(content)[1], (200, 0, 0), 4)


def test_a_jpegs_profile_may_lie_in_pieces_in_any_order_and_is_left_out_where_one_is_missing() -> None:
    whole = _exchanged([])
    pieces = [whole[i : i + 100] for i in range(0, len(whole), 100)]
    packed = [
        segment(0xE2, b"ICC_PROFILE\0" + bytes((i + 1, len(pieces))) + piece)
        for i, piece in enumerate(pieces)
    ]
    red = encoded(Image.new("RGB", (8, 8), (200, 0, 0)), quality=100)
    assert_colour(decoded(inside_jpeg(b"".join(reversed(packed)), red))[1], (0, 200, 0), 6)
    assert_colour(decoded(inside_jpeg(b"".join(packed[1:]), red))[1], (200, 0, 0), 4)


def test_a_gif_keeps_its_transparency_and_loses_what_surrounds_its_frame() -> None:
    content = encoded(picture(10, 10), "GIF", transparency=0, comment=b"words" * 100)
    assert_colour(decoded(content)[1], (255, 255, 255))
    assert decode(gif(8, 8, after=b"\0junk")).width == 8
    assert decode(gif(8, 8, after=b"!\xfe\5words\0")).width == 8


def test_a_gif_without_its_last_bytes_is_whole_and_one_without_its_last_pixels_is_not() -> None:
    content = encoded(noise(30, 30).quantize(64), "GIF")
    for cut in (content[:-1], content[:-2]):
        assert decode(cut).jpeg == decode(content).jpeg
    assert status(content[:-3]) == "truncated_image"
    blocks = content.index(b",", 13)
    # A chain of sub-blocks that ends early, as if all were there.
    place = blocks + 11 + 3 * 64
    assert status(content[: place + 256] + b"\0;") == "truncated_image"


def test_a_webp_keeps_what_is_told_and_loses_what_is_cut() -> None:
    told = encoded(
        picture(20, 10), "WEBP", exif=b"Exif\0\0" + TURNED, icc_profile=_exchanged([]), quality=100
    )
    found, pixels = decoded(told)
    assert found[1:5] == (10, 20, 10, 20)
    assert_colour(pixels, (30, 200, 30), 12)
    plain = encoded(picture(20, 10), "WEBP", quality=100)
    cut = told[: told.index(b"EXIF") + 12]
    assert decode(cut)[1:5] == (20, 10, 20, 10)
    assert decode(plain + b"EXIF\xff\xff\0\0")[1:5] == (20, 10, 20, 10)


def test_a_webp_whose_extended_header_is_cut_or_comes_again_is_refused() -> None:
    chunks = webp_chunks(encoded(picture(), "WEBP", exif=b"Exif\0\0" + TURNED))
    assert chunks[0][0] == b"VP8X"
    assert status(riff([*chunks, (b"VP8X", b"")])) == "truncated_image"
    assert status(riff([(b"VP8X", b"\0" * 9), *chunks[1:]])) == "truncated_image"


def test_an_animation_of_one_frame_is_a_picture() -> None:
    frames = [picture(), picture(colour=(0, 0, 255))]
    chunks = webp_chunks(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    assert [name for name, _ in chunks] == [b"VP8X", b"ANIM", b"ANMF", b"ANMF"]
    assert_colour(decoded(riff(chunks[:3]))[1], (200, 30, 30))
    assert status(riff(chunks)) == "animated_image"
    apng = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    place = apng.index(b"acTL") - 4
    still = apng[:place] + chunk(b"acTL", struct.pack(">II", 1, 0)) + apng[place + 20 :]
    assert_colour(decoded(still)[1], (200, 30, 30))
    # Without a control of its own the picture is no frame, and so the one frame is a second picture.
    assert status(png(8, 8, chunk(b"acTL", struct.pack(">II", 1, 0)))) == "animated_image"


def test_16_bits_keep_their_high_byte_where_one_value_is_transparent() -> None:
    ramp = np.linspace(0, 65_535, 64).astype(np.uint16)[None].repeat(8, 0)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, "PNG", transparency=int(ramp[0, 10]))
    _, pixels = decoded(out.getvalue())
    expected = ramp >> 8
    expected[:, 10] = 255
    assert_colour(pixels[..., 0], expected, 8)


def test_a_profile_in_a_png_may_be_the_first_of_several() -> None:
    red = encoded(Image.new("RGB", (8, 8), (200, 0, 0)), "PNG")
    both = red[:33] + iccp(_exchanged([])) + iccp(_srgb()) + red[33:]
    assert_colour(decoded(both)[1], (0, 200, 0), 6)
