"""Adapters through peft (LoRA, DoRA, LoKr), for every family alike: put in, trained, merged or taken out."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.families.base import LoRA, is_end, nearest
from darkroom.models.quantized import quantize, to_plain


def add_lora(network: nn.Module, settings: LoRA, seed: int) -> None:
    """Put adapters on the layers that `settings.targets` names, in place; all else is frozen.

    They change nothing at first, so the network computes what it did.

    Raises:
        ValueError: no layer has a target's or a pattern's name; the message has the nearest that one has. Or a
            layer has no magnitude that DoRA could train, or the network no layers to keep in `base_dtype`.
    """
    from peft import inject_adapter_in_model

    if settings.base_dtype != "float32":
        quantize(network, settings.base_dtype)
    layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    for option in ("targets", "rank_pattern", "alpha_pattern"):
        for end in getattr(settings, option):
            _check_end(option, end, list(layers))
    adapted = [name for name in layers if any(is_end(target, name) for target in settings.targets)]
    if settings.method == "dora":
        for name in adapted:
            _check_magnitudes(name, layers[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(_config(settings, adapted), network)


def _config(settings: LoRA, adapted: Sequence[str]) -> Any:
    """Of peft."""
    from peft import LoKrConfig, LoraConfig

    alpha: Any = settings.alpha  # peft's annotation says int, and divides
    common: dict[str, Any] = {
        "r": settings.rank,
        "target_modules": list(settings.targets),
        "rank_pattern": _by_layer(settings.rank_pattern, adapted),
        "alpha_pattern": _by_layer(settings.alpha_pattern, adapted),
    }
    if settings.method == "lokr":
        # As LyCORIS begins: the second factor is zero, and the first is not.
        return LoKrConfig(alpha=alpha, init_weights="lycoris", **common)
    return LoraConfig(lora_alpha=alpha, use_dora=settings.method == "dora", **common)


def _check_end(option: str, end: str, layers: Sequence[str]) -> None:
    if not any(is_end(end, name) for name in layers):
        ends = sorted({".".join(name.split(".")[-n:]) for name in layers for n in (1, 2, 3, 4)})
        raise ValueError(f"model.lora.{option}: the model has no layer {end!r}{nearest(end, ends)}")


def _check_magnitudes(name: str, layer: nn.Linear | nn.Conv2d) -> None:
    """DoRA divides by the norm of each output's weights."""
    if not layer.weight.flatten(1).any(dim=1).all():
        raise ValueError(
            f"model.lora.method: dora has no magnitude for outputs of {name} whose weights are all zero, as a"
            " network from scratch begins; train it on pretrained weights, or write method: lora"
        )


def _by_layer(pattern: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Any]:
    """Layer -> value of the longest of the pattern's ends that it has.

    peft takes ends as regular expressions and the first that fits, in an order that a file of adapters loses.
    """
    found = {}
    for name in layers:
        ends = [end for end in pattern if is_end(end, name)]
        if ends:
            found[name] = pattern[max(ends, key=len)]
    return found


def has_lora(network: nn.Module) -> bool:
    """Whether a network carries adapters."""
    return hasattr(network, "peft_config")


def merged(network: nn.Module) -> Any:
    """A copy of a network with its adapters added to the weights; a network without adapters is given back.

    Weights that were kept in 8 or 4 bits are what these stand for, in float32.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not has_lora(network):
        return network
    network = copy.deepcopy(network)
    to_plain(network)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()  # type: ignore[attr-defined]
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, layer.get_base_layer())
    del network.peft_config
    return network


def lora_state(network: nn.Module) -> dict[str, Tensor]:
    """The adapters' weights by name, as diffusers' `load_lora_weights` reads them."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(network))


def lora_config(network: nn.Module) -> dict[str, Any]:
    """What peft says of a network's adapters, sets as sorted lists."""
    (config,) = network.peft_config.values()  # type: ignore[operator,union-attr]
    values: dict[str, Any] = config.to_dict()
    return {name: sorted(value) if isinstance(value, set) else value for name, value in values.items()}


def dora_norm_ratios(network: nn.Module) -> dict[str, Tensor]:
    """Layer -> (rows,): norms of the base's weights over those of base and adapters; of DoRA's adapters alone."""
    from peft.tuners.lora import LoraLayer

    found = {}
    for name, layer in network.named_modules():
        if isinstance(layer, LoraLayer) and layer.lora_magnitude_vector:
            weight: Any = layer.get_base_layer().weight
            base: Tensor = weight.detach()
            with torch.no_grad():
                adapted: Tensor = base + layer.get_delta_weight("default")  # type: ignore[attr-defined]
            found[name] = (base.flatten(1).norm(dim=1) / adapted.flatten(1).norm(dim=1)).contiguous()
    return found
