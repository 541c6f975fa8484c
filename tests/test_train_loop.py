"""Training: repeatable to the bit, through kills and signals, and the same on several ranks."""

import copy
import math
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import start_ranks
from test_train_data import FINGERPRINT, write_cache

from darkroom.config.run import Train
from darkroom.families.mmdit import MMDiTModel
from darkroom.train.checkpoint import checkpoint_folder, newest_checkpoint, run_key
from darkroom.train.data import LatentCache
from darkroom.train.distributed import Ranks, find_ranks
from darkroom.train.loader import BatchMaker
from darkroom.train.plan import BatchPlan
from darkroom.train.record import COLUMNS
from darkroom.train.rendezvous import process_group
from darkroom.train.signals import STOPPED_EXIT_CODE, Stopped
from darkroom.train.step import Stepper, ema_weight, learning_rate_at, make_optimizers
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun

PARTS = [{(64, 64): 7, (96, 48): 3}, {(64, 64): 9, (48, 96): 2}]
MODEL = MMDiTModel(num_blocks=2, num_heads=2, head_dim=8, patch_size=2)
SETTINGS = Train(
    num_steps=20,
    global_batch_size=6,
    microbatch_size=6,
    learning_rate=3e-3,
    num_warmup_steps=3,
    ema_decay=0.9,
    dtype="float32",
    checkpoint_every_steps=5,
    log_every_steps=4,
)
ALONE = Ranks()


def changed(**options):
    return SETTINGS.model_copy(update=options)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return LatentCache(*write_cache(tmp_path_factory.mktemp("cache"), PARTS), FINGERPRINT)


class Plain(torch.nn.Module):
    """A stand-in for the MMDiT that ranks of their own need not import diffusers for."""

    def __init__(self, latent_channels, text_dim, pooled_dim):
        super().__init__()
        self.text_in = torch.nn.Linear(text_dim + pooled_dim + 1, 16)
        self.image_in = torch.nn.Conv2d(latent_channels, 16, 3, padding=1)
        self.image_out = torch.nn.Conv2d(16, latent_channels, 3, padding=1)

    def forward(self, latents, timestep, conditioning):
        (text,), (text_mask,), pooled = conditioning.text, conditioning.text_mask, conditioning.pooled
        if text_mask is not None:
            text = text * text_mask[..., None]
        condition = self.text_in(torch.cat([text.sum(1), pooled, timestep[:, None]], dim=1))
        return self.image_out(torch.tanh(self.image_in(latents) + condition[..., None, None]))


def make_models(cache, plain=False):
    if plain:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = Plain(**cache.sizes)
    else:
        from darkroom.models.families import build_denoiser

        model = build_denoiser(MODEL, cache.sizes, seed=0)
    return model, copy.deepcopy(model).requires_grad_(False)


def run(cache, run_dir, settings=SETTINGS, on_sample=None, log=lambda _: None, ranks=ALONE, plain=False):
    model, ema = make_models(cache, plain)
    history = Trainer(
        Training(cache, model, ema, settings, seed=0), TrainingRun(run_dir, ranks, log, on_sample)
    ).train()
    return {**model.state_dict(), **{f"ema/{k}": v for k, v in ema.state_dict().items()}}, history.rows


def assert_equal(one, other):
    assert one[0].keys() == other[0].keys()
    for name, tensor in one[0].items():
        assert torch.equal(tensor, other[0][name]), name
    np.testing.assert_array_equal(one[1], other[1])


@pytest.fixture(scope="module")
def uninterrupted(cache, tmp_path_factory):
    torch.set_num_threads(1)
    return run(cache, tmp_path_factory.mktemp("run"))


def test_two_runs_are_the_same_to_the_bit(cache, uninterrupted, tmp_path):
    assert_equal(run(cache, tmp_path), uninterrupted)


def test_training_learns_and_its_history_is_whole(uninterrupted):
    weights, rows = uninterrupted
    assert rows.shape == (20, len(COLUMNS))
    assert np.isfinite(rows[:, :3]).all()
    np.testing.assert_allclose(rows[:, 1], [learning_rate_at(step, SETTINGS) for step in range(20)])
    # At first the velocity is 0, so the loss is about E|e - x0|^2 = 2; random latents are not learnt, but
    # the weights move.
    assert rows[0, 0] == pytest.approx(2, abs=0.4)
    assert (weights["network.image_out.weight"] != 0).any()
    assert (weights["network.image_out.weight"] != weights["ema/network.image_out.weight"]).any()


class Killed(Exception):
    pass


def kill_at(at):
    def on_sample(_, step):
        if step == at:
            raise Killed

    return on_sample


def test_killed_twice_and_resumed_gives_the_same_weights_and_history(cache, uninterrupted, tmp_path):
    every_step = changed(sample_every_steps=1)
    for at, newest in ((7, 5), (13, 10)):
        with pytest.raises(Killed):
            run(cache, tmp_path, every_step, kill_at(at))
        assert newest_checkpoint(tmp_path) == newest
    assert_equal(run(cache, tmp_path), uninterrupted)
    assert_equal(run(cache, tmp_path), uninterrupted)  # a finished run trains no further


def test_with_muon_a_killed_run_also_goes_on_to_the_same_weights(cache, tmp_path):
    muon = changed(optimizer="muon")
    whole = run(cache, tmp_path / "whole", muon)
    with pytest.raises(Killed):
        run(cache, tmp_path / "killed", muon.model_copy(update={"sample_every_steps": 1}), kill_at(13))
    assert_equal(run(cache, tmp_path / "killed", muon), whole)


def test_muon_takes_the_matrices_inside_the_blocks_and_adamw_the_rest(cache):
    model = make_models(cache)[0]
    adamw, muon = make_optimizers(model, changed(optimizer="muon"))
    inner = {id(p) for group in muon.param_groups for p in group["params"]}
    rest = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert inner | rest == {id(p) for p in model.parameters()} and not inner & rest
    names = {name for name, p in model.named_parameters() if id(p) in inner}
    assert names and all("blocks." in name and "modulation" not in name for name in names)


def test_adamw_updates_all_weights_in_fused_kernels(cache):
    model, ema = make_models(cache)
    stepper = Stepper(model, make_optimizers(model, SETTINGS), ema, SETTINGS)
    batch = BatchMaker(cache, BatchPlan(0, 6, cache.uids), SETTINGS, 0).make(0)
    with torch.profiler.profile() as profile:
        stepper.step(batch)
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["aten::_fused_adamw_"] == 2  # weights that decay, and those that do not


def test_a_torn_checkpoint_costs_steps_but_not_the_result(cache, uninterrupted, tmp_path):
    with pytest.raises(Killed):
        run(cache, tmp_path, changed(sample_every_steps=1), kill_at(12))
    file = checkpoint_folder(tmp_path, 10) / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    lines = []
    assert_equal(run(cache, tmp_path, log=lines.append), uninterrupted)
    assert any("passed over" in line for line in lines)
    assert any("resumed at step 5, 7 steps repeated" in line for line in lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_ends_with_code_75(cache, uninterrupted, tmp_path, number):
    def send(_, step):
        if step == 8:
            os.kill(os.getpid(), number)

    before, others = signal.getsignal(number), threading.enumerate()
    with pytest.raises(Stopped) as stopped:
        run(cache, tmp_path, changed(sample_every_steps=1), send)
    assert stopped.value.code == STOPPED_EXIT_CODE == 75
    assert newest_checkpoint(tmp_path) == stopped.value.step == 9
    assert signal.getsignal(number) is before
    assert not [t for t in threading.enumerate() if t not in others and t.name.startswith("darkroom")]
    assert_equal(run(cache, tmp_path), uninterrupted)


def test_one_ctrl_c_that_comes_twice_saves_and_a_second_one_kills():
    code = (
        "import os, signal, sys, time\nfrom darkroom.train import signals\n"
        "signals._SAME_CTRL_C_S = 0.3\n"
        "with signals.stop_signals() as stop:\n"
        "    for pause in map(float, sys.argv[1:]):\n"
        "        time.sleep(pause)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert stop.received\n"
    )
    for pauses, expected in (("0", "0.05"), 0), (("0", "0.05", "0.4"), -signal.SIGINT):
        assert subprocess.run([sys.executable, "-c", code, *pauses]).returncode == expected


def test_the_log_tells_step_loss_speed_and_wait(cache, tmp_path):
    lines = []
    run(cache, tmp_path, changed(num_steps=8), log=lines.append)
    steps = ["train: step 4/8", "train: step 5/8", "train: step 8/8"]
    told = [line for line in lines if line.startswith("train: step")]
    assert [line.split(",")[0] for line in told] == steps
    assert all("waiting for data" in line and "left" in line for line in told)
    assert all(re.search(r"\d img/s \([\d.e-]+ TFLOP/s\),", line) for line in told)
    by_bucket = [line for line in lines if line.startswith("train: bucket")]
    assert len(by_bucket) == len(cache.uids) and lines == [*told, *by_bucket, lines[-1]]
    assert sum(int(re.search(r": (\d+) steps, ", line)[1]) for line in by_bucket) == 8
    assert re.fullmatch(r"train: goodput \d+\.\d% of [\d:]+ since the first start; .*to start", lines[-1])
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_loss_that_is_not_finite_ends_the_training(cache, tmp_path):
    with pytest.raises(RuntimeError, match=r"step [0-9]+ is not finite.*learning_rate"):
        run(cache, tmp_path, changed(learning_rate=1e30, num_warmup_steps=0, max_grad_norm=1e30))


class Damaged:
    """A source whose batch of step 13 is not finite."""

    def __init__(self, cache):
        self.cache, self.uids, self.captions = cache, cache.uids, cache.captions
        self.batch = BatchPlan(0, SETTINGS.global_batch_size, cache.uids).batch(12)

    def gather(self, bucket, places, captions, tags=None):
        found = self.cache.gather(bucket, places, captions)
        if bucket == self.batch.bucket and np.array_equal(places, self.batch.index):
            return replace(found, latents=torch.full_like(found.latents, torch.nan))
        return found


def damaged(cache, run_dir, settings):
    model, ema = make_models(cache, plain=True)
    where = TrainingRun(run_dir, log=lambda _: None)
    rows = Trainer(Training(Damaged(cache), model, ema, settings, 0), where).train().rows
    return {**model.state_dict(), **{f"ema/{k}": v for k, v in ema.state_dict().items()}}, rows


def test_a_step_whose_loss_is_not_finite_can_be_left_out_and_the_training_goes_on(cache, tmp_path):
    without = changed(skip_steps=(13,))
    assert run_key(MODEL, without, 0, "cache") == run_key(MODEL, SETTINGS, 0, "cache")
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match=r"step 13 is not finite. Write train.skip_steps: \[13\] to go on"
        ):
            damaged(cache, tmp_path / "run", SETTINGS)
        assert newest_checkpoint(tmp_path / "run") == 10
    weights, rows = damaged(cache, tmp_path / "run", without)
    assert_equal((weights, rows), damaged(cache, tmp_path / "again", without))
    assert np.isnan(rows[12, [0, 2]]).all() and rows[12, 1] == learning_rate_at(12, SETTINGS)
    assert np.isfinite(np.delete(rows, 12, axis=0)[:, :3]).all()
    assert all(weight.isfinite().all() for weight in weights.values())
    with pytest.raises(ValueError, match=r"skip_steps: of the 20 steps .* left out \[13\], and .* \[7, 13\]"):
        damaged(cache, tmp_path / "run", changed(skip_steps=(7, 13)))
    with pytest.raises(ValueError, match="skip_steps: step 21 is past num_steps 20"):
        Train(**{**SETTINGS.model_dump(), "skip_steps": [21]})


def gradients(cache, settings):
    """The gradient of the first step, caught before the optimizer uses it."""
    model, ema = make_models(cache)
    with torch.no_grad():
        for weight in model.parameters():  # leave the initial zeros, behind which gradients vanish
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)), alpha=0.05)
    stepper = Stepper(model, make_optimizers(model, settings), ema, settings)
    caught = {}

    def catch():
        caught.update({name: w.grad.clone() for name, w in model.named_parameters()})
        return torch.zeros(())

    stepper._clip = catch
    batches = BatchMaker(cache, BatchPlan(0, settings.global_batch_size, cache.uids), settings, 0)
    measures = stepper.step(batches.make(0))
    return caught, measures


def test_accumulation_gives_the_gradient_of_the_whole_batch(cache):
    whole, one = gradients(cache, SETTINGS)
    parts, many = gradients(cache, changed(microbatch_size=4))  # 4 + 2 pictures: uneven
    assert sum(float(g.abs().sum()) for g in whole.values()) > 0
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(one, many, rtol=1e-6, atol=1e-6)
    assert one[12:].sum() == SETTINGS.global_batch_size
    assert float(one[2:12].sum()) == pytest.approx(float(one[0]))


def test_gradients_are_clipped_to_the_norm(cache):
    model, ema = make_models(cache)
    stepper = Stepper(model, make_optimizers(model, SETTINGS), ema, changed(max_grad_norm=0.5))
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    norm = stepper._clip()
    assert float(norm) == pytest.approx(math.sqrt(sum(w.numel() for w in model.parameters())))
    assert float(torch.nn.utils.get_total_norm([w.grad for w in model.parameters()])) == pytest.approx(
        0.5, rel=1e-4
    )
    for weight in model.parameters():
        weight.grad.mul_(0.5)
    stepper._clip()
    clipped = torch.nn.utils.get_total_norm([w.grad for w in model.parameters()])
    assert float(clipped) == pytest.approx(0.25, rel=1e-4)


def test_vectors_do_not_decay(cache):
    (optimizer,) = make_optimizers(make_models(cache)[0], SETTINGS)
    decay, none = optimizer.param_groups
    assert decay["weight_decay"] == SETTINGS.weight_decay and none["weight_decay"] == 0
    assert min(w.ndim for w in decay["params"]) == 2 and max(w.ndim for w in none["params"]) == 1


def test_the_average_is_that_of_the_weights_and_keeps_no_graph(cache):
    model, ema = make_models(cache)
    stepper = Stepper(model, make_optimizers(model, SETTINGS), ema, SETTINGS)
    batches = BatchMaker(cache, BatchPlan(0, 6, cache.uids), SETTINGS, 0)
    expected = model.network.image_out.weight.detach().clone()
    for step in range(3):
        stepper.step(batches.make(step))
        expected.lerp_(model.network.image_out.weight.detach(), ema_weight(step, SETTINGS.ema_decay))
    torch.testing.assert_close(ema.network.image_out.weight, expected, rtol=0, atol=0)
    assert not any(w.requires_grad or w.grad_fn for w in ema.parameters())


def test_the_average_forgets_the_start_and_ends_at_its_decay():
    assert ema_weight(0, 0.9999) == pytest.approx(1 - 2 / 11)
    assert ema_weight(10**7, 0.9999) == pytest.approx(1e-4)


ON_RANKS = changed(num_steps=24, microbatch_size=2, sample_every_steps=1)


def main(folder, run_dir):
    """One of two ranks: rank 0 alone gets a signal after step 20, and both must stop together."""
    torch.set_num_threads(1)
    shards = [(p, p.with_suffix(".parquet")) for p in sorted(Path(folder).glob("part-*.safetensors"))]
    cache, ranks = LatentCache(shards, Path(folder) / "null.safetensors", FINGERPRINT), find_ranks()

    def stop(_, step):
        if step == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    with process_group(ranks, torch.device("cpu"), "same"):
        run(cache, run_dir, ON_RANKS, stop, ranks=ranks, plain=True)


def test_two_ranks_agree_with_one_stop_together_and_go_on_as_one(cache, tmp_path):
    write_cache(tmp_path, PARTS)
    _, alone = run(cache, tmp_path / "alone", ON_RANKS, plain=True)
    ranks = start_ranks(tmp_path, __file__, [tmp_path, tmp_path / "run"], 2)
    assert [code for code, _ in ranks.wait()] == [75, 75]
    assert newest_checkpoint(tmp_path / "run") in (21, 22)
    _, both = run(cache, tmp_path / "run", ON_RANKS, plain=True)
    assert both[:20, 0].std() > 1e-3
    np.testing.assert_allclose(both[:, 0], alone[:, 0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(both[:, 2], alone[:, 2], rtol=1e-3)


if __name__ == "__main__":
    main(*sys.argv[1:])
