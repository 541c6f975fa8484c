"""Prodigy and Schedule-Free: the package's own loop on the same gradients, and exact through checkpoints."""

import copy
import sys

import pytest
import torch
from pydantic import ValidationError
from test_train_loop import ALONE, Killed, assert_equal, cache, changed, kill_at, make_models, run  # noqa: F401

from darkroom.config.optional import check_optimizer
from darkroom.config.run import Train
from darkroom.train.adaptive import optimizer_notes
from darkroom.train.checkpoint import checkpoint_folder, read_checkpoint
from darkroom.train.loader import BatchMaker
from darkroom.train.phases import InitialCheckpoint
from darkroom.train.plan import BatchPlan
from darkroom.train.record import History
from darkroom.train.state import TrainState
from darkroom.train.step import Stepper, learning_rate_at, make_optimizers

PACKAGES = {"prodigy": "prodigyopt", "schedulefree": "schedulefree"}
SETTINGS = {
    "prodigy": changed(optimizer="prodigy", learning_rate=1.0),
    "schedulefree": changed(optimizer="schedulefree", ema_decay=0.0, learning_rate_decay="constant"),
}


@pytest.fixture(params=SETTINGS)
def settings(request):
    """Of either optimizer."""
    return SETTINGS[request.param]


@pytest.mark.parametrize("optimizer", PACKAGES)
def test_without_its_package_it_is_refused_with_what_to_install(optimizer, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[optimizer], None)
    with pytest.raises(
        ValueError, match=rf"optimizer: {optimizer} needs .*`pip install {PACKAGES[optimizer]}`"
    ):
        check_optimizer(optimizer)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"optimizer": "prodigy", "parallelism": "fsdp"}, "prodigy measures how far .* parallelism: ddp"),
        ({"optimizer": "schedulefree", "ema_decay": 0.0}, "no decay .* learning_rate_decay: constant"),
        ({"optimizer": "schedulefree", "learning_rate_decay": "constant"}, "averages .* ema_decay: 0"),
        (
            {**SETTINGS["schedulefree"].model_dump(), "betas": [0.0, 0.99]},
            r"averages with betas\[0\]; write one above 0",
        ),
    ],
)
def test_options_that_contradict_it_are_refused(options, told):
    with pytest.raises(ValidationError, match=told):
        Train(**{**changed().model_dump(), **options})


def test_a_learning_rate_of_adamw_is_told_of_with_prodigy():
    (note,) = optimizer_notes(changed(optimizer="prodigy", learning_rate=1e-4))
    assert "learning_rate 0.0001" in note and "write 1.0" in note
    assert not optimizer_notes(SETTINGS["prodigy"]) and not optimizer_notes(changed(learning_rate=1e-4))


def theirs(settings, model):
    """The package's own optimizer, over all weights with the decay that ours has."""
    decays = [[p for p in model.parameters() if (p.ndim >= 2) == decays] for decays in (True, False)]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in zip(decays, (settings.weight_decay, 0.0), strict=True)
    ]
    if settings.optimizer == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(groups, lr=1.0, betas=settings.betas, safeguard_warmup=True)
    from schedulefree import AdamWScheduleFree

    # Its own warm-up is as ours.
    options = {"lr": settings.learning_rate, "warmup_steps": settings.num_warmup_steps}
    return AdamWScheduleFree(groups, betas=settings.betas, **options)


def test_steps_are_the_packages_own_and_the_average_is_of_its_evaluation_weights(cache, settings):  # noqa: F811
    model, ema = make_models(cache)
    expected = copy.deepcopy(model)
    optimizer = theirs(settings, expected)
    ours = make_optimizers(model, settings)
    stepper = Stepper(model, ours, ema, settings)
    reference = Stepper(expected, [], copy.deepcopy(ema), settings)
    batches = BatchMaker(cache, BatchPlan(0, 6, cache.uids), settings, 0)
    is_free = settings.optimizer == "schedulefree"
    if is_free:
        optimizer.train()
    for step in range(6):
        batch = batches.make(step)
        stepper.step(batch)
        losses, _ = reference.losses(batch, slice(0, 6))
        (losses.sum() / 6).backward()
        reference._clip()
        if not is_free:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, settings)
        optimizer.step()
        optimizer.zero_grad()
    for ours_, theirs_ in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-4, atol=1e-6)
    if is_free:
        apart = [not torch.equal(*pair) for pair in zip(model.parameters(), ema.parameters(), strict=True)]
        assert any(apart)
        optimizer.eval()
        for average, weights in zip(ema.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(average, weights, rtol=1e-4, atol=1e-6)
    else:
        assert ours[0].param_groups[0]["d"] == pytest.approx(optimizer.param_groups[0]["d"], rel=1e-4)
        assert ours[0].param_groups[0]["d"] > 1e-6  # where it began


def test_killed_and_resumed_it_ends_with_the_same_bits(cache, settings, tmp_path):  # noqa: F811
    whole = run(cache, tmp_path / "whole", settings)
    with pytest.raises(Killed):
        run(cache, tmp_path / "killed", settings.model_copy(update={"sample_every_steps": 1}), kill_at(13))
    assert_equal(run(cache, tmp_path / "killed", settings), whole)
    saved, again = (
        read_checkpoint(checkpoint_folder(tmp_path / name, 20)).tensors for name in ("whole", "killed")
    )
    assert saved.keys() == again.keys() and any(name.startswith("groups/") for name in saved)
    for name, tensor in saved.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)


def test_a_phase_without_the_optimizer_begins_at_the_average_of_schedule_free(cache, settings, tmp_path):  # noqa: F811
    before, _ = run(cache, tmp_path, settings)
    names = [name for name in before if not name.startswith("ema/")]
    for with_moments in (True, False):
        model, ema = make_models(cache)
        state = TrainState(model, ema, make_optimizers(model, settings), History(settings, ALONE))
        InitialCheckpoint("first", checkpoint_folder(tmp_path, 20), 20).load_into(state, with_moments)
        is_average = settings.optimizer == "schedulefree" and not with_moments
        for name in names:
            assert torch.equal(model.state_dict()[name], before[f"ema/{name}" if is_average else name])
            assert torch.equal(ema.state_dict()[name], before[f"ema/{name}"])
