"""Frechet and kernel distances, CLIPScore and intervals against closed forms."""

import numpy as np
import pytest
import torch

from darkroom.evaluate.clip_score import clip_scores
from darkroom.evaluate.distances import distance_name, frechet_distance, kernel_distance
from darkroom.evaluate.intervals import bootstrap, bounds

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


def test_frechet_distance_with_fewer_pictures_than_dimensions_agrees_with_symmetric_roots():
    rng = np.random.default_rng(1)
    real, made = rng.normal(size=(50, 128)), rng.normal(size=(60, 128)) + 0.3
    s1, s2 = np.cov(real.T), np.cov(made.T)
    values, vectors = np.linalg.eigh(s1)
    root = vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ s2 @ root), 0)).sum()
    gap = real.mean(axis=0) - made.mean(axis=0)
    expected = gap @ gap + np.trace(s1) + np.trace(s2) - 2 * cross
    assert frechet_distance(real, made) == pytest.approx(expected, rel=1e-4)


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


def test_distances_refuse_features_that_do_not_fit():
    with pytest.raises(ValueError, match="two or more"):
        frechet_distance(X[:1], X)
    with pytest.raises(ValueError, match="2 dimensions, generated 3"):
        kernel_distance(X, np.ones((3, 3)))


def test_a_distance_tells_what_it_was_measured_with():
    assert (
        distance_name("frechet", "vit", "64 px", 1000, 252) == "frechet, vit, 64 px, 1000 real, 252 generated"
    )


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
