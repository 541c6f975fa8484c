"""The batch plan of several datasets: shares exact to a sample an epoch, nothing lost, the same from any step."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from darkroom.apportion import apportion, fit, quotas
from darkroom.train.loader import rank_slice
from darkroom.train.mixed import MixedPlan, Mixture, Share
from darkroom.train.plan import BatchPlan

SHAPES = [(64 + 16 * k, 64) for k in range(5)]


def make_uids(num, first=0):
    return np.stack([np.full(num, 7, np.uint64), np.arange(first, first + num, dtype=np.uint64)], axis=1)


def make_inputs(table, shares):
    """Buckets and mixture of a table of counts by dataset and bucket; dataset d's uids begin with d."""
    buckets, owners = {}, {}
    for b, column in enumerate(zip(*table, strict=True)):
        uids = [make_uids(n, 100_000 * d + 1000 * b) for d, n in enumerate(column)]
        buckets[SHAPES[b]] = np.concatenate(uids)
        owners[SHAPES[b]] = np.repeat(np.arange(len(column)), column)
    return buckets, Mixture(shares, owners)


def make_plan(table, shares, size, seed=0, first_step=0):
    return MixedPlan(seed, size, *make_inputs(table, shares), first_step=first_step)


def names_of(batch):
    return (batch.uids[:, 1] // 100_000).astype(int)


@st.composite
def mixtures(draw, in_common=True):
    """(counts by dataset and bucket, shares): with `in_common`, all have pictures in the first bucket."""
    num_datasets, num_buckets = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    row = st.lists(st.integers(0, 40), min_size=num_buckets, max_size=num_buckets)
    table = draw(st.lists(row.filter(any), min_size=num_datasets, max_size=num_datasets))
    if in_common:
        table = [[n + 60, *rest] for n, *rest in table]
    weights = draw(st.none() | st.lists(st.integers(1, 12), min_size=num_datasets, max_size=num_datasets))
    repeats = draw(st.lists(st.integers(1, 3), min_size=num_datasets, max_size=num_datasets))
    return table, [
        Share(f"d{d}", None if weights is None else Fraction(weights[d], 4), repeats[d])
        for d in range(num_datasets)
    ]


sizes = st.integers(1, 24)


@hypothesis_settings(max_examples=40, deadline=None)
@given(mixtures(), sizes, st.integers(0, 2**63), st.sampled_from([1, 2, 3, 5, 8]))
def test_every_epoch_has_its_shares_to_one_sample_on_any_number_of_ranks(mixture, size, seed, world_size):
    table, shares = mixture
    plan = make_plan(table, shares, size, seed)
    looks = [sum(row) * share.repeats for row, share in zip(table, shares, strict=True)]
    asked = [n if share.weight is None else share.weight for n, share in zip(looks, shares, strict=True)]
    for epoch in range(6):
        seen = Counter()
        first, end = plan.first_step(epoch), plan.first_step(epoch + 1)
        for step in range(first, end):
            whose = names_of(plan.batch(step))
            parts = [whose[rank_slice(size, rank, world_size)] for rank in range(world_size)]
            seen.update(np.concatenate(parts).tolist())
        total = size * (end - first)
        assert seen.total() == total
        for d, weight in enumerate(asked):
            assert abs(seen[d] - Fraction(total * weight) / sum(asked)) < 1


@hypothesis_settings(max_examples=40, deadline=None)
@given(mixtures(in_common=False), sizes, st.integers(1, 200))
def test_shares_stay_near_where_datasets_have_few_buckets_in_common(mixture, size, num_epochs):
    table, shares = mixture
    plan = make_plan(table, shares, size)
    account = plan.account(plan.first_step(num_epochs))
    for share in shares:
        fair = account["num_visits"] * plan.shares[share.name]
        # Half a batch of each bucket is what their number of whole batches can be off.
        assert abs(account["visits_by_dataset"][share.name] - fair) <= size * len(table[0]) / 2 + 2


@hypothesis_settings(max_examples=40, deadline=None)
@given(mixtures(in_common=False), sizes, st.integers(0, 2**63), st.integers(0, 40), st.integers(0, 60))
def test_account_is_what_the_batches_show(mixture, size, seed, first, num_steps):
    table, shares = mixture
    whole, plan = make_plan(table, shares, size, seed), make_plan(table, shares, size, seed, first)
    seen, per_step, inside, visits = Counter(), [], 0, {}
    for step in range(first + num_steps):
        batch = whole.batch(step)
        assert len(batch.uids) == len(batch.index) == len(batch.visits) == size
        for uid, visit in zip(batch.uids[:, 1].tolist(), batch.visits.tolist(), strict=True):
            assert visit == visits.get(uid, -1) + 1  # each visit number once, in order
            visits[uid] = visit
        if step >= first:
            other = plan.batch(step - first)
            np.testing.assert_array_equal(batch.uids, other.uids)
            np.testing.assert_array_equal(batch.visits, other.visits)
            seen.update(batch.uids[:, 1].tolist())
            per_step.append(np.bincount(names_of(batch), minlength=len(shares)))
            bucket = SHAPES.index(batch.bucket)
            inside += sum(max(0, int(n) - row[bucket]) for n, row in zip(per_step[-1], table, strict=True))
    account = plan.account(num_steps)
    looks = [
        seen[100_000 * d + 1000 * b + i]
        for d, row in enumerate(table)
        for b, n in enumerate(row)
        for i in range(n)
    ]
    assert account["num_samples"] == len(looks)
    assert account["num_visits"] == sum(looks) == num_steps * size
    assert (account["min_visits"], account["max_visits"]) == (min(looks), max(looks))
    assert account["never_seen"] == looks.count(0)
    assert account["repeated"] == sum(n - 1 for n in looks if n)
    assert account["repeated_in_batch"] == inside
    by_step = plan.visits_by_dataset(num_steps)
    for d, share in enumerate(shares):
        np.testing.assert_array_equal(by_step[share.name], [counts[d] for counts in per_step])
        assert account["visits_by_dataset"][share.name] == int(by_step[share.name].sum())


@hypothesis_settings(max_examples=40, deadline=None)
@given(mixtures(), sizes, st.lists(st.integers(0, 3000), max_size=8))
def test_a_batch_is_the_same_wherever_one_starts(mixture, size, steps):
    one = make_plan(*mixture, size)
    for step in steps:
        fresh, again = make_plan(*mixture, size).batch(step), one.batch(step)
        assert fresh.bucket == again.bucket
        np.testing.assert_array_equal(fresh.uids, again.uids)
        np.testing.assert_array_equal(fresh.visits, again.visits)


def test_no_picture_comes_again_before_its_dataset_has_shown_all_of_the_bucket():
    plan, seen = make_plan([[30], [12]], [Share("a", Fraction(1)), Share("b", Fraction(1))], 4), {}
    for step in range(200):
        batch = plan.batch(step)
        for uid, visit in zip(batch.uids[:, 1].tolist(), batch.visits.tolist(), strict=True):
            seen.setdefault((uid // 100_000, visit), []).append(uid)
    for (dataset, _), uids in seen.items():
        assert len(uids) == len(set(uids)) <= (30, 12)[dataset]
    assert all(len(seen[dataset, visit]) == n for dataset, n in ((0, 30), (1, 12)) for visit in range(5))


@pytest.mark.parametrize(
    ("shares", "right"),
    [
        ([Share("a"), Share("b")], {"a": Fraction(3, 4), "b": Fraction(1, 4)}),
        ([Share("a"), Share("b", repeats=3)], {"a": Fraction(1, 2), "b": Fraction(1, 2)}),
        ([Share("a", Fraction(1)), Share("b", Fraction(4), 3)], {"a": Fraction(1, 5), "b": Fraction(4, 5)}),
    ],
)
def test_repeats_weigh_pictures_and_weights_decide_whatever_there_is(shares, right):
    assert make_plan([[60], [20]], shares, 4).shares == right


def test_pictures_of_both_datasets_are_in_most_batches_of_a_bucket_that_both_have():
    plan = make_plan([[60], [20]], [Share("a"), Share("b")], 8)
    assert all(Counter(names_of(plan.batch(step)).tolist()) == {0: 6, 1: 2} for step in range(10))


def test_pictures_of_a_dataset_are_seen_equally_often_whatever_bucket_they_are_in():
    plan = make_plan([[50, 6, 20], [9, 30, 4]], [Share("a", Fraction(3)), Share("b", Fraction(1))], 16)
    steps = plan.first_step(400)
    seen = np.zeros((2, 3))
    for step in range(steps):
        batch = plan.batch(step)
        seen[:, SHAPES.index(batch.bucket)] += np.bincount(names_of(batch), minlength=2)
    looks = seen / np.array([[50, 6, 20], [9, 30, 4]])
    assert (np.ptp(looks, axis=1) < 0.01 * looks.mean(axis=1)).all()


def test_a_picture_of_two_datasets_has_noise_of_its_own_in_each():
    buckets = {SHAPES[0]: np.repeat(make_uids(6), 2, axis=0)}
    mixture = Mixture([Share("a"), Share("b")], {SHAPES[0]: np.tile([0, 1], 6)})
    plan, seen = MixedPlan(0, 4, buckets, mixture), Counter()
    for step in range(30):
        batch = plan.batch(step)
        seen.update(zip(batch.uids[:, 1].tolist(), batch.visits.tolist(), strict=True))
    assert set(seen.values()) == {1}
    assert plan.account(30)["in_several_datasets"] == 6


def test_a_dataset_alone_has_the_batches_that_it_has_without_a_mixture():
    table = [[23, 40]]
    buckets, mixture = make_inputs(table, [Share("a")])
    plan, plain = MixedPlan(3, 8, buckets, mixture), BatchPlan(3, 8, buckets)
    for step in range(40):
        one, other = plan.batch(step), plain.batch(step)
        np.testing.assert_array_equal(one.uids, other.uids)
        np.testing.assert_array_equal(one.visits, other.visits)
    account = plan.account(40)
    assert plain.account(40).items() <= account.items()


def test_a_dataset_without_pictures_and_one_with_a_picture_twice_are_refused():
    with pytest.raises(ValueError, match="datasets: b has no picture in any bucket"):
        make_plan([[4], [0]], [Share("a"), Share("b")], 2)
    buckets = {SHAPES[0]: np.concatenate([make_uids(2), make_uids(1), make_uids(2, 100_000)])}
    mixture = Mixture([Share("a"), Share("b")], {SHAPES[0]: np.array([0, 0, 0, 1, 1])})
    with pytest.raises(ValueError, match="64x64 holds a uid twice"):
        MixedPlan(0, 2, buckets, mixture)


def test_a_total_is_cut_in_proportion():
    assert apportion(10, [1, 1, 1]) == [4, 3, 3]
    assert apportion(7, [0, 5, 2]) == [0, 5, 2]
    assert quotas([Fraction(1, 2), Fraction(1, 2)], [3, 2], 5) == [2, 3]
    assert quotas([Fraction(1, 2), Fraction(1, 2)], [10, 0], 4) == [0, 4]


def test_a_table_is_moved_to_its_sums_through_others_where_it_must():
    cells = [[4, 0], [4, 4], [0, 4]]
    # What the first has too much reaches the third through the second.
    fit(cells, [2, 8, 6], [[True, False], [True, True], [False, True]])
    assert [sum(row) for row in cells] == [2, 8, 6]
    assert [sum(column) for column in zip(*cells, strict=True)] == [8, 8]
    apart = [[4, 0], [0, 4]]
    fit(apart, [2, 6], [[True, False], [False, True]])
    assert apart == [[4, 0], [0, 4]]
