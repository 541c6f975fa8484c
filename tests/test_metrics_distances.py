"""Frechet and kernel distances, CLIPScore and intervals against closed forms."""

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from darkroom.metrics.clip_score import clip_scores
from darkroom.metrics.cmmd import cmmd
from darkroom.metrics.frechet import frechet_distance
from darkroom.metrics.given import Given
from darkroom.metrics.intervals import bootstrap, bounds
from darkroom.metrics.kernel import kernel_distance
from darkroom.metrics.manifold import Neighbourhood, neighbourhood

X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def exactly(mean: np.ndarray, covariance: np.ndarray, number: int = 400) -> np.ndarray:
    """A sample whose mean and unbiased covariance are the given ones to rounding."""
    raw = np.random.default_rng(0).normal(size=(number, len(mean)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw.T))).T
    return white @ np.linalg.cholesky(covariance).T + mean


@pytest.mark.parametrize(
    ("mean", "covariance", "other_mean", "other_covariance", "distance"),
    [
        (np.zeros(4), np.eye(4), np.ones(4), np.eye(4), 4.0),
        (np.zeros(4), np.eye(4), np.zeros(4), 4 * np.eye(4), 4.0),
        (np.zeros(4), np.diag([1.0, 4, 9, 16]), np.zeros(4), np.diag([16.0, 9, 4, 1]), 20.0),
        (np.zeros(2), np.array([[2.0, 1], [1, 2]]), np.zeros(2), np.diag([3.0, 1]), 0.5166852264521173),
        (np.ones(3), np.diag([1.0, 2, 3]), np.ones(3), np.diag([1.0, 2, 3]), 0.0),
    ],
)
def test_frechet_distance_of_known_gaussians(mean, covariance, other_mean, other_covariance, distance):
    found = frechet_distance(exactly(mean, covariance), exactly(other_mean, other_covariance, 700))
    assert found == pytest.approx(distance, abs=1e-6)


@pytest.mark.parametrize(("num_real", "num_drawn", "dimensions"), [(400, 300, 64), (50, 60, 128)])
def test_frechet_distance_is_that_of_torchmetrics_and_of_scipys_matrix_root(num_real, num_drawn, dimensions):
    rng = np.random.default_rng(1)
    spectrum = 1 / np.arange(1, dimensions + 1)  # decays, as features do
    real = rng.normal(size=(num_real, dimensions)) * spectrum
    drawn = (rng.normal(size=(num_drawn, dimensions)) @ rng.normal(size=(dimensions, dimensions))) * spectrum
    metric = FrechetInceptionDistance(feature=Given(dimensions), normalize=True).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(drawn), real=False)
    found = frechet_distance(real, drawn)
    assert found == pytest.approx(float(metric.compute()), rel=1e-4)
    s1, s2 = np.cov(real.T), np.cov(drawn.T)
    gap = real.mean(axis=0) - drawn.mean(axis=0)
    root = scipy.linalg.sqrtm(s1 @ s2)
    assert found == pytest.approx(gap @ gap + np.trace(s1 + s2 - 2 * np.real(root)), rel=1e-4)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-4)


def test_kernel_distance_of_three_points():
    assert kernel_distance(X, 2 * X) == pytest.approx(3.8055556, abs=1e-6)
    assert kernel_distance(X, X) == pytest.approx(-1.5555556, abs=1e-6)


def test_kernel_distance_is_the_same_every_time_and_leaves_torch_as_it_was():
    rng = np.random.default_rng(2)
    real, made = rng.normal(size=(80, 8)), rng.normal(size=(50, 8))
    first = kernel_distance(real, made, subset_size=20)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert kernel_distance(real, made, subset_size=20) == first
    assert torch.equal(before, torch.random.get_rng_state())


def test_cmmd_of_known_directions_whatever_the_lengths():
    """Anchors worked out with the paper's code: orthogonal, opposite, and at a cosine of 0.61446."""
    east = np.array([[1.0, 0.0], [3.0, 0.0]])
    assert cmmd(east, 2 * east) == pytest.approx(0, abs=1e-9)
    assert cmmd(east, np.array([[0.0, 5.0], [0.0, 1.0]])) == pytest.approx(19.9003, abs=1e-4)
    assert cmmd(east, -east) == pytest.approx(39.6027, abs=1e-4)
    near = np.array([[0.61446, np.sqrt(1 - 0.61446**2)]] * 2)
    assert cmmd(east, near) == pytest.approx(7.696, abs=1e-3)


def test_cmmd_of_more_pictures_than_are_in_memory_at_once_is_the_mean_over_all_pairs():
    rng = np.random.default_rng(6)
    real, drawn = rng.normal(size=(1500, 3)), rng.normal(size=(1100, 3)) + 1
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (real, drawn)]
    means = [
        np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / 200).mean()
        for x, y in ((unit[0], unit[0]), (unit[1], unit[1]), (unit[0], unit[1]))
    ]
    assert cmmd(real, drawn) == pytest.approx(1000 * (means[0] + means[1] - 2 * means[2]), rel=1e-9)
    with pytest.raises(ValueError, match="feature 1 is zero"):
        cmmd(X, np.array([[1.0, 2.0], [0.0, 0.0]]))


def test_precision_recall_density_and_coverage_of_points_on_a_line():
    real = np.array([0.0, 1, 2, 3, 4])[:, None]
    drawn = np.array([0.5, 1.5, 2.5, 10, 11])[:, None]
    assert neighbourhood(real, drawn, 1) == Neighbourhood(
        precision=pytest.approx(0.6), recall=pytest.approx(0.8),
        density=pytest.approx(1.2), coverage=pytest.approx(0.8),
    )  # fmt: skip


def test_neighbours_of_more_pictures_than_are_in_memory_at_once_are_those_of_all_distances():
    rng = np.random.default_rng(7)
    real, drawn = rng.normal(size=(1100, 4)) + 50, rng.normal(size=(1200, 4)) * 0.7 + 50
    distances = scipy.spatial.distance.cdist
    radii = [np.sort(distances(x, x))[:, 5] for x in (real, drawn)]
    across = distances(real, drawn)
    is_near = across < radii[0][:, None]
    found = neighbourhood(real, drawn, 5)
    assert found.precision == pytest.approx(is_near.any(axis=0).mean(), abs=1e-12)
    assert found.recall == pytest.approx((across < radii[1]).any(axis=1).mean(), abs=1e-12)
    assert found.density == pytest.approx(is_near.sum() / (5 * 1200), abs=1e-12)
    assert found.coverage == pytest.approx(is_near.any(axis=1).mean(), abs=1e-12)
    with pytest.raises(ValueError, match="5 neighbours need more pictures than 3"):
        neighbourhood(X, drawn[:, :2], 5)


def test_copies_of_one_picture_are_near_nothing_for_their_neighbourhood_has_no_extent():
    same = np.tile([[0.3, 0.7, 0.1]], (9, 1))
    assert neighbourhood(same, same, 3) == Neighbourhood(0, 0, 0, 0)


def test_distances_refuse_features_that_do_not_fit():
    with pytest.raises(ValueError, match="two or more"):
        frechet_distance(X[:1], X)
    with pytest.raises(ValueError, match="2 dimensions, generated 3"):
        kernel_distance(X, np.ones((3, 3)))


def test_clip_score_is_a_clamped_hundredfold_cosine_of_any_length():
    images = np.array([[3.0, 0], [1, 1], [1, 0]])
    texts = np.array([[1.0, 0], [0, 5], [-1, 0]])
    assert clip_scores(images, texts) == pytest.approx([100, 100 / np.sqrt(2), 0])
    with pytest.raises(ValueError, match="text embeddings"):
        clip_scores(images, texts[:2])


def test_intervals_hold_the_score_and_shrink_with_more_prompts():
    rng = np.random.default_rng(3)
    tasks = ["colors"] * 40 + ["position"] * 40
    few = (rng.random((80, 4)) < 0.5).astype(float)
    many = np.tile(few, (9, 1))
    narrow = bounds(bootstrap(tasks * 9, many, 500, 0))
    wide = bounds(bootstrap(tasks, few, 500, 0))
    assert wide["overall_low"] < few.mean() < wide["overall_high"]
    width = wide["overall_high"] - wide["overall_low"]
    assert (narrow["overall_high"] - narrow["overall_low"]) / width == pytest.approx(1 / 3, abs=0.08)


def test_pictures_that_move_together_do_not_make_an_interval_narrower():
    tasks = ["colors"] * 50
    values = (np.random.default_rng(4).random(50) < 0.5).astype(float)
    one = bounds(bootstrap(tasks, values, 500, 0))
    assert bounds(bootstrap(tasks, np.repeat(values[:, None], 4, axis=1), 500, 0)) == one


def test_prompts_are_resampled_within_their_task():
    tasks = ["colors"] * 3 + ["position"] * 30
    values = np.array([1.0] * 3 + [0.0] * 30)
    drawn = bootstrap(tasks, values, 50, 0)
    assert set(drawn["colors"]) == {1.0} and set(drawn["overall"]) == {0.5}
    assert drawn["micro"] == pytest.approx(np.full(50, 3 / 33))


def test_a_paired_difference_is_tighter_than_two_separate_intervals():
    rng = np.random.default_rng(5)
    tasks = ["colors"] * 60
    ours = rng.random(60)
    theirs = ours - 0.1
    difference = bounds(bootstrap(tasks, ours - theirs, 400, 0))
    assert (difference["overall_low"], difference["overall_high"]) == pytest.approx((0.1, 0.1))
