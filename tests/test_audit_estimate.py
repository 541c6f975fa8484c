"""Samples have the weights that they should, and estimates of precision and recall are what they are called."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import precision_recall_curve

from darkroom.audit.estimate import AtThreshold, Estimator, Rate, threshold_for
from darkroom.audit.sample import Audit, allocate, draw, edges


def population(number: int, slope: float = 15.0, middle: float = 0.5) -> tuple[pl.DataFrame, dict[str, bool]]:
    """Pictures with scores that are mostly low, and whether each is yes: more likely, the higher its score."""
    rng = np.random.default_rng(1)
    scores = rng.beta(0.3, 3.0, number)
    is_yes = rng.random(number) < 1 / (1 + np.exp(-slope * (scores - middle)))
    uids = [f"{value:032x}" for value in rng.integers(0, 2**63, number)]
    places = {name: pl.Series(range(number), dtype=pl.Int64) for name in ("row", "part", "offset", "size")}
    return pl.DataFrame({"uid": uids, **places, "s": scores}), dict(zip(uids, is_yes.tolist(), strict=True))


def estimator(audit: Audit, truth: dict[str, bool]) -> Estimator:
    return Estimator(audit, {uid: truth[uid] for uid in audit.rows["uid"]})


def test_where_all_is_labelled_estimates_are_those_of_scikit_learn_and_certain() -> None:
    pictures, truth = population(300, middle=0.2)
    audit = draw(pictures, "s", 1000, 0)
    assert audit.rows["weight"].unique().to_list() == [1.0]
    found = list(estimator(audit, truth).estimates())
    is_yes = [truth[uid] for uid in pictures["uid"]]
    precision, recall, thresholds = precision_recall_curve(is_yes, pictures["s"].to_numpy())
    assert [each.threshold for each in found] == thresholds.tolist()
    assert [each.precision.value for each in found] == pytest.approx(precision[:-1].tolist(), abs=1e-12)
    assert [each.recall.value for each in found] == pytest.approx(recall[:-1].tolist(), abs=1e-12)
    for each in found:
        for rate in (each.precision, each.recall):
            assert (rate.low, rate.high) == pytest.approx((rate.value, rate.value), abs=1e-12)


def test_estimates_of_a_sample_are_those_of_scikit_learn_with_its_weights() -> None:
    pictures, truth = population(20_000)
    audit = draw(pictures, "s", 200, 0)
    assert audit.rows["weight"].sum() == pytest.approx(20_000)
    found = list(estimator(audit, truth).estimates())
    rows = audit.rows.sort("score")
    precision, recall, _ = precision_recall_curve(
        [truth[uid] for uid in rows["uid"]], rows["score"].to_numpy(), sample_weight=rows["weight"].to_numpy()
    )
    assert [each.precision.value for each in found] == pytest.approx(precision[:-1].tolist())
    assert [each.recall.value for each in found] == pytest.approx(recall[:-1].tolist())
    scores = pictures["s"].to_numpy()
    assert [each.pictures for each in found] == [int((scores >= each.threshold).sum()) for each in found]


def test_over_many_samples_estimates_hit_the_truth_and_intervals_hold_it_at_about_their_level() -> None:
    pictures, truth = population(20_000)
    scores, is_yes = pictures["s"].to_numpy(), np.array([truth[uid] for uid in pictures["uid"]])
    errors, held, totals = [], [], []
    for seed in range(150):
        audit = draw(pictures, "s", 200, seed)
        of = estimator(audit, truth)
        totals.append((of.weights * of.is_yes).sum())
        for wanted in (0.1, 0.3, 0.6):
            threshold = of.thresholds()[np.searchsorted(of.thresholds(), wanted)]
            found, is_found = of.at(float(threshold), num_draws=500), scores >= threshold
            hits = (is_yes & is_found).sum()
            pairs = ((found.precision, hits / is_found.sum()), (found.recall, hits / is_yes.sum()))
            errors.append([rate.value - true for rate, true in pairs])
            held.append([rate.low <= true <= rate.high for rate, true in pairs])
    # The total is unbiased; ratios of such totals are nearly so.
    deviation = np.std(totals) / np.sqrt(len(totals))
    assert abs(np.mean(totals) - is_yes.sum()) < 3 * deviation
    by_threshold = np.reshape(errors, (150, 3, 2)).mean(axis=0)
    assert np.abs(by_threshold).max() < 0.04
    coverage = np.reshape(held, (150, 3, 2)).mean(axis=0)
    assert coverage.min() > 0.85 and 0.88 < coverage.mean() < 0.99


def test_a_stratum_without_a_yes_may_still_hold_many_and_recall_says_so() -> None:
    # 20 of 10,000 low pictures are labelled, all no: up to 14 % of them may be yes (rule of three: 3 / 20).
    low, high = np.linspace(0, 0.1, 10_000), np.linspace(0.8, 1, 100)
    scores = np.concatenate([low, high])
    uids = [f"{i:032x}" for i in range(len(scores))]
    places = {
        name: pl.Series(range(len(scores)), dtype=pl.Int64) for name in ("row", "part", "offset", "size")
    }
    audit = draw(pl.DataFrame({"uid": uids, **places, "s": scores}), "s", 200, 0)
    answers = {uid: score > 0.5 for uid, score in audit.rows.select("uid", "score").iter_rows()}
    found = Estimator(audit, answers).at(audit.rows.filter(pl.col("score") > 0.5)["score"].min())
    assert found.recall.value == 1 and found.recall.low < 0.5 and found.precision.low > 0.7


def test_pictures_that_are_not_labelled_are_spoken_for_by_their_stratum_or_the_next() -> None:
    pictures, truth = population(5000)
    audit = draw(pictures, "s", 100, 0)
    few = audit.rows.head(25)["uid"].to_list()
    of = Estimator(audit, {uid: truth[uid] for uid in few})
    assert of.weights.sum() == pytest.approx(5000) and of.populations.sum() == 5000
    assert np.bincount(of.group).min() >= 2
    scores = pictures["s"].to_numpy()
    for found in of.estimates(num_draws=50):
        assert found.pictures == (scores >= found.threshold).sum()
        assert found.precision.low <= found.precision.value <= found.precision.high
    one = Estimator(audit, {few[0]: False})
    (found,) = one.estimates()
    assert found.recall is None and found.precision.value == 0 and found.precision.high > 0.5


def test_the_lowest_threshold_with_a_precision_is_found_by_the_estimate_and_by_the_interval() -> None:
    rates = [(0.1, 0.2, 0.1), (0.2, 0.8, 0.5), (0.3, 0.7, 0.6), (0.4, 0.9, 0.8)]
    found = [AtThreshold(t, 9, 9, Rate(value, low, 1.0), None) for t, value, low in rates]
    assert [each.threshold for each in threshold_for(found, 0.75)] == [0.2, 0.4]
    assert threshold_for(found, 0.95) == (None, None)


def test_strata_take_alike_and_no_more_than_they_have_and_never_fewer_of_a_larger_sample() -> None:
    assert allocate([5, 100, 100], 65) == [5, 30, 30]
    assert allocate([5, 3], 20) == [5, 3]
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(1, 60, 7).tolist()
        taken = [allocate(sizes, number) for number in range(1, sum(sizes) + 1)]
        assert [sum(each) for each in taken] == list(range(1, sum(sizes) + 1))
        assert (np.diff(taken, axis=0) >= 0).all() and (np.array(taken) <= sizes).all()


@pytest.mark.parametrize(
    "scores",
    [
        np.zeros(50),
        np.arange(50) % 2,
        np.r_[np.zeros(49), 1e9],
        np.r_[np.linspace(0, 1, 10_000), 1e12],
        np.ones(1),
    ],
    ids=["all one", "yes and no", "one far away", "one of many far away", "one"],
)
def test_strata_hold_every_picture_once_whatever_the_scores(scores: np.ndarray) -> None:
    number = len(scores)
    places = {name: pl.Series(range(number), dtype=pl.Int64) for name in ("row", "part", "offset", "size")}
    table = pl.DataFrame({"uid": [f"{i * 7919:032x}" for i in range(number)], **places, "s": scores})
    audit = draw(table, "s", 20, 0)
    assert sum(stratum.pictures for stratum in audit.strata) == number
    assert audit.rows.height == min(20, number) and audit.rows["weight"].sum() == pytest.approx(number)
    assert all(stratum.low <= stratum.high and stratum.sampled for stratum in audit.strata)
    if number > 1000:
        assert len(edges(scores)) == 9


def test_scores_without_a_value_and_booleans_are_drawn_from_and_no_score_at_all_is_told() -> None:
    pictures, _ = population(50)
    some = pictures.with_columns(s=pl.when(pl.int_range(50) < 10).then(None).otherwise(pl.int_range(50) > 30))
    audit = draw(some, "s", 20, 0)
    assert (audit.pictures, audit.unknown, len(audit.strata)) == (40, 10, 2)
    assert set(audit.rows["score"]) == {0.0, 1.0}
    with pytest.raises(ValueError, match="s: none of 50 stored pictures has a value"):
        draw(pictures.with_columns(s=pl.lit(float("nan"))), "s", 20, 0)
