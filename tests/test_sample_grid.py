"""Sheets of pictures."""

import numpy as np
import pytest
from PIL import Image

from darkroom.sample.grid import make_grid, write_grid
from darkroom.store import sha256_file

PICTURES = np.stack([np.full((10, 20, 3), value, dtype=np.uint8) for value in (10, 60, 110, 160, 210)])


def test_pictures_lie_in_rows_from_the_top_left():
    sheet = np.asarray(make_grid(PICTURES, num_columns=3, padding_px=2))
    assert sheet.shape == (2 * 12 + 2, 3 * 22 + 2, 3)
    for k in range(5):
        row, column = divmod(k, 3)
        cell = sheet[2 + 12 * row : 12 + 12 * row, 2 + 22 * column : 22 + 22 * column]
        assert (cell == PICTURES[k]).all()
    assert (sheet[14:, 46:] == 255).all()


def test_captions_are_written_below_and_pictures_scaled():
    plain = make_grid(PICTURES[:1], cell_px=60)
    captioned = make_grid(PICTURES[:1], ["a caption that needs more than one line"], cell_px=60)
    assert plain.size == (72, 42)
    assert captioned.width == plain.width and captioned.height > plain.height + 24
    assert (np.asarray(captioned)[37:] < 128).any()


def test_the_same_pictures_give_the_same_file(tmp_path):
    captions = ["one", "two", "three", "four", "five"]
    files = [write_grid(tmp_path / name, PICTURES, captions) for name in ("a.png", "b.png")]
    assert sha256_file(files[0]) == sha256_file(files[1])
    with Image.open(files[0]) as sheet:
        assert sheet.size == make_grid(PICTURES, captions).size and not sheet.info


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="no pictures"):
        make_grid(PICTURES[:0])
    with pytest.raises(ValueError, match="1 captions for 5 pictures"):
        make_grid(PICTURES, ["one"])
