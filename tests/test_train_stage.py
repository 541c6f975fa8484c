"""The train stage from cache shards to a model folder, with real (tiny) components."""

import numpy as np
import pytest
import torch
from test_cache import SETTINGS as CACHE
from test_cache import make, write_part
from test_components import write_clip, write_vae

from darkroom.cache.fingerprint import expected_fingerprint
from darkroom.cache.stage import cache_null
from darkroom.components.base import Component
from darkroom.config.run import Train
from darkroom.exported.mmdit import MMDiT
from darkroom.families.mmdit import MMDiTModel
from darkroom.formats.diffusers import load_pipeline
from darkroom.models.families import build_denoiser
from darkroom.models.training_components import TrainingComponents
from darkroom.store import read_table, sha256_path
from darkroom.train import samples, stage
from darkroom.train.checkpoint import checkpoint_folder, read_checkpoint
from darkroom.train.inputs import SampleFiles, TrainInputs
from darkroom.train.record import COLUMNS
from darkroom.train.stage import TrainOutputs, train
from darkroom.train.trainer import Trainer

MODEL = MMDiTModel(num_blocks=1, num_heads=2, head_dim=8, patch_size=2)
SETTINGS = Train(
    num_steps=6,
    global_batch_size=4,
    microbatch_size=3,
    learning_rate=1e-2,
    timestep_shift=2.0,
    checkpoint_every_steps=3,
    log_every_steps=2,
    sample_every_steps=4,
    num_threads=1,
)


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    return write_cached(tmp_path_factory.mktemp("cached"))


def write_cached(folder):
    """`read_cached` of one new part in `folder`."""
    vae = Component(kind="vae", path=str(write_vae(folder / "vae")))
    clip = Component(kind="text_encoder", path=str(write_clip(folder / "clip")))
    write_part(folder)
    make(folder, (vae, [clip]))
    cache_null(CACHE, [clip], folder / "null.safetensors")
    return read_cached(folder)


def read_cached(folder):
    """(shards, null, expected fingerprint, VAE, text encoder) of the cached part in `folder`."""
    vae = Component(kind="vae", path=str(folder / "vae"))
    clip = Component(kind="text_encoder", path=str(folder / "clip"))
    shards = [(folder / "cache.safetensors", folder / "cache.parquet")]
    return shards, folder / "null.safetensors", expected_fingerprint(CACHE, vae, [clip]), vae, clip


def run(cached, folder, settings=SETTINGS, model=MODEL, **options):
    shards, null, expected, vae, clip = cached
    options = {"log": lambda _: None, **options}
    run_dir = options.pop("run_dir", folder / "run")
    components = TrainingComponents(CACHE, vae, [clip])
    inputs = TrainInputs(SampleFiles(shards, null, expected), components, model, settings, 3)
    outputs = TrainOutputs(run_dir, folder / "model", folder / "untrained", folder / "history.parquet")
    return train(inputs, outputs, **options)


@pytest.fixture(scope="module")
def trained(cached, tmp_path_factory):
    folder, seen = tmp_path_factory.mktemp("trained"), []

    def draw_samples(model, step):
        pipeline = model.pipeline
        seen.append((step, type(pipeline.transformer).__name__, pipeline.config.max_text_tokens))
        return np.zeros((8, 8, 3), np.uint8)

    return folder, run(cached, folder, draw_samples=draw_samples), seen


def test_the_model_folder_holds_the_averaged_weights(trained):
    folder, _, _ = trained
    saved = read_checkpoint(checkpoint_folder(folder / "run", 6)).tensors
    pipeline = load_pipeline(folder / "model")
    for name, tensor in pipeline.transformer.state_dict().items():
        assert torch.equal(tensor, saved[f"ema/network.{name}"])
        assert tensor.dtype == torch.float32
    assert not torch.equal(saved["ema/network.image_out.weight"], saved["weights/network.image_out.weight"])
    assert pipeline.scheduler.config.shift == SETTINGS.timestep_shift


def test_the_untrained_folder_holds_the_weights_of_the_seed(trained):
    folder, _, _ = trained
    initial = MMDiT.from_pretrained(str(folder / "untrained" / "transformer")).state_dict()
    sizes = {"latent_channels": 4, "text_dim": 64, "pooled_dim": 48}
    expected = build_denoiser(MODEL, sizes, seed=3).network.state_dict()
    assert initial.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(initial[name], tensor), name


def test_the_history_has_a_row_a_step_and_no_times(trained):
    folder, _, _ = trained
    history = read_table(folder / "history.parquet")
    assert history.columns == ["step", *COLUMNS]
    assert history["step"].to_list() == list(range(1, 7))
    assert history["loss"].null_count() == 0 and history["loss"].is_finite().all()
    assert history["loss_bin_0"].null_count() > 0  # four pictures do not fill ten bins


def test_the_counts_account_for_the_data(trained):
    _, counts, _ = trained
    assert counts["steps"] == 6 and counts["samples_seen"] == counts["num_visits"] == 24
    assert counts["num_samples"] == 7 == sum(counts["samples_by_bucket"].values())
    assert counts["num_parameters"] > 1000


def test_pictures_are_drawn_with_the_pipeline_when_due(trained):
    assert trained[2] == [(4, "MMDiT", CACHE.max_text_tokens)]


def test_no_encoder_is_loaded_until_pictures_are_drawn_or_the_model_is_exported(
    cached, tmp_path, monkeypatch
):
    loaded, during, steps = [], [], Trainer.train
    for name in ("load_vae", "load_text_encoder"):
        load = getattr(stage, name)
        monkeypatch.setattr(stage, name, lambda part, load=load: (loaded.append(part.kind), load(part))[1])
    monkeypatch.setattr(Trainer, "train", lambda *to: (steps(*to), during.extend(loaded))[0])
    run(cached, tmp_path)
    assert during == [] and sorted(loaded) == ["text_encoder", "vae"]


def test_after_drawing_the_encoders_go_back_to_the_cpu_and_the_average_stays(cached, tmp_path, monkeypatch):
    moves = []
    monkeypatch.setattr(
        samples, "moved", lambda m, device: (moves.append((type(m).__name__, device.type)), m)[1]
    )
    run(cached, tmp_path, draw_samples=lambda *_: moves.append("drawn"), device="cpu")
    after = moves[moves.index("drawn") + 1 :]
    assert sorted(after) == [("AutoencoderKL", "cpu"), ("CLIPTextModelWithProjection", "cpu")]


def test_trained_again_every_output_has_the_same_bytes(cached, trained, tmp_path):
    folder, counts, _ = trained
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run(cached, tmp_path) == counts
        assert torch.get_num_threads() == 2 and not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(threads)
    for name in ("model", "untrained", "history.parquet"):
        assert sha256_path(tmp_path / name) == sha256_path(folder / name), name


def test_a_finished_run_writes_its_outputs_again_without_training(cached, trained, tmp_path):
    folder, _, _ = trained
    lines = []
    run(cached, tmp_path, run_dir=folder / "run", log=lines.append)
    assert not [line for line in lines if "img/s" in line]
    for name in ("model", "untrained", "history.parquet"):
        assert sha256_path(tmp_path / name) == sha256_path(folder / name), name


def test_a_stale_cache_is_refused_before_any_step(cached, tmp_path):
    shards, null, expected, vae, clip = cached
    with pytest.raises(ValueError, match="stale shard: vae is"):
        run((shards, null, {**expected, "vae": "0" * 64}, vae, clip), tmp_path)
    assert not list(tmp_path.iterdir())


def test_latents_that_patches_do_not_fit_are_refused_by_bucket(cached, tmp_path):
    with pytest.raises(ValueError, match=r"model.patch_size 3 does not divide the .* latents of bucket"):
        run(cached, tmp_path, model=MODEL.model_copy(update={"patch_size": 3}))


def test_more_ranks_than_pictures_in_a_batch_are_refused(cached, tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": "5", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="global_batch_size 4 is smaller than the 5 ranks"):
        run(cached, tmp_path)
