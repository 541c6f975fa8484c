"""Post-hoc EMA: what a training keeps of power-function averages, and what is made of it afterwards."""

import re
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from test_train_data import write_cache
from test_train_loop import (  # noqa: F401 - a fixture
    ALONE,
    MODEL,
    PARTS,
    SETTINGS,
    Killed,
    assert_equal,
    cache,
    changed,
    kill_at,
    make_models,
    run,
)
from train_ranks import train_on

from darkroom.config.post_hoc_ema import PostHocEma
from darkroom.config.run import Train
from darkroom.objectives.power_function import exponent_of
from darkroom.train.checkpoint import checkpoint_folder, read_checkpoint, run_key
from darkroom.train.phases import FinishedTraining, InitialCheckpoint
from darkroom.train.power_averages import average_name
from darkroom.train.reconstruct import check_stored, reconstruct, relative_error
from darkroom.train.snapshots import described, snapshot_folder
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun

KEPT = changed(post_hoc_ema=PostHocEma(snapshot_every_steps=5))
# 40 snapshots of four widths, of which two are held back; weights that move a lot to the end.
LONG = changed(
    num_steps=160,
    checkpoint_every_steps=160,
    learning_rate=0.02,
    learning_rate_decay="constant",
    post_hoc_ema=PostHocEma(widths=(0.05, 0.1, 0.075, 0.15), snapshot_every_steps=4),
)


def finished(folder, settings, **counts):
    return FinishedTraining(settings, MODEL, 0, {}, folder, {"steps": settings.num_steps, **counts})


def snapshots(folder):
    """Path -> bytes of all files below the snapshots of a run directory."""
    root = Path(folder) / "snapshots"
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def numbers(folder):
    return sorted({path.split("/")[0] for path in snapshots(folder)})


# Training


@pytest.fixture(scope="module")
def long_run(cache, tmp_path_factory):  # noqa: F811
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("long")
    run(cache, folder, LONG, plain=True)
    return folder


@pytest.mark.parametrize("step", [160, 120])
def test_two_widths_reconstructed_from_snapshots_of_two_others_equal_averages_kept_during_training(
    long_run, step
):
    two = LONG.model_copy(update={"post_hoc_ema": PostHocEma(snapshot_every_steps=4)})
    tensors = read_checkpoint(snapshot_folder(long_run, LONG, step)).tensors
    for width in (0.075, 0.15):
        found = reconstruct(finished(long_run, two), width, step)
        kept, near = (
            {name: tensors[average_name(of, name)] for name in found.weights} for of in (width, 0.1)
        )
        assert found.num == 2 * step // 4 and found.profile_error < 5e-3
        assert relative_error(found.weights, kept) < 1e-4
        assert relative_error(near, kept) > 5e-3  # to take the nearest stored one would not do


def test_a_stored_width_is_checked_against_the_others_alone(long_run):
    held = check_stored(finished(long_run, LONG), 80)
    assert [one.width for one in held] == [0.05, 0.1, 0.075, 0.15]
    assert all(0 < one.error < 1e-3 and one.profile_error < 0.05 for one in held)


def test_averages_are_those_of_the_weights_after_each_step_left_out_ones_included(cache, tmp_path):  # noqa: F811
    settings = KEPT.model_copy(
        update={"num_steps": 6, "num_warmup_steps": 0, "skip_steps": (3,), "sample_every_steps": 1}
    )
    model, ema = make_models(cache, plain=True)
    expected = {}

    def follow(_, step):
        for width in settings.post_hoc_ema.widths:
            kept = (1 - 1 / step) ** (exponent_of(width) + 1)
            for name, weight in model.named_parameters():
                weight = weight.detach().double()
                average = expected.setdefault((width, name), weight.clone())
                average.mul_(kept).add_(weight, alpha=1 - kept)

    where = TrainingRun(tmp_path, ALONE, lambda _: None, follow)
    Trainer(Training(cache, model, ema, settings, seed=0), where).train()
    found = read_checkpoint(checkpoint_folder(tmp_path, 6)).tensors
    for (width, name), average in expected.items():
        torch.testing.assert_close(found[average_name(width, name)].double(), average, rtol=1e-5, atol=1e-7)


def test_a_training_without_them_is_the_same_and_keeps_none(cache, tmp_path):  # noqa: F811
    with_them = run(cache, tmp_path / "with", KEPT, plain=True)
    assert_equal(run(cache, tmp_path / "without", plain=True), with_them)
    assert not (tmp_path / "without/snapshots").exists()
    assert "post_hoc_ema" not in SETTINGS.model_dump()
    assert run_key(MODEL, SETTINGS, 0, "a") != run_key(MODEL, KEPT, 0, "a")


def test_killed_twice_and_resumed_leaves_the_same_bytes_of_snapshots(cache, tmp_path):  # noqa: F811
    settings = KEPT.model_copy(update={"post_hoc_ema": PostHocEma(snapshot_every_steps=3)})
    run(cache, tmp_path / "whole", settings, plain=True)
    every_step = settings.model_copy(update={"sample_every_steps": 1})
    for at in (8, 14):
        with pytest.raises(Killed):
            run(cache, tmp_path / "killed", every_step, kill_at(at), plain=True)
    run(cache, tmp_path / "killed", settings, plain=True)
    assert numbers(tmp_path / "whole") == [f"step-{step:08d}" for step in (3, 6, 9, 12, 15, 18, 20)]
    assert snapshots(tmp_path / "killed") == snapshots(tmp_path / "whole")
    saved, again = (
        read_checkpoint(checkpoint_folder(tmp_path / name, 20)).tensors for name in ("whole", "killed")
    )
    assert any(name.startswith("averages/0.05/") for name in saved)
    assert all(torch.equal(again[name], tensor) for name, tensor in saved.items() if name != "history")


def test_a_training_that_stops_early_ends_with_a_snapshot_of_its_own(cache, tmp_path):  # noqa: F811
    model, ema = make_models(cache, plain=True)
    training, where = Training(cache, model, ema, KEPT, 0), TrainingRun(tmp_path, log=lambda _: None)
    Trainer(training, where).train(7)
    assert numbers(tmp_path) == ["step-00000005", "step-00000007"]
    stopped = reconstruct(finished(tmp_path, KEPT, steps=7), 0.1)
    tensors = read_checkpoint(checkpoint_folder(tmp_path, 7)).tensors
    kept = {name: tensors[average_name(0.1, name)] for name in stopped.weights}
    assert stopped.num == 4 and relative_error(stopped.weights, kept) < 1e-6
    Trainer(training, where).train()
    assert reconstruct(finished(tmp_path, KEPT), 0.1).num == 2 * 4  # of the steps 5, 10, 15 and 20


def test_a_phase_begins_averages_of_its_own(cache, tmp_path):  # noqa: F811
    run(cache, tmp_path / "first", KEPT, plain=True)
    settings = KEPT.model_copy(
        update={"num_steps": 2, "num_warmup_steps": 0, "post_hoc_ema": PostHocEma(snapshot_every_steps=1)}
    )
    initial = InitialCheckpoint("first", checkpoint_folder(tmp_path / "first", 20), 20, 120)
    model, ema = make_models(cache, plain=True)
    where = TrainingRun(tmp_path / "second", log=lambda _: None)
    Trainer(Training(cache, model, ema, settings, 0, initial=initial), where).train(1)
    tensors = read_checkpoint(snapshot_folder(tmp_path / "second", settings, 1)).tensors
    for name, weight in model.named_parameters():
        assert torch.equal(tensors[average_name(0.1, name)], weight), name


def test_trainings_of_other_lengths_share_snapshots_until_their_decay(cache, tmp_path):  # noqa: F811
    few, many = (KEPT.model_copy(update={"num_steps": steps, "num_decay_steps": 8}) for steps in (20, 30))
    for settings in (few, many):
        run(cache, tmp_path / "grown", settings, plain=True)
    run(cache, tmp_path / "straight", many, plain=True)
    grown, straight = (snapshots(tmp_path / name) for name in ("grown", "straight"))
    assert numbers(tmp_path / "straight") == [
        "decay-00000022-00000030", *(f"step-{step:08d}" for step in (5, 10, 15, 20))
    ]  # fmt: skip
    assert straight.items() <= grown.items()
    one, other = (snapshot_folder(tmp_path / "grown", of, 20) for of in (few, many))
    assert one != other and one.is_dir() and other.is_dir()


@pytest.mark.slow
def test_ranks_with_shards_leave_the_same_bytes_when_they_are_killed_and_nearly_those_of_one(tmp_path):
    write_cache(tmp_path, PARTS)
    options = {"parallelism": "fsdp", "post_hoc_ema": PostHocEma(snapshot_every_steps=4)}
    train_on(2, tmp_path, tmp_path / "whole", sample_every_steps=0, **options)
    train_on(2, tmp_path, tmp_path / "killed", 9, **options)
    train_on(2, tmp_path, tmp_path / "killed", sample_every_steps=0, **options)
    assert len(snapshots(tmp_path / "whole")) == 5 * 3  # each rank's file, and what tells of both
    assert snapshots(tmp_path / "killed") == snapshots(tmp_path / "whole")
    train_on(1, tmp_path, tmp_path / "one", sample_every_steps=0, **options)
    both, one = (
        reconstruct(finished(tmp_path / name, KEPT.model_copy(update=options)), 0.08).weights
        for name in ("whole", "one")
    )
    assert relative_error(both, one) < 1e-4


def test_a_snapshot_that_cannot_be_written_ends_the_training_before_a_later_checkpoint(
    cache,  # noqa: F811
    tmp_path,
):
    (tmp_path / "snapshots").mkdir(parents=True)
    (tmp_path / "snapshots/.step-00000010.tmp").write_text("no folder")
    settings = KEPT.model_copy(update={"checkpoint_every_steps": 5})
    with pytest.raises(RuntimeError, match=r"snapshot .*step-00000010 could not be written .*Free space"):
        run(cache, tmp_path, settings, plain=True)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000005"]
    (tmp_path / "snapshots/.step-00000010.tmp").unlink()
    run(cache, tmp_path, settings, plain=True)
    run(cache, tmp_path / "whole", settings, plain=True)
    assert snapshots(tmp_path) == snapshots(tmp_path / "whole")


# What cannot be reconstructed


def test_what_cannot_be_reconstructed_says_why(long_run, tmp_path):
    training = finished(long_run, LONG)
    with pytest.raises(ValueError, match=r"width 0.3 should be at least 0.001 and below 0.28"):
        reconstruct(training, 0.3)
    with pytest.raises(ValueError, match=r"step 30 has no snapshot; the nearest are of the steps 28, 32"):
        reconstruct(training, 0.1, 30)
    with pytest.raises(
        ValueError, match=r"kept no snapshots: write `post_hoc_ema: \{snapshot_every_steps: N\}`"
    ):
        reconstruct(finished(long_run, SETTINGS), 0.1)
    with pytest.raises(ValueError, match=r"step-00000004: missing; .*train"):
        reconstruct(finished(tmp_path, LONG), 0.1)


def test_a_damaged_snapshot_is_refused(cache, tmp_path):  # noqa: F811
    run(cache, tmp_path, KEPT, plain=True)
    path = snapshot_folder(tmp_path, KEPT, 10) / "state.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"step-00000010: the digest of state.safetensors does not match"):
        reconstruct(finished(tmp_path, KEPT), 0.1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"widths": [0.05, 0.3]}, "widths.1\n.*less than 0.28"),
        ({"widths": [0.0, 0.1]}, "widths.0\n.*greater than or equal to 0.001"),
        ({"widths": [0.1, 0.1]}, "0.1 is there twice; write each width once"),
        ({"widths": [0.1]}, "at least 2 items"),
        ({"widths": [0.02, 0.05, 0.1, 0.15, 0.2]}, "at most 4 items"),
        ({"snapshot_every_steps": 0}, "greater than or equal to 1"),
        ({"snapshot_every_steps": 20}, "snapshot_every_steps 20 must be below num_steps 20"),
    ],
)
def test_options_from_which_nothing_is_reconstructed_are_refused(options, told):
    section = {"snapshot_every_steps": 5, **options}
    with pytest.raises(ValidationError, match=told):
        Train(**{**SETTINGS.model_dump(), "post_hoc_ema": section})


def test_too_many_snapshots_and_an_optimizer_that_averages_are_refused():
    values = {**SETTINGS.model_dump(), "post_hoc_ema": {"snapshot_every_steps": 3}}
    with pytest.raises(ValidationError, match=r"makes 3334 snapshots .* 1000 are the most; write 10 or more"):
        Train(**{**values, "num_steps": 10_000})
    free = {"optimizer": "schedulefree", "ema_decay": 0.0, "learning_rate_decay": "constant"}
    with pytest.raises(
        ValidationError, match=r"schedulefree averages weights itself.*leave post_hoc_ema out"
    ):
        Train(**{**values, **free})


def test_the_log_says_what_memory_and_disk_the_snapshots_take():
    line = described(KEPT, 250_000_000)
    assert "0.05 (gamma 16.97), 0.1 (gamma 6.94) take 2 GB of memory besides" in line
    assert re.search(r"their 4 snapshots of 2 GB each 8 GB of disk", line)
    assert described(SETTINGS, 250_000_000) == ""
