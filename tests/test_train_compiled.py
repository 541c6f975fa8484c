"""Compiled blocks: the losses of uncompiled ones, no more graphs than shapes, and exact through kills."""

import copy
import re

import numpy as np
import pytest
import torch
from test_train_data import FINGERPRINT, write_cache
from test_train_loop import PARTS, SETTINGS, Killed, assert_equal, kill_at

from darkroom.config.compiling import check_compiler, missing_compiler
from darkroom.families.mmdit import MMDiTModel
from darkroom.models.families import build_denoiser
from darkroom.train import compile_choice
from darkroom.train.checkpoint import run_key
from darkroom.train.compile_choice import num_compiled, resolve_compile
from darkroom.train.compiled import num_kinds
from darkroom.train.data import LatentCache
from darkroom.train.distributed import Ranks
from darkroom.train.parallel import network_blocks
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun

CPU = torch.device("cpu")
MODEL = MMDiTModel(num_blocks=1, num_heads=2, head_dim=8, patch_size=2)
COMPILED = SETTINGS.model_copy(
    update={"compile": "on", "num_steps": 8, "checkpoint_every_steps": 2, "sample_every_steps": 1}
)


def run(cache, run_dir, settings, on_sample=None):
    torch.set_num_threads(1)
    lines, model = [], build_denoiser(MODEL, cache.sizes, seed=0)
    with torch.no_grad():  # those that begin at zero would keep the blocks from the loss
        generator = torch.Generator().manual_seed(0)
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(std=0.1, generator=generator)
    average = copy.deepcopy(model).requires_grad_(False)
    where = TrainingRun(run_dir, log=lines.append, on_sample=on_sample)
    rows = Trainer(Training(cache, model, average, settings, 0), where).train().rows
    weights = {**model.state_dict(), **{f"ema/{k}": v for k, v in average.state_dict().items()}}
    return (weights, rows), lines


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler() or "it is there")
def test_killed_and_resumed_it_ends_with_the_same_bits_and_its_losses_are_the_uncompiled_ones(
    tmp_path, monkeypatch
):
    """On kernels of this machine's compiler, which the second and third start find in inductor's own cache."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    # A step that would run uncompiled fails here.
    set_stance = torch.compiler.set_stance
    monkeypatch.setattr(torch.compiler, "set_stance", lambda stance: set_stance("fail_on_recompile"))
    cache = LatentCache(*write_cache(tmp_path, PARTS), FINGERPRINT)
    whole, lines = run(cache, tmp_path / "whole", COMPILED)
    (told,) = [line for line in lines if "compiled" in line]
    found = re.fullmatch(
        r"train: compiled 1 JointBlock: (\d+) graphs for (\d+) shapes of batches \(at most \2\) in \d+\.\d s",
        told,
    )
    # Three buckets, with padded captions and without: batches of all sizes share a graph of each.
    assert found and int(found[1]) <= 2 and int(found[2]) == 2 * len(cache.uids)
    with pytest.raises(Killed):
        run(cache, tmp_path / "killed", COMPILED, kill_at(5))
    again, lines = run(cache, tmp_path / "killed", COMPILED)
    assert any("resumed at step 4" in line for line in lines) and any("compiled 1" in line for line in lines)
    assert_equal(again, whole)
    eager, lines = run(cache, tmp_path / "eager", COMPILED.model_copy(update={"compile": "off"}))
    assert not any("compiled" in line for line in lines)
    np.testing.assert_allclose(whole[1][:, 0], eager[1][:, 0], rtol=0, atol=1e-3)


def test_blocks_of_one_class_and_shape_are_one_kind():
    sizes = {"latent_channels": 4, "text_dim": 8, "pooled_dim": 0}
    model = build_denoiser(MODEL.model_copy(update={"num_blocks": 4}), sizes, seed=0)
    assert num_compiled(model) == {"JointBlock": 4}
    assert num_kinds(network_blocks(model)) == 2  # the last one's text has no output


def test_without_a_compiler_it_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ValueError, match=r"there is no C\+\+ compiler \(no-such-compiler\): install .*compile: off"
    ):
        check_compiler("on")
    check_compiler("off")
    check_compiler("auto")


def test_auto_compiles_on_a_gpu_alone_and_a_training_goes_on_as_it_began(tmp_path, monkeypatch):
    lines, auto = [], SETTINGS.model_copy(update={"compile": "auto"})

    def chosen():
        return resolve_compile(auto, tmp_path, Ranks(), CPU, lines.append).compile

    assert chosen() == "off" and lines == ["train: compile auto is off: the device is a cpu"]
    monkeypatch.setattr(compile_choice, "choose", lambda device: ("on", "it is another machine"))
    (tmp_path / "step-00000004").mkdir()
    assert chosen() == "off" and "goes on with compile off, as it began" in lines[-1]
    (tmp_path / "step-00000004").rmdir()
    assert chosen() == "on"


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), "off"), ((8, 0), "on"), ((9, 0), "on")])
def test_auto_asks_for_a_gpu_of_compute_capability_8(monkeypatch, capability, chosen):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(compile_choice, "missing_compiler", lambda: "")
    found, why = compile_choice.choose(torch.device("cuda"))
    assert found == chosen and f"compute capability is {capability[0]}.{capability[1]}" in why


def test_a_training_that_does_not_name_it_keeps_its_key():
    keys = [
        run_key(MODEL, SETTINGS.model_copy(update={"compile": compile}), 0, "cache")
        for compile in ("off", "on")
    ]
    assert keys[0] == run_key(MODEL, SETTINGS, 0, "cache") != keys[1]
    assert "compile" not in SETTINGS.model_dump()
