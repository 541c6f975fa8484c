"""The command that puts Debian's clip art through the data stages, on a folder that is like it and small."""

import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

SCRIPT = ROOT / "trials/openclipart.py"
TITLE = "<svg><metadata><dc:title>{}</dc:title><dc:title>the author</dc:title></metadata></svg>"


def huge(path: Path) -> None:
    """A PNG whose header announces the largest picture of the packages, and little more."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_990, 29_700, 8, 6, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def packages(folder: Path) -> Path:
    """What the packages hold, a few of each kind."""
    pictures, drawings = folder / "usr/share/openclipart/png/a", folder / "usr/share/openclipart/svg/a"
    pictures.mkdir(parents=True)
    drawings.mkdir(parents=True)
    sizes = {"wide one": (1000, 70), "small": (3, 2), **{f"n{i}": (300, 200 + i) for i in range(44)}}
    for number, (name, size) in enumerate(sizes.items()):
        Image.new("RGBA", size, (number * 5, 99, 200, 128)).save(pictures / f"{name}.png")
    huge(pictures / "huge.png")
    (pictures / "link.png").symlink_to("n1.png")
    for path in pictures.iterdir():
        title = "gramastar" if re.fullmatch(r"n\d+", path.stem) else f"a {path.stem}"
        (drawings / f"{path.stem}.svg").write_text(TITLE.format("" if path.stem == "n7" else title))
    (drawings / "n1.svg").write_text(TITLE.format("Tom &amp; <tspan>Jerry</tspan>"))
    return folder


@pytest.mark.slow
def test_every_row_ends_with_a_status_and_what_is_odd_is_in_the_funnel(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, str(SCRIPT), str(packages(tmp_path))],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    for told in (
        "      47  ok",
        "       1  too_many_pixels",
        "after download: 1 less",
        "after caption_has_words: 1 less",
        "after caption_of_its_own: 42 less",
        "after min_side_px: 1 less",
        "after max_aspect_ratio: 1 less",
        "after duplicate: 1 less",
        "links: {'ok': 1}; the longest is 14.3 times as long as wide",
        "each of 48 rows has one status: True",
    ):
        assert told in found.stdout, found.stdout


def test_a_folder_without_the_packages_is_refused(tmp_path: Path) -> None:
    (tmp_path / "usr/share/openclipart/png").mkdir(parents=True)
    found = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2 and "no pictures; it should be openclipart-png, unpacked" in found.stderr
