"""The decoder: what is refused before decoding, and that every kind of picture comes out right."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
from decoding import KINDS, assert_colour, decode, decoded, noise, status
from photographs import PHOTOGRAPHS, photograph
from PIL import Image, ImageCms, ImageDraw, ImageOps
from test_download_server import encoded, picture, png_bomb

from darkroom.download.containers import plain
from darkroom.download.decode import _reduce


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_keeps_its_colours(kind: str) -> None:
    options = {"quality": 100} if kind in ("JPEG", "WEBP", "AVIF") else {}
    found, pixels = decoded(encoded(picture(40, 30), kind, **options))
    assert found[1:5] == (40, 30, 40, 30)
    assert_colour(pixels, (200, 30, 30), 4)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty_body"),
        (b"<!DOCTYPE html><html></html>", "not_an_image"),
        (b"x" * 5000, "not_an_image"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_image"),
        (encoded(picture(), "ICO"), "unsupported_image"),
        (encoded(picture(), "JPEG2000"), "unsupported_image"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + b"\0" * 100, "unsupported_image"),
        (b"\xff\xd8\xff", "truncated_image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "truncated_image"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "truncated_image"),
        (encoded(picture(), "GIF", save_all=True, append_images=[picture(colour=0)]), "animated_image"),
        (encoded(picture(), "WEBP", save_all=True, append_images=[picture(colour=0)]), "animated_image"),
        (encoded(picture(), "PNG", save_all=True, append_images=[picture(colour=0)]), "animated_image"),
    ],
)
def test_what_is_not_one_whole_picture_is_refused(content: bytes, expected: str) -> None:
    assert status(content) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_cut_picture_is_truncated_however_much_is_left(kind: str, share: float) -> None:
    content = encoded(noise(64, 64), kind)
    assert status(content[: int(len(content) * share)]) == "truncated_image"


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_of_pixels_is_exact_and_checked_in_every_format(kind: str) -> None:
    content = encoded(picture(50, 40), kind)
    assert decode(content, max_pixels=2000).width == 50
    assert status(content, max_pixels=1999) == "too_many_pixels"
    assert Image.MAX_IMAGE_PIXELS == 89_478_485  # Pillow's own limit is put back


def test_the_limit_of_pixels_may_be_above_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(encoded(picture(50, 40)), max_pixels=2000).width == 50


def test_a_decompression_bomb_costs_less_than_200_mb(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_bomb(30_000))
    assert bomb.stat().st_size < 200_000
    code = r"""
        import re, sys
        from darkroom.download.decode import Wanted, decode
        from darkroom.download.status import Refused
        content = open(sys.argv[1], "rb").read()
        try:
            decode(content, Wanted(40_000_000, 1024, 95))
        except Refused as refused:
            # ru_maxrss would count the process that started this one: Linux hands its peak on.
            status = open("/proc/self/status").read()
            print(refused.status, re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(bomb)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert out[0] == "too_many_pixels"
    assert int(out[1]) * 1024 < 200e6


def _corners(orientation: int) -> bytes:
    """A 60 x 40 picture whose upper left is red and right half blue once it is upright."""
    upright = Image.new("RGB", (60, 40), (255, 255, 255))
    draw = ImageDraw.Draw(upright)
    draw.rectangle((0, 0, 19, 19), (255, 0, 0))
    draw.rectangle((40, 0, 59, 39), (0, 0, 255))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, quality=100, subsampling=0, exif=exif)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 99])
def test_pictures_are_turned_upright_with_their_sizes(orientation: int) -> None:
    found, pixels = decoded(_corners(orientation), max_side_px=60)
    assert found[1:5] == (60, 40, 60, 40)
    assert_colour(pixels[3:16, 3:16], (255, 0, 0), 12)
    assert_colour(pixels[24:, 3:16], (255, 255, 255), 12)
    assert_colour(pixels[:, 45:57], (0, 0, 255), 12)
    reduced, _ = decoded(_corners(orientation), max_side_px=30)
    assert reduced[1:5] == (30, 20, 60, 40)


def test_a_damaged_exif_block_does_not_cost_the_picture() -> None:
    content = encoded(picture(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 30)
    assert decode(content).width == 48


def test_16_bit_pictures_are_scaled_to_8_bit() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(8, 0)
    _, pixels = decoded(encoded(Image.fromarray(ramp), "PNG"))
    assert_colour(pixels[..., 0], ramp >> 8, 4)
    wide = np.stack([ramp, ramp[:, ::-1], ramp], axis=-1)
    _, pixels = decoded(cv2.imencode(".png", wide)[1].tobytes())
    assert_colour(pixels, wide[..., ::-1] >> 8, 6)


def test_grey_and_black_and_white_pictures_become_rgb() -> None:
    _, pixels = decoded(encoded(Image.new("L", (20, 20), 77)))
    assert_colour(pixels, (77, 77, 77))
    _, pixels = decoded(encoded(Image.new("1", (20, 20), 1), "PNG"))
    assert_colour(pixels, (255, 255, 255))


def _transparent(mode: str) -> tuple[Image.Image, dict[str, object]]:
    """A picture whose left half is transparent black and whose right half is grey 100."""
    grey = Image.new("L", (40, 20), 0)
    ImageDraw.Draw(grey).rectangle((20, 0, 39, 19), 100)
    alpha = grey.point(lambda value: 255 if value else 0)
    if mode == "LA":
        return Image.merge("LA", (grey, alpha)), {}
    if mode == "RGBA":
        return Image.merge("RGBA", (grey, grey, grey, alpha)), {}
    if mode == "I;16":
        return Image.fromarray(np.asarray(grey).astype(np.uint16) << 8), {"transparency": 0}
    return (grey if mode == "L" else grey.convert(mode)), {"transparency": (0, 0, 0) if mode == "RGB" else 0}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "RGB", "P", "I;16"])
@pytest.mark.parametrize("side", [40, 20])
def test_transparency_is_composited_over_white(mode: str, side: int) -> None:
    image, options = _transparent(mode)
    _, pixels = decoded(encoded(image, "PNG", **options), max_side_px=side)
    half = side // 2
    assert_colour(pixels[:, : half - 4], (255, 255, 255))
    assert_colour(pixels[:, half + 4 :], (100, 100, 100))


def test_colours_hidden_by_transparency_do_not_bleed_into_a_reduced_picture() -> None:
    stripes = np.zeros((64, 64, 4), np.uint8)
    stripes[:, ::2] = (255, 0, 0, 0)  # invisible red between visible black
    stripes[:, 1::2] = (0, 0, 0, 255)
    _, pixels = decoded(encoded(Image.fromarray(stripes), "PNG"), max_side_px=16)
    assert_colour(pixels[4:-4, 4:-4], (128, 128, 128), 12)


def test_cmyk_becomes_rgb_with_and_without_a_profile() -> None:
    _, pixels = decoded(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), quality=100))
    assert_colour(pixels, (255, 0, 0), 6)
    not_cmyk = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (not_cmyk, b"not a profile"):
        image = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
        _, pixels = decoded(encoded(image, quality=100, icc_profile=profile))
        assert_colour(pixels, (255, 0, 0), 6)


def _swapped_profile() -> bytes:
    """sRGB with the primaries of red and green exchanged: its red must come out green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    for i in range(count):
        start = 132 + 12 * i
        name = bytes(profile[start : start + 4])
        swapped = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(name, name)
        profile[start : start + 4] = swapped
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_profile_of_an_rgb_picture_is_applied_and_dropped(mode: str) -> None:
    image = Image.new(mode, (20, 20), (200, 0, 0, 255)[: len(mode)])
    found, pixels = decoded(encoded(image, "PNG", icc_profile=_swapped_profile()))
    assert_colour(pixels, (0, 200, 0), 6)
    with Image.open(io.BytesIO(found.jpeg)) as stored:
        assert "icc_profile" not in stored.info


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((200, 100), 64, (64, 32)),
        ((100, 200), 64, (32, 64)),
        ((64, 64), 64, (64, 64)),
        ((999, 1), 64, (64, 1)),
    ],
)
def test_only_longer_pictures_are_reduced(
    size: tuple[int, int], limit: int, expected: tuple[int, int]
) -> None:
    found, _ = decoded(encoded(picture(*size), "PNG"), max_side_px=limit)
    assert found[1:5] == (*expected, *size)


def test_reducing_is_antialiased_and_the_fast_jpeg_path_agrees_with_the_slow_one() -> None:
    lines = np.zeros((640, 640, 3), np.uint8)
    lines[:, ::2] = 255
    _, pixels = decoded(encoded(Image.fromarray(lines), "PNG"), max_side_px=64)
    assert_colour(pixels[1:-1, 1:-1], (128, 128, 128), 6)
    # At the border the average is of fewer lines.
    assert_colour(pixels, (128, 128, 128), 10)
    y, x = np.mgrid[0:803, 0:1001]
    smooth = np.stack([x / 4, y / 4, 128 + 100 * np.sin(x / 40) * np.cos(y / 30)], -1).astype(np.uint8)
    fast, fast_pixels = decoded(encoded(Image.fromarray(smooth), quality=100, subsampling=0))
    slow, slow_pixels = decoded(encoded(Image.fromarray(smooth), "PNG"))
    assert fast[1:5] == slow[1:5] == (64, 51, 1001, 803)
    assert np.abs(fast_pixels - slow_pixels).mean() < 1.5
    assert np.abs(fast_pixels - slow_pixels).max() < 16


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_reduced_photographs_are_near_to_the_average_of_their_area(name: str, kind: str) -> None:
    image = photograph(name)
    whole = Image.new("RGB", (2 * image.width, image.height))
    whole.paste(image)
    whole.paste(ImageOps.mirror(image), (image.width, 0))
    # Sides of which a half and a quarter are no whole numbers.
    whole = whole.crop((3, 2, whole.width - 2, whole.height - 5))
    options = {"quality": 90} if kind == "JPEG" else {"compress_level": 1}
    file = plain(encoded(whole, kind, **options), 40_000_000)
    with Image.open(io.BytesIO(file.content)) as opened:
        pixels = np.asarray(opened.convert("RGB"), np.float32)
    for side in (64, 100, 200, 256, 384):
        with Image.open(io.BytesIO(file.content)) as opened:
            reduced = np.asarray(_reduce(opened, file, side), np.float32)
        exact = cv2.resize(pixels, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
        psnr = 10 * np.log10(255**2 / np.mean((reduced - exact) ** 2))
        assert psnr >= 38, f"{whole.size} to {side}: {psnr:.1f} dB"


def test_a_jpeg_with_previews_is_a_photograph_and_not_an_animation() -> None:
    content = encoded(picture(), "MPO", save_all=True, append_images=[picture(24, 16)])
    assert decoded(content)[0][1:3] == (48, 32)


def test_the_same_pixels_give_the_same_bytes_whatever_metadata_came_with_them() -> None:
    plain = encoded(noise(30, 30), quality=90)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    told = encoded(noise(30, 30), quality=90, exif=exif, comment=b"a comment")
    assert plain != told
    assert decode(plain).jpeg == decode(told).jpeg == decode(plain).jpeg
