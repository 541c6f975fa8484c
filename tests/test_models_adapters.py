"""Adapters change nothing at first, learn, are merged to what they compute, and go on after a kill."""

import copy

import pytest
import torch
from test_models_mmdit import awake, inputs
from test_train_loop import Killed, assert_equal, cache, changed, kill_at  # noqa: F401 (a fixture)
from torch import nn

from darkroom.config.model import read_model
from darkroom.families.base import LoRA
from darkroom.models.families import build_denoiser
from darkroom.models.lora import add_lora, merged
from darkroom.train.step import make_optimizers
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun

TARGETS = ("qkv", "mlp_in")
KINDS = {
    "lora": {},
    "dora": {"method": "dora"},
    "patterns": {"rank_pattern": {"qkv": 3}},
    "lokr": {"method": "lokr"},
}


def adapted(network: nn.Module, **options) -> nn.Module:
    add_lora(network, LoRA(**{"rank": 2, "alpha": 3.5, "targets": TARGETS, **options}), seed=0)
    return network


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_adapters_change_nothing_and_merged_ones_compute_the_same(kind):
    network = awake()
    plain = copy.deepcopy(network)
    adapted(network, **KINDS[kind])
    assert torch.equal(network(*inputs()), plain(*inputs()))
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    # Adapters' first gradients are those of what is zero at first; all have some after a step.
    network(*inputs()).square().sum().backward()
    torch.optim.SGD(trained.values(), lr=0.05).step()
    network(*inputs()).square().sum().backward()
    assert trained and all(p.grad.any() for p in trained.values())
    assert ("lora_magnitude_vector" in "".join(trained)) == (kind == "dora")
    with torch.no_grad():
        for weight in trained.values():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    folded = merged(network)
    assert folded.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(folded(*inputs()), network(*inputs()), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(folded(*inputs()), plain(*inputs()), atol=1e-3)


class Layers(nn.Module):
    """A linear layer and a convolution."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Conv2d(3, 4, 3)


def test_dora_is_the_magnitude_times_the_direction_of_the_adapted_weight():
    """Liu et al. 2024, equation 5, with a magnitude for each output."""
    layers = adapted(Layers(), method="dora", targets=("first", "second"))
    with torch.no_grad():
        for weight in layers.parameters():
            weight.add_(torch.rand_like(weight))
    for layer, folded in ((getattr(layers, n), getattr(merged(layers), n)) for n in ("first", "second")):
        base = layer.base_layer.weight
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        both = base.flatten(1) + 3.5 / 2 * up.flatten(1) @ down.flatten(1)
        magnitude = layer.lora_magnitude_vector["default"].weight.reshape(-1, 1)
        expected = magnitude * both / both.norm(dim=1, keepdim=True)
        torch.testing.assert_close(folded.weight.flatten(1), expected)


def test_magnitudes_do_not_decay_as_other_vectors_do_not():
    layers = adapted(Layers(), method="dora", targets=("first", "second"))
    (optimizer,) = make_optimizers(layers, changed())
    decays = {id(p): group["weight_decay"] > 0 for group in optimizer.param_groups for p in group["params"]}
    names = {name: decays[id(p)] for name, p in layers.named_parameters() if p.requires_grad}
    assert len(names) == 6 and names == {name: "magnitude" not in name for name in names}


def test_dora_of_rows_of_zeros_is_refused():
    layers = Layers()
    with torch.no_grad():
        layers.second.weight[1] = 0
    with pytest.raises(ValueError, match=r"model.lora.method: dora has no magnitude for outputs of second"):
        adapted(layers, method="dora", targets=("first", "second"))
    adapted(layers, targets=("first", "second"))


def test_the_longest_end_of_a_pattern_counts_and_one_that_no_layer_has_is_refused():
    network = awake()
    names = [name for name, m in network.named_modules() if name.endswith("qkv")]
    inner = next(name for name in names if "blocks.1." in name)
    adapted(network, rank_pattern={"qkv": 3, inner: 5}, alpha_pattern={inner: 1.0})
    for name in names:
        layer = network.get_submodule(name)
        is_inner = name == inner
        assert layer.r["default"] == (5 if is_inner else 3)
        assert layer.scaling["default"] == (1.0 / 5 if is_inner else 3.5 / 3)
    with pytest.raises(ValueError, match=r"model.lora.rank_pattern: the model has no layer 'blocks.9.qkv'"):
        adapted(awake(), rank_pattern={"blocks.9.qkv": 5})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lora"])
def test_a_killed_training_of_adapters_goes_on_to_the_same_weights(cache, tmp_path, kind):  # noqa: F811
    settings = changed(num_steps=8, checkpoint_every_steps=3)
    values = {"num_blocks": 1, "num_heads": 2, "head_dim": 8}
    section = read_model({"family": "mmdit", **values})
    lora = LoRA(**{"rank": 2, "targets": TARGETS, **KINDS[kind]})

    def train(folder, settings, on_sample=None):
        model = build_denoiser(section, cache.sizes, seed=0)
        for weight in model.parameters():  # behind the zeros of a network from scratch nothing is learnt
            nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
        add_lora(model.network, lora, seed=0)
        ema = copy.deepcopy(model).requires_grad_(False)
        first = copy.deepcopy(model.state_dict())
        run = TrainingRun(folder, log=lambda _: None, on_sample=on_sample)
        rows = Trainer(Training(cache, model, ema, settings, seed=0), run).train().rows
        moved = {name for name, t in model.state_dict().items() if not torch.equal(t, first[name])}
        assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
        return {**model.state_dict(), **{f"ema/{k}": t for k, t in ema.state_dict().items()}}, rows

    whole = train(tmp_path / "whole", settings)
    with pytest.raises(Killed):
        train(tmp_path / "killed", settings.model_copy(update={"sample_every_steps": 1}), kill_at(5))
    assert_equal(train(tmp_path / "killed", settings), whole)
