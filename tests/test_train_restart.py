"""A training killed at random and resumed, on the same or another number of ranks, is the same training."""

import random
import re
import shutil

import numpy as np
import pytest
import torch
from test_train_data import write_cache
from test_train_loop import PARTS
from train_ranks import NUM_STEPS, ON_RANKS, last_step, take_seen, train_on, whole

from darkroom.train.checkpoint import checkpoint_folder, read_checkpoint
from darkroom.train.loader import rank_slice

# Seconds of work for each training of several processes.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    write_cache(folder, PARTS)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(cache_folder, tmp_path_factory):
    """Number of ranks -> (final tensors, samples of each step)."""
    found = {}
    for num in (1, 4):
        run_dir = tmp_path_factory.mktemp("runs") / str(num)
        train_on(num, cache_folder, run_dir)
        found[num] = final(run_dir), {step: whole(ranks) for step, ranks in take_seen(run_dir).items()}
    return found


def final(run_dir):
    return read_checkpoint(checkpoint_folder(run_dir, NUM_STEPS)).tensors


def losses(tensors):
    return tensors["history"][:, 0].numpy()


def test_any_number_of_ranks_sees_the_same_samples_with_the_same_noise(uninterrupted):
    _, alone = uninterrupted[1]
    assert sorted(alone) == list(range(1, NUM_STEPS + 1))
    assert all(len(set(samples)) == ON_RANKS.global_batch_size for samples in alone.values())
    assert uninterrupted[4][1] == alone


def test_ddp_on_1_2_and_4_ranks_and_fsdp2_on_2_see_the_same_and_the_checkpoint_of_4_goes_on_elsewhere(
    cache_folder, tmp_path
):
    """Of an MMDiT in float32: samples, noise, and loss curves over 20 steps; then its next batch on 1 and on 2."""
    found = {}
    for num, parallelism in ((1, "ddp"), (2, "ddp"), (4, "ddp"), (2, "fsdp")):
        run_dir = tmp_path / f"{num}-{parallelism}"
        train_on(num, cache_folder, run_dir, plain=False, parallelism=parallelism)
        samples = {step: whole(ranks) for step, ranks in take_seen(run_dir).items()}
        found[num, parallelism] = samples, losses(final(run_dir))
    samples, alone = found.pop((1, "ddp"))
    assert sorted(samples) == list(range(1, 21)) and len(alone) == 20 and alone.std() > 1e-3
    for layout, (others, curve) in found.items():
        assert others == samples, layout
        np.testing.assert_allclose(curve, alone, rtol=0, atol=1e-4, err_msg=str(layout))
    for num in (1, 2):
        run_dir = tmp_path / f"4-then-{num}"
        shutil.copytree(tmp_path / "4-ddp", run_dir)
        shutil.rmtree(checkpoint_folder(run_dir, NUM_STEPS))
        assert "resumed at step 15" in train_on(num, cache_folder, run_dir, plain=False)
        on_others = {step: whole(ranks) for step, ranks in take_seen(run_dir).items()}
        assert on_others == {step: samples[step] for step in range(16, 21)}
        np.testing.assert_allclose(losses(final(run_dir)), alone, rtol=0, atol=1e-4)


def train_with_two_kills(cache_folder, run_dir, nums, moments):
    """Three attempts on `nums` ranks, the first two killed. Returns what each attempt recorded."""
    attempts, start = [], 0
    for num, at in zip(nums, [*moments, None], strict=True):
        lost = last_step(run_dir)
        log = train_on(num, cache_folder, run_dir, at)
        if lost:
            resumed = re.search(r"train: resumed at step (\d+), (\d+) steps repeated", log)
            assert resumed, log
            start = int(resumed.group(1))
            assert start % ON_RANKS.checkpoint_every_steps == 0
            assert start + int(resumed.group(2)) == lost
        attempts.append((num, start, take_seen(run_dir)))
    return attempts


def check_samples(attempts, expected):
    """Every step of every attempt has the samples of that step, and no step is left out."""
    for place, (num, start, seen) in enumerate(attempts):
        for step, ranks in seen.items():
            for rank, samples in ranks.items():
                part = rank_slice(ON_RANKS.global_batch_size, int(rank.removeprefix("rank-")), num)
                assert samples == expected[step][part], (place, step, rank)
        steps = sorted(step for step, ranks in seen.items() if len(ranks) == num)
        end = attempts[place + 1][1] if place + 1 < len(attempts) else NUM_STEPS
        assert steps[0] == start + 1 and steps == list(range(steps[0], steps[-1] + 1))
        assert steps[-1] >= end


def test_killed_twice_and_resumed_on_other_numbers_of_ranks_sees_what_an_uninterrupted_run_sees(
    cache_folder, uninterrupted, tmp_path
):
    moments = sorted(random.Random(0).sample(range(3, NUM_STEPS - 2), 2))
    attempts = train_with_two_kills(cache_folder, tmp_path / "run", (4, 1, 2), moments)
    check_samples(attempts, uninterrupted[1][1])
    np.testing.assert_allclose(
        losses(final(tmp_path / "run")), losses(uninterrupted[1][0]), rtol=0, atol=1e-4
    )


def test_killed_twice_and_resumed_on_as_many_ranks_ends_with_the_same_bits(
    cache_folder, uninterrupted, tmp_path
):
    moments = sorted(random.Random(4).sample(range(3, NUM_STEPS - 2), 2))
    attempts = train_with_two_kills(cache_folder, tmp_path / "run", (4, 4, 4), moments)
    check_samples(attempts, uninterrupted[1][1])
    found, expected = final(tmp_path / "run"), uninterrupted[4][0]
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)
