"""LoRA through peft, for every family alike: adapters in, trained, merged or taken out."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.families.base import LoRA, nearest


def add_lora(network: nn.Module, settings: LoRA, seed: int) -> None:
    """Put adapters on the layers that `settings.targets` names, in place; all else is frozen.

    The adapters' outputs are zero at first, so the network computes what it did.

    Raises:
        ValueError: no layer has a target's name; the message has the nearest that one has.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = [name for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    ends = sorted({".".join(name.split(".")[-n:]) for name in names for n in (1, 2, 3, 4)})
    for target in settings.targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ValueError(f"model.lora.targets: the model has no layer {target!r}{nearest(target, ends)}")
    alpha: Any = settings.alpha  # peft's annotation says int, and divides
    config = LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=list(settings.targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, network)


def has_lora(network: nn.Module) -> bool:
    """Whether a network carries adapters."""
    return hasattr(network, "peft_config")


def merged(network: nn.Module) -> Any:
    """A copy of a network with its adapters added to the weights; a network without adapters is given back."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not has_lora(network):
        return network
    network = copy.deepcopy(network)
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
