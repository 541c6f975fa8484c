"""How much arithmetic a training asks of a device, and how much the device could do."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from darkroom.families.conditioning import Conditioning

# FLOP/s of dense matrix products in bfloat16, summed in float32, from the makers' data sheets (without sparsity),
# by the beginning of the name that torch gives a device. Of several the longest counts.
PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA A800": 312e12,
    "NVIDIA A30": 165e12,
    "NVIDIA A40": 149.7e12,
    "NVIDIA A10": 125e12,
    "NVIDIA A10G": 70e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA H100": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H800": 989.4e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA GH200": 989.4e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA RTX A6000": 154.8e12,
    "NVIDIA RTX 6000 Ada Generation": 364.2e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
    "NVIDIA GeForce RTX 5090": 209.5e12,
}


def peak_flops(name: str, dtype: str) -> float | None:
    """FLOP/s that a device of this name has at most; None where that is not known.

    dtype: what a training computes in. In float32 products run in full precision, for which no peak is kept.
    """
    # A part of a device, or one that is cooled less, has the name of the whole one.
    if dtype != "bfloat16" or "MIG" in name or "Laptop" in name:
        return None
    # "NVIDIA A100-SXM4-80GB" is an A100, and "NVIDIA A1000" is none.
    fitting = [
        known
        for known in PEAK_FLOPS
        if name.startswith(known) and not name[len(known) : len(known) + 1].isalnum()
    ]
    return PEAK_FLOPS[max(fitting, key=len)] if fitting else None


def training_flops(
    model: nn.Module, trained: Collection[str], latents: torch.Tensor, conditioning: Conditioning
) -> int:
    """FLOPs of matrix products, convolutions and attention in one forward and backward pass of these samples.

    What the backward pass computes again to save memory is not counted: this is the work that the model needs, as
    in MFU (Chowdhery et al. 2022, arXiv 2204.02311, appendix B). Nothing is computed: shapes alone pass through.

    Args:
        model: a `Denoiser`, unchanged. trained: the names of its parameters that have gradients.
        latents: (b, C, H, W). conditioning: of b pictures.
    """
    meta = torch.device("meta")
    state = {
        name: torch.empty_like(
            tensor, device=meta, dtype=torch.float32 if tensor.is_floating_point() else None
        )
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    }
    for name in trained:
        state[name].requires_grad_(True)
    noisy = torch.empty(latents.shape, device=meta)
    timestep = torch.empty(len(latents), device=meta)
    with _keeping_activations(model), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        output = functional_call(model, state, (noisy, timestep, conditioning.to(meta)))
        output.sum().backward()
    return int(counter.get_total_flops())


@contextmanager
def _keeping_activations(model: nn.Module) -> Iterator[None]:
    """In the block no part of the model computes its activations again."""
    found = [
        (module, name)
        for module in model.modules()
        for name, value in vars(module).items()
        if value is True and "checkpoint" in name
    ]
    for module, name in found:
        setattr(module, name, False)
    try:
        yield
    finally:
        for module, name in found:
            setattr(module, name, True)
