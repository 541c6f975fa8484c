"""Digits, photographs and the decompression bomb."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from darkroom_demo import digits, photos
from darkroom_demo.encode import decompression_bomb


def test_digits_are_those_of_scikit_learn():
    images, labels = digits._glyphs()
    data, target = load_digits(return_X_y=True)
    assert np.array_equal(images.reshape(-1, 64) * 16, data)
    assert np.array_equal(labels, target)


def test_numbers_are_dark_on_pale_and_of_one_to_four_digits():
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(60):
        picture, text = digits.sample_digits(rng, sides_px=(64, 256))
        lengths.add(len(text))
        assert text.isdecimal()
        assert picture.dtype == np.uint8
        assert min(picture.shape[:2]) >= 64
        assert max(picture.shape[:2]) <= 256
        grey = picture.mean(axis=2)
        assert np.median(grey) > 200
        assert 0.01 < (grey < 110).mean() < 0.5
        assert f'"{text}"' in digits.digits_captions(text)[0]
    assert lengths == {1, 2, 3, 4}


def test_every_photograph_ships_with_the_packages_and_is_drawn_within_its_bounds():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        picture, name = photos.sample_photo(rng, sides_px=(64, 256))
        seen.add(name)
        assert picture.shape[2] == 3
        assert min(picture.shape[:2]) >= 64
        assert max(picture.shape[:2]) <= 256
    assert seen == set(photos.NAMES)
    assert len(set(map(photos.photo_captions, photos.NAMES))) == len(photos.NAMES) >= 10


def test_crops_keep_the_subject_and_most_of_each_side():
    rng = np.random.default_rng(0)
    for name, photo in photos._PHOTOS.items():
        left, top, right, bottom = photo.focus
        assert 0 <= left < right <= 1, name
        assert 0 <= top < bottom <= 1, name
        for first, last in ((left, right), (top, bottom)):
            for _ in range(20):
                start, stop = photos._draw_span(rng, 1000, first, last)
                assert start <= first * 1000 + 1
                assert stop >= last * 1000 - 1
                assert stop - start >= 1000 * photos.MIN_CROP - 1


def test_the_bomb_is_a_valid_png():
    content = decompression_bomb(1_000)
    image = Image.open(io.BytesIO(content))
    image.load()
    assert image.size == (1_000, 1_000)
    assert image.getextrema() == (0, 0)
    start = content.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", content[start - 8 : start - 4])
    assert len(zlib.decompress(content[start : start + length])) == 1_000 * 1_001
