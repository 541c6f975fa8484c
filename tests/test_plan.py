"""The batch plan and its random numbers: pure functions, fair shares, nothing lost."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from darkroom.train import random
from darkroom.train.plan import _CHECKED_AT_ONCE, BatchPlan, check_once, parse_uids


def make_uids(num, first=0):
    return np.stack([np.full(num, 7, np.uint64), np.arange(first, first + num, dtype=np.uint64)], axis=1)


def make_plan(counts, size, seed=0, first_step=0):
    buckets = {(64 + 16 * k, 64): make_uids(n, 1000 * k) for k, n in enumerate(counts)}
    return BatchPlan(seed, size, buckets, first_step)


bucket_counts = st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any)
sizes = st.integers(1, 40)


@hypothesis_settings(max_examples=60, deadline=None)
@given(bucket_counts, sizes, st.integers(0, 2**63), st.integers(0, 80))
def test_account_is_what_the_batches_show(counts, size, seed, num_steps):
    plan = make_plan(counts, size, seed)
    seen = Counter()
    for step in range(num_steps):
        batch = plan.batch(step)
        assert len(batch.uids) == len(batch.index) == len(batch.visits) == size
        for uid, visit in zip(batch.uids[:, 1].tolist(), batch.visits.tolist(), strict=True):
            assert visit == seen[uid]  # each visit number once, in order
            seen[uid] += 1
    account = plan.account(num_steps)
    visits = [seen[1000 * k + i] for k, n in enumerate(counts) for i in range(n)]
    assert account["num_samples"] == sum(counts)
    assert account["num_visits"] == sum(visits) == num_steps * size
    assert (account["min_visits"], account["max_visits"]) == (min(visits), max(visits))
    assert account["never_seen"] == visits.count(0)
    assert account["repeated"] == sum(v - 1 for v in visits if v)


@hypothesis_settings(max_examples=40, deadline=None)
@given(bucket_counts, sizes, st.integers(0, 60), st.integers(0, 40))
def test_a_plan_that_begins_later_goes_on_in_the_same_batches(counts, size, first, num_steps):
    whole, later = make_plan(counts, size), make_plan(counts, size, first_step=first)
    seen = Counter()
    for step in range(num_steps):
        one, other = whole.batch(first + step), later.batch(step)
        assert other.step == step and one.bucket == other.bucket
        np.testing.assert_array_equal(one.uids, other.uids)
        np.testing.assert_array_equal(one.visits, other.visits)
        seen.update(other.uids[:, 1].tolist())
    account = later.account(num_steps)
    visits = [seen[1000 * k + i] for k, n in enumerate(counts) for i in range(n)]
    assert account["num_visits"] == num_steps * size
    assert (account["min_visits"], account["max_visits"]) == (min(visits), max(visits))
    assert account["never_seen"] == visits.count(0)
    assert account["repeated"] == sum(v - 1 for v in visits if v)


@hypothesis_settings(max_examples=60, deadline=None)
@given(bucket_counts, sizes, st.lists(st.integers(0, 10**7), min_size=1, max_size=6))
def test_any_step_is_the_same_wherever_one_starts(counts, size, steps):
    one = make_plan(counts, size)
    for step in steps:
        fresh = make_plan(counts, size).batch(step)
        again = one.batch(step)
        assert fresh.bucket == again.bucket
        np.testing.assert_array_equal(fresh.uids, again.uids)
        np.testing.assert_array_equal(fresh.visits, again.visits)


@hypothesis_settings(max_examples=40, deadline=None)
@given(bucket_counts, sizes, st.integers(1, 300))
def test_no_bucket_strays_from_its_share_at_the_end_of_an_epoch(counts, size, epoch):
    plan = make_plan(counts, size)
    steps = plan._first_step(epoch)
    for name, visits in plan.account(steps)["visits_by_bucket"].items():
        fair = epoch * plan.account(0)["samples_by_bucket"][name]
        assert abs(visits - fair) <= size / 2


def test_a_pass_shows_every_picture_once_and_orders_differ():
    plan = make_plan([12], 4)
    passes = [np.concatenate([plan.batch(3 * v + i).index for i in range(3)]) for v in range(3)]
    for order in passes:
        assert sorted(order) == list(range(12))
    assert not np.array_equal(passes[0], passes[1])
    other = np.concatenate([make_plan([12], 4, seed=1).batch(i).index for i in range(3)])
    assert not np.array_equal(passes[0], other)


def test_a_bucket_smaller_than_the_batch_repeats_and_is_counted():
    plan = make_plan([3], 8)
    batch = plan.batch(0)
    assert sorted(zip(batch.index.tolist(), batch.visits.tolist(), strict=True)) == sorted(
        (i, v) for i, v in zip(batch.index.tolist(), [0, 0, 0, 1, 1, 1, 2, 2], strict=True)
    )
    assert set(batch.index[:3]) == set(batch.index[3:6]) == {0, 1, 2}
    assert plan.account(2)["repeated_in_batch"] == 2 * (8 - 3)


def test_a_pictures_batches_do_not_depend_on_other_buckets_names():
    alone = BatchPlan(0, 4, {(64, 64): make_uids(8)})
    renamed = BatchPlan(0, 4, {(96, 48): make_uids(8)})
    for step in range(4):
        np.testing.assert_array_equal(alone.batch(step).index, renamed.batch(step).index)


def test_double_and_missing_pictures_are_refused():
    with pytest.raises(ValueError, match="64x64 holds a uid twice"):
        BatchPlan(0, 2, {(64, 64): np.concatenate([make_uids(3), make_uids(1)])})
    with pytest.raises(ValueError, match="no picture"):
        BatchPlan(0, 2, {(64, 64): make_uids(0)})


@pytest.mark.parametrize("place", [0, _CHECKED_AT_ONCE - 1, _CHECKED_AT_ONCE, _CHECKED_AT_ONCE + 1, 70_000])
def test_a_picture_that_is_there_twice_is_found_wherever_it_is(place):
    uids = np.stack([np.arange(70_002), np.arange(70_002)[::-1]], axis=1).astype(np.uint64)
    check_once((64, 64), uids)
    # Half of the uid alone is no picture of its own.
    uids[place + 1, 0] = uids[place, 0]
    check_once((64, 64), uids)
    uids[place + 1] = uids[place]
    with pytest.raises(ValueError, match="64x64 holds a uid twice"):
        check_once((64, 64), uids)


def test_uids_are_parsed_as_written():
    uids = parse_uids(["0123456789abcdef" + "f" * 16, "0" * 31 + "1"])
    assert uids.tolist() == [[0x0123456789ABCDEF, 2**64 - 1], [0, 1]]
    with pytest.raises(ValueError, match="32 hex digits"):
        parse_uids(["abc"])


def test_noise_of_a_sample_ignores_the_rest_of_the_batch():
    uids, visits = make_uids(6), np.arange(6)
    whole = random.normal(random.sample_keys(3, random.NOISE, uids, visits), 33)
    part = random.normal(random.sample_keys(3, random.NOISE, uids[4:], visits[4:]), 33)
    np.testing.assert_array_equal(whole[4:], part)


def test_noise_differs_by_seed_stream_uid_and_visit():
    uids, visits = make_uids(2), np.array([0, 1])
    base = random.normal(random.sample_keys(0, random.NOISE, uids, visits), 8)
    assert len(np.unique(base)) == 16
    same_uid = random.normal(random.sample_keys(0, random.NOISE, uids[[0, 0]], visits), 8)
    assert not np.isin(same_uid[1], same_uid[0]).any()
    assert not np.isin(random.normal(random.sample_keys(1, random.NOISE, uids, visits), 8), base).any()
    assert not np.isin(random.normal(random.sample_keys(0, random.TIMESTEP, uids, visits), 8), base).any()


def test_numbers_have_their_distributions():
    keys = random.sample_keys(0, random.NOISE, make_uids(500), np.zeros(500, np.int64))
    noise = random.normal(keys, 1001).astype(np.float64)
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / noise.size)
    assert abs((noise**4).mean() - 3) < 5 * np.sqrt(96 / noise.size)
    # Neighbours in a sample and across samples are uncorrelated.
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 5 / np.sqrt(noise.size)
    assert abs((noise[1:] * noise[:-1]).mean()) < 5 / np.sqrt(noise.size)
    share = random.uniform(
        random.sample_keys(0, random.DROPOUT, make_uids(100_000), np.zeros(100_000, np.int64))
    )
    histogram = np.histogram(share, bins=10, range=(0, 1))[0]
    assert ((histogram - 10_000) ** 2 / 10_000).sum() < 35  # chi-squared, 9 degrees of freedom


def test_the_numbers_stay_those_of_earlier_releases():
    keys = random.sample_keys(1, random.NOISE, make_uids(1), np.zeros(1, np.int64))
    assert keys.tolist() == [2132924468870327663]
    np.testing.assert_allclose(random.normal(keys, 3)[0], [-0.4429296, -0.5529593, -0.31947348], rtol=1e-6)
