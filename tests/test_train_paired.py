"""DreamBooth's prior preservation: both halves in every batch, weighed as equation 2 of the paper does."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from test_train_data import FINGERPRINT, write_cache
from test_train_loop import changed, make_models

from darkroom.config import ConfigError, load_project
from darkroom.config.run import Train
from darkroom.train.data import LatentCache
from darkroom.train.distributed import Ranks
from darkroom.train.loader import BatchMaker
from darkroom.train.paired import PairedPlan, make_plan
from darkroom.train.plan import BatchPlan
from darkroom.train.step import Stepper, make_optimizers

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(0)


def uids(number):
    drawn = RNG.integers(2**63, size=(number, 2), dtype=np.uint64)
    return drawn[np.lexsort((drawn[:, 1], drawn[:, 0]))]


def test_every_batch_holds_the_subject_and_its_class_and_covers_both():
    pictures = uids(12)
    priors = pictures[[1, 3, 4, 6, 7, 8, 10, 11]]
    plan = PairedPlan(0, 4, {(64, 64): pictures}, priors)
    known = {tuple(uid) for uid in priors}
    seen = {True: [], False: []}
    for step in range(16):
        batch = plan.batch(step)
        assert batch.is_prior.tolist() == [False, False, True, True]
        assert [tuple(uid) in known for uid in batch.uids] == batch.is_prior.tolist()
        np.testing.assert_array_equal(pictures[batch.index], batch.uids)
        for uid, is_prior in zip(batch.uids, batch.is_prior, strict=True):
            seen[bool(is_prior)].append(tuple(uid))
    # 32 visits: of 8 class pictures four each, of 4 pictures of the subject eight each.
    assert {seen[True].count(uid) for uid in set(seen[True])} == {4} and len(set(seen[True])) == 8
    assert {seen[False].count(uid) for uid in set(seen[False])} == {8} and len(set(seen[False])) == 4
    assert plan.account(16)["class_pictures"] == 8


def test_the_same_picture_has_another_visit_number_each_time():
    pictures = uids(5)
    plan = PairedPlan(3, 2, {(64, 64): pictures}, pictures[2:])
    batches = [plan.batch(step) for step in range(12)]
    pairs = [(tuple(b.uids[i]), int(b.visits[i])) for b in batches for i in range(len(b.uids))]
    assert len(set(pairs)) == len(pairs)


def test_a_bucket_without_class_pictures_is_refused_with_what_to_write():
    subject, prior = uids(3), uids(4)
    with pytest.raises(ValueError, match=r"bucket 96x64 holds pictures of the subject and none of its class"):
        PairedPlan(0, 2, {(64, 64): prior, (96, 64): subject}, prior)
    # Class pictures of another shape than the subject's are never drawn.
    both = {(64, 64): np.concatenate([subject, prior[:2]]), (64, 96): prior[2:]}
    both[64, 64] = both[64, 64][np.lexsort((both[64, 64][:, 1], both[64, 64][:, 0]))]
    assert {PairedPlan(0, 2, both, prior).batch(step).bucket for step in range(9)} == {(64, 64)}


def test_without_class_pictures_the_plan_is_the_plain_one():
    assert type(make_plan(0, 2, {(64, 64): uids(3)}, None)) is BatchPlan


def test_the_loss_is_the_subjects_mean_plus_the_weight_times_the_classs(tmp_path):
    cache = LatentCache(*write_cache(tmp_path, [{(64, 64): 9}]), FINGERPRINT)
    pictures = cache.uids[64, 64]
    settings: Train = changed(prior_weight=0.5, global_batch_size=6, microbatch_size=4)
    plan = PairedPlan(0, 6, cache.uids, pictures[4:])
    batch = BatchMaker(cache, plan, settings, 0).make(0)
    model, ema = make_models(cache, plain=True)
    stepper = Stepper(model, make_optimizers(model, settings), ema, settings)
    weighed = stepper.losses(batch, slice(0, 6))[0]
    plain = weighed / batch.weights
    assert weighed.mean().item() == pytest.approx((plain[:3].mean() + 0.5 * plain[3:].mean()).item())
    # Cut into two ranks, each has its share of the same weights.
    halves = [BatchMaker(cache, plan, settings, 0, Ranks(rank, 2)).make(0) for rank in (0, 1)]
    assert [w for half in halves for w in half.weights.tolist()] == batch.weights.tolist()


def test_class_pictures_and_their_weight_come_together(tmp_path):
    import shutil

    shutil.copytree(ROOT / "config", tmp_path / "config")

    def told(**values):
        (tmp_path / "config/runs/mine.yaml").write_text(yaml.safe_dump({"extends": "demo", **values}))
        with pytest.raises(ConfigError) as error:
            load_project("mine", tmp_path)
        return str(error.value)

    assert "the dataset demo-subject has class pictures; write 1.0" in told(dataset="demo-subject")
    assert "train.prior_weight: the dataset demo has no class pictures" in told(train={"prior_weight": 1.0})
    single = {"prior_weight": 1.0, "global_batch_size": 1, "microbatch_size": 1}
    assert "write global_batch_size: 2 or more" in told(dataset="demo-subject", train=single)
