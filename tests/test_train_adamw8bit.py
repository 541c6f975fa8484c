"""AdamW with moments of 8 bits, by bitsandbytes: refused without it, exact through checkpoints with it."""

import copy
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_train_data import FINGERPRINT, write_cache
from test_train_loop import PARTS, SETTINGS, Killed, assert_equal, kill_at

from darkroom.config.optional import check_optimizer
from darkroom.config.run import Train
from darkroom.families.mmdit import MMDiTModel
from darkroom.models.families import build_denoiser
from darkroom.train.checkpoint import checkpoint_folder, read_checkpoint
from darkroom.train.data import LatentCache
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun

MODEL = MMDiTModel(num_blocks=1, num_heads=4, head_dim=16, patch_size=2)
IN_8_BITS = SETTINGS.model_copy(update={"optimizer": "adamw8bit", "sample_every_steps": 1})


def test_without_bitsandbytes_it_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(
        ValueError, match=r"train.optimizer: adamw8bit needs .* run `pip install bitsandbytes`"
    ):
        check_optimizer("adamw8bit")
    check_optimizer("adamw")


def test_in_shards_it_is_refused():
    with pytest.raises(ValidationError, match=r"adamw8bit scales moments by blocks of whole weights.*adamw"):
        Train(**{**SETTINGS.model_dump(), "optimizer": "adamw8bit", "parallelism": "fsdp"})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return LatentCache(*write_cache(tmp_path_factory.mktemp("cache"), PARTS), FINGERPRINT)


def run(cache, run_dir, settings, on_sample=None):
    torch.set_num_threads(1)
    model = build_denoiser(MODEL, cache.sizes, seed=0)
    average = copy.deepcopy(model).requires_grad_(False)
    where = TrainingRun(run_dir, log=lambda _: None, on_sample=on_sample)
    rows = Trainer(Training(cache, model, average, settings, 0), where).train().rows
    return {**model.state_dict(), **{f"ema/{k}": v for k, v in average.state_dict().items()}}, rows


def test_killed_and_resumed_it_ends_with_the_same_bits_and_its_losses_are_near_adamws(cache, tmp_path):
    pytest.importorskip("bitsandbytes", reason="an optional package: pip install bitsandbytes")
    whole = run(cache, tmp_path / "whole", IN_8_BITS)
    with pytest.raises(Killed):
        run(cache, tmp_path / "killed", IN_8_BITS, kill_at(13))
    assert_equal(run(cache, tmp_path / "killed", IN_8_BITS), whole)
    saved, again = (
        read_checkpoint(checkpoint_folder(tmp_path / name, IN_8_BITS.num_steps)).tensors
        for name in ("whole", "killed")
    )
    assert saved.keys() == again.keys()
    for name, tensor in saved.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)
    name = "network.blocks.0.image.qkv.weight"
    moments = [saved[f"state{place}/{name}"] for place in (1, 2)]
    assert all(m.dtype == torch.uint8 and m.shape == saved[f"weights/{name}"].shape for m in moments)
    adamw = run(cache, tmp_path / "adamw", IN_8_BITS.model_copy(update={"optimizer": "adamw"}))
    assert not np.array_equal(whole[1][:, 0], adamw[1][:, 0])
    np.testing.assert_allclose(whole[1][:, 0], adamw[1][:, 0], rtol=0, atol=1e-3)
