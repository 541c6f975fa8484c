"""Base weights in 8 and 4 bits, with bitsandbytes: run by `test_quantized.py`, where that can be had."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit
from test_train_data import FINGERPRINT, write_cache
from test_train_loop import PARTS, SETTINGS, Killed, assert_equal, kill_at
from torch import nn

from darkroom.families.base import LoRA
from darkroom.families.mmdit import MMDiTModel
from darkroom.formats.lora import save_lora
from darkroom.models.families import build_denoiser
from darkroom.models.lora import merged
from darkroom.models.quantized import QuantizedLinear, quantize
from darkroom.train.data import LatentCache
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun

DTYPES = pytest.mark.parametrize("dtype", ["int8", "nf4"])
# NF4 of a normal weight is 9 % of its length off; int8 by rows under 1 %.
ERRORS = {"int8": 0.01, "nf4": 0.12}
TARGETS = ("qkv", "mlp_in")


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(128, 96)


@DTYPES
def test_weights_are_what_the_library_makes_of_them(dtype: str) -> None:
    plain = layer()
    kept = QuantizedLinear(plain, dtype)
    if dtype == "nf4":
        theirs = Linear4bit(128, 96, quant_type="nf4", compress_statistics=False)
        theirs.load_state_dict(plain.state_dict())
        theirs = theirs.to("cpu")
        packed, state = functional.quantize_4bit(plain.weight.detach(), quant_type="nf4", blocksize=64)
        torch.testing.assert_close(kept.weight, functional.dequantize_4bit(packed, state), rtol=0, atol=0)
        input = torch.randn(3, 128)
        torch.testing.assert_close(kept(input), theirs(input), rtol=1e-5, atol=1e-5)
    else:
        # The nearest of 255 steps, of a weight that was rounded to half precision before.
        steps = plain.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        assert bool(((kept.weight - plain.weight).abs() <= 0.6 * steps).all())
    error = (kept.weight - plain.weight).norm() / plain.weight.norm()
    assert 0 < float(error) < ERRORS[dtype]
    assert [name for name, _ in kept.named_parameters()] == ["bias"]
    num_bytes = sum(t.numel() * t.element_size() for t in (kept.codes, kept.scales))
    assert num_bytes < 96 * 128 * 4 / {"int8": 3.8, "nf4": 7}[dtype]


@DTYPES
@pytest.mark.parametrize("is_autocast", [False, True])
def test_products_and_gradients_are_those_of_the_weight_they_stand_for(dtype: str, is_autocast: bool) -> None:
    kept = QuantizedLinear(layer(), dtype)
    found, expected = [], []
    for forward, told in (
        (kept, found), (lambda x: F.linear(x, kept.weight, kept.bias), expected),
    ):  # fmt: skip
        input = torch.linspace(-1, 1, 2 * 5 * 128).reshape(2, 5, 128).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
            output = forward(input)
        output.float().square().sum().backward()
        told += [output, input.grad]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs)


def network(dtype: str = "float32", method: str = "lora", seed: int = 0):
    lora = LoRA(rank=4, alpha=8.0, targets=TARGETS, base_dtype=dtype, method=method)
    model = MMDiTModel(num_blocks=2, num_heads=4, head_dim=16, patch_size=2, lora=lora)
    sizes = {"latent_channels": 4, "text_dim": 8, "pooled_dim": 0}
    built = build_denoiser(model, sizes, seed)
    return built


def test_the_linear_layers_of_the_blocks_are_kept_so_and_no_others() -> None:
    built = network("nf4").network
    kept = {name for name, m in built.named_modules() if isinstance(m, QuantizedLinear)}
    plain = {name for name, m in built.named_modules() if type(m) is nn.Linear and "lora_" not in name}
    assert kept and all(name.startswith("blocks.") for name in kept)
    assert plain and not any(name.startswith("blocks.") for name in plain)
    with pytest.raises(ValueError, match="names no blocks with linear layers; write base_dtype: float32"):
        quantize(nn.Sequential(layer()), "nf4")


@DTYPES
def test_merged_it_is_a_plain_network_that_computes_the_same(dtype: str) -> None:
    built = network(dtype)
    for name, weight in built.named_parameters():
        if "lora_" in name:
            nn.init.normal_(weight, std=0.1)
    whole = merged(built.network)
    assert not any(isinstance(m, QuantizedLinear) or "lora" in type(m).__name__ for m in whole.modules())
    pairs = [
        (a, b)
        for a, b in zip(
            whole.blocks[0].image.modules(), built.network.blocks[0].image.modules(), strict=False
        )
        if type(a) is nn.Linear
    ]
    assert pairs
    inside = built.network.get_submodule("blocks.0.image.qkv")
    input = torch.randn(3, inside.in_features)
    torch.testing.assert_close(whole.get_submodule("blocks.0.image.qkv")(input), inside(input))


def run(cache: LatentCache, folder: Path, dtype: str, on_sample=None):
    torch.set_num_threads(1)
    lora = LoRA(rank=4, alpha=8.0, targets=TARGETS, base_dtype=dtype)
    model = MMDiTModel(num_blocks=1, num_heads=4, head_dim=16, patch_size=2, lora=lora)
    built = build_denoiser(model, cache.sizes, seed=0)
    with torch.no_grad():  # a network from scratch predicts zero, whatever its adapters are
        for name, weight in built.named_parameters():
            if not weight.any() and "lora_" not in name:
                weight.fill_(0.05)
    average = copy.deepcopy(built).requires_grad_(False)
    settings = SETTINGS.model_copy(update={"sample_every_steps": 1})
    where = TrainingRun(folder, log=lambda _: None, on_sample=on_sample)
    rows = Trainer(Training(cache, built, average, settings, 0), where).train().rows
    return ({**built.state_dict(), **{f"ema/{k}": v for k, v in average.state_dict().items()}}, rows), average


@DTYPES
def test_a_training_is_exact_through_a_kill_and_leaves_the_base_as_it_is(tmp_path: Path, dtype: str) -> None:
    cache = LatentCache(*write_cache(tmp_path, PARTS), FINGERPRINT)
    whole, average = run(cache, tmp_path / "whole", dtype)
    with pytest.raises(Killed):
        run(cache, tmp_path / "killed", dtype, kill_at(13))
    again, _ = run(cache, tmp_path / "killed", dtype)
    assert_equal(again, whole)
    before, _ = run(cache, tmp_path / "float32", "float32")
    codes = [name for name in whole[0] if name.endswith(("codes", "scales"))]
    assert codes and all(
        torch.equal(whole[0][name], whole[0][f"ema/{name}"]) for name in codes if "ema/" not in name
    )
    trained = [name for name in whole[0] if "lora_B" in name]
    assert trained and all(whole[0][name].any() for name in trained)
    # The losses are those of whole weights, as far as the codes are these.
    np.testing.assert_allclose(whole[1][:, 0], before[1][:, 0], rtol=0, atol=0.05)
    assert not np.array_equal(whole[1][:, 0], before[1][:, 0])
    save_lora(average, tmp_path)
    assert (tmp_path / "pytorch_lora_weights.safetensors").exists()
