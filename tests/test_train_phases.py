"""Phases: a training goes on from another's end, its loss, its average and its moments."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_train_data import FINGERPRINT, write_cache
from test_train_loop import ALONE, PARTS, changed, make_models

from darkroom.config import load_project
from darkroom.store import write_manifest
from darkroom.train.checkpoint import checkpoint_folder, newest_checkpoint, run_key
from darkroom.train.data import LatentCache
from darkroom.train.phases import InitialCheckpoint, chain_digest, find_initial
from darkroom.train.seen import FOLDER, RECORD_SAMPLES
from darkroom.train.step import ema_weight
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun

ROOT = Path(__file__).parents[1]
FIRST = changed(num_steps=60, checkpoint_every_steps=60, learning_rate=0.02, ema_decay=0.95)
SECOND = changed(num_steps=4, num_warmup_steps=1, checkpoint_every_steps=2, learning_rate=0.005)
LARGE = [{(128, 128): 6, (96, 160): 3}, {(128, 128): 5}]


class Learnable(LatentCache):
    """The tests' cache, whose latents are random, with latents that a few steps learn."""

    def gather(self, *place):
        found = super().gather(*place)
        return replace(found, latents=torch.full_like(found.latents, 2.0))


def train(cache, run_dir, settings, initial=None):
    model, ema = make_models(cache, plain=True)
    training = Training(cache, model, ema, settings, 0, initial=initial)
    history = Trainer(training, TrainingRun(run_dir, ALONE, lambda _: None)).train()
    return model.state_dict(), ema.state_dict(), history.rows


@pytest.fixture(scope="module")
def phases(tmp_path_factory):
    """The caches of two phases, and the first one trained."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("phases")
    small = Learnable(*write_cache(folder / "small", PARTS), FINGERPRINT)
    large = Learnable(*write_cache(folder / "large", LARGE), FINGERPRINT)
    return (
        small,
        large,
        train(small, folder / "first", FIRST),
        InitialCheckpoint("first", folder / "first", 60),
    )


def last(initial):
    return InitialCheckpoint(initial.run, checkpoint_folder(initial.folder, 60), initial.num_steps)


def test_the_second_phase_starts_from_the_first_ones_loss_and_not_from_noise(phases, tmp_path):
    _, large, (_, _, before), initial = phases
    begun = train(large, tmp_path / "second", SECOND, last(initial))[2][0, 0]
    afresh = train(large, tmp_path / "afresh", SECOND)[2][0, 0]
    assert begun < (afresh + before[-5:, 0].mean()) / 2
    assert abs(begun - before[-5:, 0].mean()) < 0.5 * abs(afresh - before[-5:, 0].mean())


def test_weights_average_and_moments_are_those_that_the_first_phase_ended_with(phases, tmp_path):
    _, large, (weights, average, _), initial = phases
    still = changed(num_steps=1, num_warmup_steps=0, learning_rate=1e-30, weight_decay=0.0, ema_decay=0.95)
    after = train(large, tmp_path / "second", still, last(initial))
    for name, tensor in weights.items():
        torch.testing.assert_close(after[0][name], tensor)
    # The average goes on where it was, and does not begin anew to forget what it began with.
    assert ema_weight(60, 0.95) < 0.2 < ema_weight(0, 0.95)
    for name, tensor in average.items():
        torch.testing.assert_close(after[1][name], torch.lerp(tensor, weights[name], ema_weight(60, 0.95)))
    fresh = still.model_copy(update={"learning_rate": 0.01, "carry_optimizer": False})
    carried = train(
        large, tmp_path / "carried", fresh.model_copy(update={"carry_optimizer": True}), last(initial)
    )
    alone = train(large, tmp_path / "alone", fresh, last(initial))
    assert any(not torch.equal(carried[0][name], alone[0][name]) for name in weights)


def test_a_phase_goes_on_from_its_own_checkpoint_and_not_from_the_first_phase_again(phases, tmp_path):
    _, large, _, initial = phases
    whole = train(large, tmp_path / "whole", SECOND, last(initial))
    train(large, tmp_path / "cut", SECOND.model_copy(update={"num_steps": 2}), last(initial))
    assert newest_checkpoint(tmp_path / "cut") == 2
    again = train(large, tmp_path / "whole", SECOND, last(initial))
    for one, other in zip(whole[:2], again[:2], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    np.testing.assert_array_equal(whole[2], again[2])


def noise_seen(run_dir):
    """(uid, digest of its noise) of every sample that a training saw."""
    lines = (run_dir / FOLDER / "rank-00000.jsonl").read_text().splitlines()
    return [tuple(sample[:2]) for line in lines for sample in json.loads(line)["samples"]]


def test_a_phase_on_the_same_cache_and_seed_goes_on_in_the_plan_and_repeats_no_noise(
    phases, tmp_path, monkeypatch
):
    small, _, _, initial = phases
    monkeypatch.setenv(RECORD_SAMPLES, "1")
    before = changed(num_steps=60, checkpoint_every_steps=60)
    train(small, tmp_path / "before", before)
    initial = replace(last(initial), num_samples=60 * before.global_batch_size)
    train(small, tmp_path / "after", SECOND, initial)
    train(small, tmp_path / "whole", changed(num_steps=64, checkpoint_every_steps=64))
    first, second = (noise_seen(tmp_path / name) for name in ("before", "after"))
    assert len(second) == 4 * SECOND.global_batch_size == len(set(second))
    assert not set(first) & set(second)
    assert first + second == noise_seen(tmp_path / "whole")


def test_a_phase_whose_first_checkpoint_is_gone_says_how_to_make_it_again(phases, tmp_path):
    from test_train_loop import MODEL

    cache = tmp_path / "cache.json"
    cache.write_text("{}")
    params = {"train": FIRST.model_dump(mode="json"), "model": MODEL.model_dump(mode="json"), "seed": 0}
    body = write_manifest(
        tmp_path / "manifest.json",
        stage="train",
        params=params,
        upstream={"cache": cache},
        counts={"steps": 60},
    )
    key = run_key(MODEL, FIRST, 0, chain_digest([body["upstream"]["cache"]]))
    wrong = r"no checkpoint is there, .* train it again: snakemake train -R train_run --config run=first"
    with pytest.raises(ValueError, match=wrong):
        find_initial("first", tmp_path / "manifest.json", tmp_path)
    shutil.copytree(phases[3].folder, tmp_path / key)
    found = find_initial("first", tmp_path / "manifest.json", tmp_path)
    num_samples = 60 * FIRST.global_batch_size
    assert found == InitialCheckpoint("first", checkpoint_folder(tmp_path / key, 60), 60, num_samples)


def test_a_phase_may_interpolate_positions_and_need_not_carry_the_moments(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")

    def runs(name, **values):
        (tmp_path / f"config/runs/{name}.yaml").write_text(yaml.safe_dump({"extends": "demo", **values}))

    runs("first")
    train = {"initial_run": "first", "optimizer": "adamw", "carry_optimizer": False}
    runs("wider", model={"position_interpolation": 2.0}, bucket={"resolution_px": 128}, train=train)
    assert load_project("wider", tmp_path).run.model.position_interpolation == 2.0
