"""FSDP2: the same training as DDP and as one rank, in shards, with checkpoints for any number of ranks."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from ranks import start_ranks
from safetensors.torch import load_file, save_file
from test_train_data import FINGERPRINT, write_cache
from test_train_loop import MODEL, PARTS, SETTINGS, make_models
from test_train_stage import SETTINGS as STAGE
from test_train_stage import read_cached, write_cached
from test_train_stage import run as run_stage
from train_ranks import NUM_STEPS, ON_RANKS, on_ranks, take_seen, train_on, whole

from darkroom.config.post_hoc_ema import PostHocEma
from darkroom.config.run import Train
from darkroom.formats.diffusers import load_pipeline
from darkroom.train.checkpoint import checkpoint_folder, read_checkpoint, run_key
from darkroom.train.data import LatentCache
from darkroom.train.distributed import Ranks
from darkroom.train.loader import BatchMaker
from darkroom.train.parallel import DistributedModel
from darkroom.train.plan import BatchPlan
from darkroom.train.step import Stepper, make_optimizers

# Some steps are clipped; averages of other widths are kept too.
CLIPPED = {"plain": False, "max_grad_norm": 0.3, "post_hoc_ema": PostHocEma(snapshot_every_steps=5)}
SHARDED = STAGE.model_copy(
    update={"parallelism": "fsdp", "sample_every_steps": 3, "dtype": "float32", "num_steps": 4}
)


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    write_cache(folder, PARTS)
    return folder


@pytest.fixture(scope="module")
def alone(cache_folder, tmp_path_factory):
    """(final tensors, samples of each step) of one rank."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train_on(1, cache_folder, run_dir, sample_every_steps=0, **CLIPPED)
    return final(run_dir), samples(run_dir)


def final(run_dir):
    return read_checkpoint(checkpoint_folder(run_dir, NUM_STEPS)).tensors


def samples(run_dir):
    return {step: whole(ranks) for step, ranks in take_seen(run_dir).items()}


def assert_agree(tensors, expected):
    """Losses and norms of all steps agree, and so do weights, averages and moments, by name and shape."""
    assert {n: t.shape for n, t in tensors.items()} == {n: t.shape for n, t in expected.items()}
    loss, norm = (tensors["history"][:, i].numpy() for i in (0, 2))
    assert len(loss) == NUM_STEPS and loss.std() > 1e-3
    np.testing.assert_allclose(loss, expected["history"][:, 0].numpy(), rtol=0, atol=1e-4)
    assert norm.max() > CLIPPED["max_grad_norm"] > norm.min()  # some were clipped, and some were not
    np.testing.assert_allclose(norm, expected["history"][:, 2].numpy(), rtol=1e-3)
    for kind in ("weights", "ema", "averages/0.1"):
        name = f"{kind}/network.image_out.weight"
        torch.testing.assert_close(tensors[name], expected[name], rtol=0, atol=2e-3)
    name = "exp_avg/network.image_out.weight"
    torch.testing.assert_close(tensors[name], expected[name], rtol=0.01, atol=1e-5)


# 6 pictures a step. Microbatches of 2 make ranks of 3 accumulate; on 4 ranks of 2, 2, 1, 1 with microbatches of 1
# the smaller shares lack a pass.
@pytest.mark.parametrize(
    ("num_ranks", "options"),
    [
        (2, {"parallelism": "ddp", "microbatch_size": 2}),
        (2, {"parallelism": "fsdp"}),
        (2, {"parallelism": "fsdp", "cpu_offload": True}),
        (2, {"parallelism": "fsdp", "microbatch_size": 2}),
        pytest.param(4, {"parallelism": "fsdp", "microbatch_size": 1}, marks=pytest.mark.slow),
        pytest.param(4, {"parallelism": "fsdp", "shard_size": 2}, marks=pytest.mark.slow),
    ],
)
def test_the_same_samples_and_losses_however_the_model_lies_over_the_ranks(
    cache_folder, alone, tmp_path, num_ranks, options
):
    train_on(num_ranks, cache_folder, tmp_path / "run", sample_every_steps=0, **CLIPPED, **options)
    assert samples(tmp_path / "run") == alone[1]
    assert_agree(final(tmp_path / "run"), alone[0])


def test_checkpoints_go_from_shards_to_one_rank_to_ddp_and_back_and_ranks_write_their_own_shards(
    cache_folder, alone, tmp_path
):
    run_dir = tmp_path / "run"
    attempts = [(2, "fsdp", 6), (1, "fsdp", 11), (2, "ddp", 16), (2, "fsdp", None)]
    for num_ranks, parallelism, kill_after in attempts:
        log = train_on(num_ranks, cache_folder, run_dir, kill_after, parallelism=parallelism, **CLIPPED)
        assert ("resumed at step" in log) == (kill_after != 6)
        seen = take_seen(run_dir)
    assert {step: whole(ranks) for step, ranks in seen.items()} == {step: alone[1][step] for step in seen}
    assert max(seen) == NUM_STEPS
    assert_agree(final(run_dir), alone[0])
    files = sorted(checkpoint_folder(run_dir, NUM_STEPS).glob("*.safetensors"))
    assert [path.name for path in files] == ["state-00000.safetensors", "state-00001.safetensors"]
    sizes = [path.stat().st_size for path in files]
    assert 0.8 < sizes[1] / sizes[0] < 1.0  # the first keeps the history too


def count_exchanges(rank, num, cache_folder):
    shards = [(p, p.with_suffix(".parquet")) for p in sorted(cache_folder.glob("part-*.safetensors"))]
    cache = LatentCache(shards, cache_folder / "null.safetensors", FINGERPRINT)
    counts = {}
    for parallelism, of_gradients in (("ddp", "c10d::allreduce_"), ("fsdp", "c10d::_reduce_scatter_base_")):
        for size in (3, 1):
            settings = ON_RANKS.model_copy(update={"parallelism": parallelism, "microbatch_size": size})
            model, average = make_models(cache)
            distributed = DistributedModel(model, average, settings, Ranks(rank, num, rank))
            optimizers = make_optimizers(model, settings)
            stepper = Stepper(distributed.for_training(), optimizers, distributed.average, settings, num)
            batches = BatchMaker(cache, BatchPlan(0, 6, cache.uids), settings, 0, Ranks(rank, num))
            stepper.step(batches.make(0))
            with torch.profiler.profile() as profile:
                stepper.step(batches.make(1))
            calls = {event.key: event.count for event in profile.key_averages()}
            counts[parallelism, size] = calls.get(of_gradients, 0)
    assert counts["ddp", 1] == counts["ddp", 3] > 0, counts
    assert counts["fsdp", 1] == counts["fsdp", 3] > 0, counts


def test_ranks_exchange_gradients_once_a_step_however_many_microbatches_it_has(cache_folder):
    assert on_ranks(2, count_exchanges, cache_folder) == [0, 0]


def test_how_the_model_lies_over_the_ranks_makes_no_other_run():
    sharded = Train(**{**SETTINGS.model_dump(), "parallelism": "fsdp", "shard_size": 2, "cpu_offload": True})
    assert run_key(MODEL, sharded, 0, "a") == run_key(MODEL, SETTINGS, 0, "a")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shard_size": 2}, "write parallelism: fsdp"),
        ({"cpu_offload": True}, "ddp computes on whole models; write parallelism: fsdp"),
        ({"parallelism": "fsdp", "shard_size": 1}, "shards nothing; write parallelism: ddp"),
        ({"parallelism": "fsdp", "optimizer": "muon"}, "needs whole matrices.*write optimizer: adamw"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, said):
    with pytest.raises(ValidationError, match=said):
        Train(**{**SETTINGS.model_dump(), **options})


def test_shards_of_one_rank_are_not_kept_on_the_cpu(cache_folder, tmp_path):
    settings = SETTINGS.model_copy(update={"parallelism": "fsdp", "cpu_offload": True})
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="one rank alone has none: start two or more, or leave it out"):
        DistributedModel(model, model, settings, Ranks())


def main(cached_folder, out):
    """One rank of a train stage in shards, which keeps the weights that it draws with."""
    out = Path(out)

    def draw_samples(model, step):
        save_file(model.pipeline.transformer.state_dict(), out / f"drawn-{step}.safetensors")

    run_stage(read_cached(Path(cached_folder)), out, SHARDED, draw_samples=draw_samples)


def test_what_is_drawn_and_exported_is_the_whole_average_though_it_is_trained_in_shards(tmp_path):
    write_cached(tmp_path)
    ranks = start_ranks(tmp_path, __file__, [tmp_path, tmp_path], 2).wait(240)
    assert [code for code, _ in ranks] == [0, 0], ranks
    exported = load_pipeline(tmp_path / "model").transformer.state_dict()
    drawn = load_file(tmp_path / "drawn-3.safetensors")
    for found, step in ((drawn, 3), (exported, 4)):
        saved = read_checkpoint(checkpoint_folder(tmp_path / "run", step)).tensors
        assert {f"ema/network.{n}" for n in found} == {n for n in saved if n.startswith("ema/")}
        for name, tensor in found.items():
            assert torch.equal(tensor, saved[f"ema/network.{name}"]), (step, name)
    assert not torch.equal(drawn["image_out.weight"], exported["image_out.weight"])


if __name__ == "__main__":
    main(*sys.argv[1:])
