"""Held-out pictures: never trained on, copies together, and a loss on them that only the weights change."""

import numpy as np
import polars as pl
import pytest
import torch
from test_train_data import FINGERPRINT, write_cache
from test_train_loop import SETTINGS, make_models
from train_ranks import on_ranks

from darkroom.config.run import Train
from darkroom.config.validation import Validation
from darkroom.score.copies import pairs_of_copies
from darkroom.store import write_table
from darkroom.train.checkpoint import run_key
from darkroom.train.data import LatentCache, num_pictures
from darkroom.train.distributed import Ranks
from darkroom.train.held_out import hold_out
from darkroom.train.parallel import DistributedModel, local
from darkroom.train.record import COLUMNS, VALIDATION_COLUMNS
from darkroom.train.seen import RECORD_SAMPLES
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun
from darkroom.train.validation import Validator

PARTS = [{(64, 64): 40, (96, 48): 12}, {(64, 64): 30, (48, 96): 9}]
WATCHED = SETTINGS.model_copy(
    update={"validation": Validation(share=0.2, every_steps=8, num_levels=4), "caption_dropout": 0.5}
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return LatentCache(*write_cache(tmp_path_factory.mktemp("cache"), PARTS), FINGERPRINT)


def text(uid):
    return f"{int(uid[0]):016x}{int(uid[1]):016x}"


def uids_of(source):
    return {text(uid) for uids in source.uids.values() for uid in uids}


def train(cache, folder, settings=WATCHED, on_sample=None):
    shown, held_out = hold_out(cache, settings.validation.share)
    model, average = make_models(cache)
    trainer = Trainer(
        Training(shown, model, average, settings, seed=0, held_out=held_out),
        TrainingRun(folder, log=lambda _: None, on_sample=on_sample),
    )
    return trainer.train(), average


def test_every_picture_is_trained_on_or_held_out(cache):
    shown, held_out = hold_out(cache, 0.2)
    assert uids_of(shown) | uids_of(held_out) == uids_of(cache)
    assert not uids_of(shown) & uids_of(held_out)
    assert num_pictures(held_out) == pytest.approx(0.2 * num_pictures(cache), abs=10)


def test_a_larger_share_holds_out_the_same_pictures_and_more(cache):
    few, more = (uids_of(hold_out(cache, share)[1]) for share in (0.1, 0.3))
    assert few < more


def test_a_subset_reads_what_the_whole_has_at_those_places(cache):
    _, held_out = hold_out(cache, 0.2)
    for bucket, uids in held_out.uids.items():
        where = {text(uid): place for place, uid in enumerate(cache.uids[bucket])}
        places = np.array([where[text(uid)] for uid in uids])
        captions = np.zeros(len(uids), np.int64)
        own = held_out.gather(bucket, np.arange(len(uids)), captions)
        of_all = cache.gather(bucket, places, captions)
        torch.testing.assert_close(own.latents, of_all.latents, rtol=0, atol=0)
        np.testing.assert_array_equal(held_out.shards[bucket], cache.shards[bucket][places])


def test_copies_are_on_the_side_of_the_first(cache):
    everyone = sorted(uids_of(cache))
    held_out = uids_of(hold_out(cache, 0.3)[1])
    first = next(uid for uid in everyone if uid in held_out)
    others = [uid for uid in everyone if uid not in held_out][:3]
    # The second is a copy of a copy, and what they name first is not in the cache at all.
    copies = [(others[0], first), (others[1], others[0]), (others[2], "0" * 32)]
    found = uids_of(hold_out(cache, 0.3, copies)[1])
    assert found >= {first, *others[:2]}
    assert found - held_out <= set(others)
    # By what is not there too: what that one is decides for its copy.
    alone = uids_of(hold_out(cache, 0.3, [(uid, "0" * 32) for uid in everyone[:40]])[1]) & set(everyone[:40])
    assert len(alone) in (0, 40)


@pytest.mark.parametrize(("share", "says"), [(1e-9, "holds out none of the 91 pictures; write a larger")])
def test_a_share_that_holds_nothing_out_is_refused(cache, share, says):
    with pytest.raises(ValueError, match=says):
        hold_out(cache, share)


def test_no_step_shows_what_is_held_out(cache, tmp_path, monkeypatch):
    monkeypatch.setenv(RECORD_SAMPLES, "1")
    train(cache, tmp_path)
    lines = (tmp_path / "samples-seen/rank-00000.jsonl").read_text()
    shown, held_out = hold_out(cache, 0.2)
    assert sum(uid in lines for uid in uids_of(shown)) > 50
    assert not any(uid in lines for uid in uids_of(held_out))


def test_the_loss_is_measured_when_due_and_after_the_last_step(cache, tmp_path):
    history, _ = train(cache, tmp_path)
    column = history.columns.index("validation_loss")
    assert (np.flatnonzero(np.isfinite(history.rows[:, column])) + 1).tolist() == [8, 16, 20]
    bins = history.rows[19, column + 1 :]
    # Four levels a picture, one from each quarter of the density: the middle of the timesteps is covered.
    assert np.isfinite(bins[2:8]).all()
    history.write(tmp_path / "history.parquet")
    table = pl.read_parquet(tmp_path / "history.parquet")
    assert table.columns == ["step", *COLUMNS, *VALIDATION_COLUMNS]
    assert table["validation_loss"].null_count() == 17


def test_a_training_that_was_stopped_goes_on_to_the_same_rows_and_weights(cache, tmp_path):
    whole, average = train(cache, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        train(cache, tmp_path / "cut", WATCHED.model_copy(update={"sample_every_steps": 13}), _killed)
    # The checkpoint of step 10 knows what was measured at step 8.
    history, again = train(cache, tmp_path / "cut")
    np.testing.assert_array_equal(history.rows, whole.rows)
    for name, weight in average.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=0)


def test_a_training_that_has_grown_has_the_rows_of_one_that_was_so_long_from_the_start(cache, tmp_path):
    long = WATCHED.model_copy(update={"learning_rate_decay": "constant", "num_warmup_steps": 0})
    short = long.model_copy(update={"num_steps": 14})
    history, _ = train(cache, tmp_path / "grown", short)
    column = history.columns.index("validation_loss")
    assert np.isfinite(history.rows[13, column])
    grown, average = train(cache, tmp_path / "grown", long)
    whole, same = train(cache, tmp_path / "whole", long)
    np.testing.assert_array_equal(grown.rows, whole.rows)
    for name, weight in average.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], weight, rtol=0, atol=0)


def _killed(average, step):
    raise RuntimeError("killed")


def test_looking_changes_no_step(cache, tmp_path):
    often = WATCHED.validation.model_copy(update={"every_steps": 1})
    one, average = train(cache, tmp_path / "one")
    other, same = train(cache, tmp_path / "other", WATCHED.model_copy(update={"validation": often}))
    np.testing.assert_array_equal(one.rows[:, : len(COLUMNS)], other.rows[:, : len(COLUMNS)])
    for name, weight in average.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], weight, rtol=0, atol=0)


def test_the_loss_depends_on_the_weights_alone(cache):
    _, held_out = hold_out(cache, 0.2)
    _, average = make_models(cache)
    average.eval()
    once = Validator(held_out, WATCHED, Ranks()).measure(average)
    # Not on the size of a pass, beyond rounding; nor on any state of random numbers.
    torch.manual_seed(5)
    again = Validator(held_out, WATCHED.model_copy(update={"microbatch_size": 3}), Ranks()).measure(average)
    np.testing.assert_allclose(once, again, rtol=1e-5)


def test_the_loss_is_the_mean_over_pictures_and_levels(cache):
    """An untrained velocity is 0, so the loss is the mean square of noise less latents, whatever the level."""
    _, held_out = hold_out(cache, 0.2)
    _, average = make_models(cache)
    average.eval()
    one_level, many = (
        Validator(
            held_out,
            WATCHED.model_copy(update={"validation": Validation(share=0.2, num_levels=number)}),
            Ranks(),
        ).measure(average)
        for number in (1, 16)
    )
    assert one_level[0] == pytest.approx(2, abs=0.2)
    assert many[0] == pytest.approx(2, abs=0.1)
    shares = np.isfinite(one_level[1:]).sum(), np.isfinite(many[1:]).sum()
    assert shares[0] < shares[1] or shares == (10, 10)


def test_another_validation_is_another_training():
    keys = {
        run_key(_MODEL, train, 0, "cache")
        for train in (SETTINGS, WATCHED, WATCHED.model_copy(update={"validation": Validation(share=0.1)}))
    }
    assert len(keys) == 3


_MODEL = Validation()  # any section


def test_dreambooth_holds_nothing_out():
    with pytest.raises(ValueError, match="prior_weight"):
        Train(**SETTINGS.model_dump() | {"prior_weight": 1.0, "validation": {}})


def test_pairs_of_copies_come_from_all_scorers_that_tell(tmp_path):
    uids = [f"{number:032x}" for number in range(5)]
    rows = {"uid": uids, "row": list(range(5))}
    near = pl.DataFrame({**rows, "near_duplicate": False, "near_duplicate_of": [None, None, 0, None, 1]})
    same = pl.DataFrame({**rows, "duplicate": False, "first_row": [None, 0, None, None, None]})
    first, rest = near.head(3), near.tail(2)
    files = [
        tmp_path / name
        for name in ("near_duplicate.parquet", "part-r01.near_duplicate.parquet", "duplicate.parquet")
    ]
    for path, table in zip(files, (first, rest, same), strict=True):
        write_table(path, table, sort_by="row")
    pairs = pairs_of_copies(files)
    assert set(pairs) == {(uids[2], uids[0]), (uids[4], uids[1]), (uids[1], uids[0])}
    with pytest.raises(ValueError, match="row 4 is a copy of row 1, which has no score"):
        pairs_of_copies(files[1:2])


def _measure_on_rank(rank, num, folder, parallelism):
    shards = [(p, p.with_suffix(".parquet")) for p in sorted(folder.glob("part-*.safetensors"))]
    cache = LatentCache(shards, folder / "null.safetensors", FINGERPRINT)
    settings = WATCHED.model_copy(update={"parallelism": parallelism})
    model, average = make_models(cache, plain=True)
    on_ranks_ = DistributedModel(model, average.eval(), settings, Ranks(rank, num))
    validator = Validator(hold_out(cache, 0.2)[1], settings, Ranks(rank, num))
    first = validator.measure(on_ranks_.average)
    # A step changes shards in place: what the second pass sees must be these.
    for weight in local(list(on_ranks_.average.parameters())):
        weight.add_(0.1)
    np.save(folder / f"{parallelism}-{rank}.npy", np.stack([first, validator.measure(on_ranks_.average)]))


@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_ranks_share_the_work_and_measure_what_one_does(cache, tmp_path, parallelism):
    write_cache(tmp_path, PARTS)
    _, average = make_models(cache, plain=True)
    validator = Validator(hold_out(cache, 0.2)[1], WATCHED, Ranks())
    alone = [validator.measure(average.eval())]
    for weight in average.parameters():
        weight.add_(0.1)
    alone.append(validator.measure(average))
    assert on_ranks(2, _measure_on_rank, tmp_path, parallelism) == [0, 0]
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"{parallelism}-{rank}.npy"), alone, rtol=1e-6)
    assert abs(alone[1][0] - alone[0][0]) > 1e-3
