"""The Frechet distance of many dimensions is that of scipy, of torchmetrics, and that of our other form."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

from darkroom.metrics import gaussians
from darkroom.metrics.fid_infinity import fid_infinity
from darkroom.metrics.frechet import frechet_distance
from darkroom.metrics.given import Given
from darkroom.metrics.mifid import mifid


def features(num_rows: int, dimensions: int, seed: int) -> np.ndarray:
    """Of a spectrum that decays, as those of a network do, and turned."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(num_rows, dimensions)) / np.arange(1, dimensions + 1) + rng.normal(size=dimensions)
    return raw @ np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]


def repeated(x: np.ndarray) -> np.ndarray:
    """With twice the dimensions, which hold the same: a covariance that has no Cholesky root."""
    return np.concatenate([x, x], axis=1)


CASES = {
    "more rows than dimensions": (features(400, 64, 0), features(300, 64, 1)),
    "fewer rows than dimensions": (features(50, 128, 0), features(60, 128, 1)),
    "fewer rows on one side": (features(400, 64, 0), features(30, 64, 1)),
    "singular covariances": (repeated(features(300, 32, 0)), repeated(features(400, 32, 1))),
    "dimensions that never change": tuple(features(99, 8, n) * np.tile([1.0, 0], 4) for n in (0, 1)),
}


@pytest.mark.filterwarnings("ignore:Matrix is singular")
@pytest.mark.parametrize("case", CASES)
def test_the_distance_is_that_of_torchmetrics_of_scipys_matrix_root_and_of_our_other_form(case):
    real, drawn = CASES[case]
    found = gaussians.distance(gaussians.fitted(real), gaussians.fitted(drawn))
    assert found == pytest.approx(frechet_distance(real, drawn), rel=1e-6)
    metric = FrechetInceptionDistance(feature=Given(real.shape[1]), normalize=True).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(drawn), real=False)
    assert found == pytest.approx(float(metric.compute()), rel=1e-4)
    (m1, s1), (m2, s2) = ((x.mean(axis=0), np.cov(x.T)) for x in (real, drawn))
    root = np.real(scipy.linalg.sqrtm(s1 @ s2))
    assert found == pytest.approx((m1 - m2) @ (m1 - m2) + np.trace(s1 + s2 - 2 * root), rel=1e-4)
    given = [gaussians.from_statistics(*moments) for moments in ((m1, s1), (m2, s2))]
    assert gaussians.distance(*given) == pytest.approx(found, rel=1e-6)
    assert gaussians.distance(given[0], given[0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("num_rows", [60, 1600])
def test_many_dimensions_take_the_quick_form_and_give_the_same(num_rows, monkeypatch):
    """Dimensions that hold nothing change no distance."""
    real, drawn = features(num_rows, 40, 0), features(num_rows - 7, 40, 1)
    wide = [np.pad(x, ((0, 0), (0, 1536 - 40))) for x in (real, drawn)]
    asked = []
    whole = gaussians.distance
    monkeypatch.setattr(gaussians, "distance", lambda *two: asked.append(two) or whole(*two))
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(real, drawn), rel=1e-6)
    assert len(asked) == 1


def test_statistics_that_are_none_are_refused():
    mean, eye = np.zeros(3), np.eye(3)
    for covariance, told in (
        (np.eye(4), r"the mean is \(3,\), the covariance \(4, 4\); they should be \(d,\) and \(d, d\)"),
        (eye * np.nan, "no finite number"),
        (eye + np.triu(np.ones((3, 3)), 1), "is not symmetric"),
        (np.diag([1.0, 2, -1]), "negative eigenvalue, -1"),
    ):
        with pytest.raises(ValueError, match=told):
            gaussians.from_statistics(mean, covariance)
    with pytest.raises(ValueError, match="the real features have 3 dimensions, the generated 2"):
        gaussians.distance(
            gaussians.from_statistics(mean, eye), gaussians.from_statistics(mean[:2], np.eye(2))
        )


@pytest.mark.parametrize("given", [False, True])
def test_fid_infinity_is_without_the_bias_of_few_pictures(given):
    """Of N samples of the same law FID is about (d + d (d + 1) / 4) / N too large."""
    rng = np.random.default_rng(3)
    drawn = rng.normal(size=(3000, 32)) + 1 / np.sqrt(32)
    real = gaussians.from_statistics(np.zeros(32), np.eye(32))
    if not given:
        raw = rng.normal(size=(500, 32))
        white = np.linalg.inv(np.linalg.cholesky(np.cov(raw.T)))
        real = (raw - raw.mean(axis=0)) @ white.T
    biased = frechet_distance(real, drawn)
    assert biased == pytest.approx(1 + (32 + 32 * 33 / 4) / 3000, abs=0.05)
    assert abs(fid_infinity(real, drawn) - 1) < min(0.06, abs(biased - 1))
    assert fid_infinity(real, drawn) == fid_infinity(real, drawn)
    with pytest.raises(ValueError, match="needs 3 generated pictures or more, not 2"):
        fid_infinity(real, drawn[:2])


@pytest.mark.parametrize("noise", [0.01, 3.0])
def test_mifid_is_that_of_torchmetrics_whether_pictures_are_copies_or_not(noise):
    rng = np.random.default_rng(4)
    real = rng.normal(size=(90, 16)) + 0.2
    drawn = np.concatenate([real[:85] + noise * rng.normal(size=(85, 16)), np.zeros((1, 16))])
    metric = MemorizationInformedFrechetInceptionDistance(feature=Given(16), normalize=True)
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(drawn), real=False)
    found = mifid(real, drawn)
    assert found == pytest.approx(float(metric.compute()), rel=1e-4)
    assert (found > 1.001 * frechet_distance(real, drawn)) == (noise < 1)
    assert mifid(real, real) == 0
    with pytest.raises(ValueError, match="all features are zero"):
        mifid(real, 0 * drawn)
