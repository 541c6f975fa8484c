"""Encoding while training: the batches, losses and refusals are those of a training on a cache."""

import numpy as np
import polars as pl
import pytest
import torch
from bounds import assert_same_sums
from conftest import TinyProject
from family_cases import CASES, ENCODERS
from family_world import cached, outputs_in, settings_of, world  # noqa: F401
from test_cache import tables_in
from test_components import write_vae
from tiny_encoders import component

from darkroom.cache.fingerprint import expected_fingerprint
from darkroom.cache.online import cache_index
from darkroom.cache.stage import cache_null, cache_part
from darkroom.config.model import read_model
from darkroom.models.training_components import TrainingComponents
from darkroom.store import read_table, write_table
from darkroom.train.data import LatentCache
from darkroom.train.distributed import Ranks
from darkroom.train.inputs import SampleFiles, TrainInputs
from darkroom.train.loader import BatchMaker, Loader
from darkroom.train.online import OnlineEncoder
from darkroom.train.plan import BatchPlan
from darkroom.train.stage import train

CPU = torch.device("cpu")
# Of the longest sum in these encoders: a 3 x 3 convolution over the VAE's 16 channels.
NUM_SUMMANDS = 3 * 3 * 16


def index(world, family, folder, **changed):  # noqa: F811
    """What `train` takes first for a family's encoders online, the parts, and the tars; with the counts."""
    parts = cached(world, family)[1]
    settings = parts.cache.model_copy(update={"online": True, **changed})
    shard, null = folder / "online.safetensors", folder / "null.safetensors"
    encoders = (settings, parts.vae, parts.text_encoders)
    components = TrainingComponents(*encoders)
    counts = cache_index(tables_in(world.folder), components, shard, shard.with_suffix(".parquet"))
    cache_null(settings, parts.text_encoders, null)
    inputs = ([(shard, shard.with_suffix(".parquet"))], null, expected_fingerprint(*encoders))
    return inputs, components, counts


def online(inputs, parts, tar):
    shards, null, expected = inputs
    return OnlineEncoder(shards, [tar], null, expected, parts, CPU)


def flat(batch):
    """Every number of a batch, by name."""
    given = batch.conditioning
    texts = {f"text {e}": text for e, text in enumerate(given.text)}
    masks = {f"mask {e}": mask for e, mask in enumerate(given.text_mask) if mask is not None}
    sizes = {} if given.time_ids is None else {"time_ids": given.time_ids}
    drawn = {name: getattr(batch, name) for name in ("latents", "noise", "timestep_normal")}
    return {**drawn, **texts, **masks, **sizes, "pooled": given.pooled}


def assert_same(one, other):
    one, other = flat(one), flat(other)
    assert list(one) == list(other)
    for name, numbers in one.items():
        assert numbers.dtype == other[name].dtype and numbers.shape == other[name].shape, name
        if name in ("latents", "pooled") or name.startswith("text"):
            # Kernels add in another order where other pictures or texts are encoded beside these.
            assert_same_sums(other[name], numbers, NUM_SUMMANDS)
        else:
            assert torch.equal(numbers, other[name]), name


@pytest.mark.parametrize("family", ENCODERS)
def test_batches_are_those_of_the_cache(world, family, tmp_path):  # noqa: F811
    inputs, _ = cached(world, family)
    indexed, parts, _ = index(world, family, tmp_path)
    caches = LatentCache(*inputs), online(indexed, parts, world.folder / "part.tar")
    assert caches[0].sizes == caches[1].sizes and list(caches[0].uids) == list(caches[1].uids)
    assert all(caches[0].latent_shape(bucket) == caches[1].latent_shape(bucket) for bucket in caches[0].uids)
    settings = settings_of(family, caption_choice={"original": 0.4, "long": 0.3, "short": 0.3}, num_steps=9)
    makers = [BatchMaker(cache, BatchPlan(0, 4, cache.uids), settings, 0) for cache in caches]
    for step in range(6):
        assert_same(*(maker.make(step) for maker in makers))
    with Loader(makers[1], first_step=5) as resumed:
        assert_same(makers[0].make(5), next(iter(resumed)))
    plan = BatchPlan(0, 4, caches[1].uids)
    halves = [BatchMaker(caches[1], plan, settings, 0, Ranks(rank, 2)).make(3) for rank in (0, 1)]
    whole = makers[0].make(3)
    assert torch.equal(torch.cat([half.noise for half in halves]), whole.noise)
    assert_same_sums(torch.cat([half.latents for half in halves]), whole.latents, NUM_SUMMANDS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_are_rounded_to_the_precision_that_a_cache_would_have(world, tmp_path, dtype):  # noqa: F811
    indexed, parts, counts = index(world, "sd3", tmp_path, dtype=dtype)
    settings = parts.cache.model_copy(update={"online": False})
    shard, encoders = tmp_path / "cache.safetensors", (settings, parts.vae, parts.text_encoders)
    tables, tar = tables_in(world.folder), world.folder / "part.tar"
    components = TrainingComponents(*encoders)
    assert counts == cache_part(tables, tar, components, shard, shard.with_suffix(".parquet"))
    shards = [(shard, shard.with_suffix(".parquet"))]
    cache = LatentCache(shards, tmp_path / "null.safetensors", expected_fingerprint(*encoders))
    encoder = online(indexed, parts, world.folder / "part.tar")
    for step in range(3):
        plan, options = BatchPlan(0, 4, cache.uids), settings_of("sd3")
        assert_same(*(BatchMaker(source, plan, options, 0).make(step) for source in (cache, encoder)))


def test_a_training_has_the_losses_of_one_on_a_cache(world, tmp_path):  # noqa: F811
    family, section, _ = CASES["mmdit"]
    model, losses = read_model({"family": family, **section}), []
    stored, (indexed, parts, _) = cached(world, family), index(world, family, tmp_path)
    for name, (inputs, used, tars) in {
        "stored": (*stored, ()), "online": (indexed, parts, [world.folder / "part.tar"]),
    }.items():  # fmt: skip
        out = outputs_in(tmp_path / name)
        settings = settings_of(family, num_steps=6)
        training = TrainInputs(SampleFiles(*inputs, tars), used, model, settings, 3)
        train(training, out, device="cpu", log=lambda _: None)
        losses.append(read_table(out.history)["loss"].to_numpy())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[0].std() > 1e-3


def test_a_stale_index_and_a_damaged_tar_are_refused(world, tmp_path):  # noqa: F811
    tar = world.folder / "part.tar"
    (shards, null, _), parts, _ = index(world, "unet-sd", tmp_path)
    other = component(write_vae(tmp_path / "vae"), "vae")
    weights = tmp_path / "vae/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    expected = expected_fingerprint(parts.cache, other, parts.text_encoders)
    with pytest.raises(ValueError, match=r"online\.safetensors: stale shard: vae is .* Run the cache stage"):
        online((shards, null, expected), parts, tar)
    expected = expected_fingerprint(parts.cache, parts.vae, parts.text_encoders)
    table = read_table(shards[0][1])
    write_table(tmp_path / "moved.parquet", table.with_columns(pl.col("crop_left") + 1))
    with pytest.raises(ValueError, match=r"moved\.parquet: is not the table of"):
        online(([(shards[0][0], tmp_path / "moved.parquet")], null, expected), parts, tar)
    (tmp_path / "cut.tar").write_bytes(tar.read_bytes()[:700])
    encoder = online((shards, null, expected), parts, tmp_path / "cut.tar")
    loader = Loader(BatchMaker(encoder, BatchPlan(0, 4, encoder.uids), settings_of("unet-sd"), 0), 0)
    with loader, pytest.raises(ValueError, match=r"cut\.tar: ends before byte .*make the part again"):
        next(iter(loader))


@pytest.fixture(scope="module")
def project(finished_project: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    copy = finished_project.copy(tmp_path_factory.mktemp("online") / "copy")
    values = {"extends": "demo", "description": "Encodes while it trains", "cache": {"online": True}}
    copy.write("config/runs/online.yaml", values)
    return copy


@pytest.mark.slow
def test_a_run_that_says_so_encodes_during_training_on_two_ranks(project: TinyProject) -> None:
    run, results = ["--config", "run=online"], project.folder / "results"
    planned = project.planned("train", *run)
    assert {"cache_part", "cache_null", "cache_manifest", "train_run"} <= planned
    assert not planned & {"download_part", "filter_part", "recaption_part"}
    ranks = ["--set-resources", "train_run:mpi=torchrun", "train_run:tasks=2"]
    project.run("snakemake", "train", "--quiet", "all", *run, *ranks)
    losses = [
        read_table(results / f"runs/{name}/train/history.parquet")["loss"].to_numpy()
        for name in ("demo", "online")
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    sizes = [
        sum(path.stat().st_size for path in (project.results("cache", name)).glob("part-*.safetensors"))
        for name in ("demo", "online")
    ]
    assert sizes[1] < sizes[0] / 20
    assert project.planned("train", *run, *ranks) == set()
    # Training reads the tars: one that is gone is made again before it.
    (results / "datasets/demo/download/part-00000.tar").unlink()
    assert {"download_part", "train_run"} <= project.planned("train", "-R", "train_run", *run)
