"""The scorer `quality`: its measures against references, and against pictures of which they are known."""

import io
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.stats import entropy as scipy_entropy

from darkroom import store
from darkroom.score import score_part
from darkroom.scorers import quality


def jpeg(luma: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(luma.astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def grey(luma: np.ndarray) -> np.ndarray:
    return np.repeat(luma.astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120))


def test_measures_are_those_of_opencv_numpy_and_scipy(noise: np.ndarray) -> None:
    luma = quality.reduced_luma(grey(noise), 256)
    assert np.array_equal(luma, noise)
    laplacian = cv2.Laplacian(noise.astype(np.float64), cv2.CV_64F)[1:-1, 1:-1]
    assert quality.sharpness(luma) == pytest.approx(laplacian.var(), abs=1e-6)
    assert quality.contrast(luma) == pytest.approx(noise.std() / 255, abs=1e-6)
    assert quality.entropy(luma) == pytest.approx(scipy_entropy(np.bincount(noise.ravel()), base=2), abs=1e-6)


def test_a_blurred_picture_is_less_sharp_and_a_pale_one_has_less_contrast(noise: np.ndarray) -> None:
    blurred = cv2.GaussianBlur(noise.astype(np.uint8), (0, 0), 2).astype(np.int64)
    assert quality.sharpness(blurred) < quality.sharpness(noise) / 100
    assert quality.contrast(noise // 4) == pytest.approx(quality.contrast(noise) / 4, rel=0.01)


def test_borders_are_the_bars_and_a_plain_picture_is_all_border(noise: np.ndarray) -> None:
    noise[:, 0] = 128 + 100 * (np.arange(90) % 2)  # no column is a border by itself
    barred = noise.copy()
    barred[:9], barred[-18:] = 0, 250
    barred[3, 50] = 10  # what JPEG leaves of black
    assert quality.border(noise, 16) == 0
    assert quality.border(barred, 16) == pytest.approx(0.3)
    assert quality.border(barred, 5) == pytest.approx(18 / 90 + 3 / 90, abs=1e-6)
    assert (quality.border(noise * 0, 0), quality.entropy(noise * 0), quality.contrast(noise * 0)) == (
        1,
        0,
        0,
    )


@pytest.mark.parametrize(
    ("size", "reduced"), [((600, 500), (200, 166)), ((256, 10), (256, 10)), ((3, 900), (1, 300))]
)
def test_pictures_are_reduced_by_the_least_whole_factor(
    size: tuple[int, int], reduced: tuple[int, int]
) -> None:
    luma = np.add.outer(np.arange(size[0]), np.arange(size[1])) % 256
    found = quality.reduced_luma(grey(luma), 256)
    assert found.shape == reduced
    k = size[0] // reduced[0]
    assert found[0, 0] == pytest.approx(luma[:k, :k].mean(), abs=0.5)


def test_every_stored_picture_is_measured_and_the_other_rows_are_null(
    tmp_path: Path, noise: np.ndarray
) -> None:
    uids, contents = ("0" * 32, "1" * 32, "2" * 32), (jpeg(noise), None, jpeg(noise * 0))
    members = [(f"{uid}.jpg", content) for uid, content in zip(uids, contents, strict=True) if content]
    spans = store.write_tar(tmp_path / "part-00000.tar", members)
    rows = [
        {"uid": uid, "row": row, "status": "ok" if content else "timeout"}
        | dict(zip(("offset", "size"), spans.get(f"{uid}.jpg", (None, None)), strict=True))
        for row, (uid, content) in enumerate(zip(uids, contents, strict=True))
    ]
    table, out = tmp_path / "part-00000.parquet", tmp_path / "out.parquet"
    store.write_table(table, pl.DataFrame(rows))
    counts = score_part("quality", {"border_tolerance": 0}, table, tmp_path / "part-00000.tar", out).counts
    assert counts == {"quality": {"rows": 3}}
    scores = store.read_table(out)
    assert scores.columns == ["uid", "row", "sharpness", "contrast", "entropy", "border"]
    stored = np.asarray(Image.open(io.BytesIO(jpeg(noise))).convert("L"), np.int64)
    assert scores.row(0)[2:] == (
        quality.sharpness(stored),
        quality.contrast(stored),
        quality.entropy(stored),
        0.0,
    )
    assert scores.row(1)[2:] == (None,) * 4
    assert scores.row(2)[2:] == (0.0, 0.0, 0.0, 1.0)
