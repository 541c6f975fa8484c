"""Frozen weights in 8 or 4 bits below adapters (QLoRA: Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes.

int8: each output's weights by their largest one, in 255 steps; NF4: blocks of 64 by their largest one, in the 16
quantiles of a normal distribution. What is computed with them is computed in the training's own dtype.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK_SIZE = 64


class QuantizedLinear(nn.Linear):
    """A linear layer whose frozen weight is kept as codes and scales, and is a tensor only while it is used.

    Both are buffers, so that checkpoints, copies and devices treat them like any other.

    Args:
        layer: whose weight (outputs, inputs) it takes over; its bias is kept as it is.
        dtype: "int8" or "nf4".
    """

    def __init__(self, layer: nn.Linear, dtype: str) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias, self.base_dtype = layer.bias, dtype
        codes, scales = _quantized(layer.weight.detach(), dtype)
        self.codes: Tensor
        self.scales: Tensor
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """(outputs, inputs) in float32, made anew at each call."""
        return self.weight_in(torch.float32)

    def weight_in(self, dtype: torch.dtype) -> Tensor:
        """(outputs, inputs): what the codes stand for."""
        from bitsandbytes import functional

        if self.base_dtype == "int8":
            return functional.int8_vectorwise_dequant(self.codes, self.scales).to(dtype)
        state = functional.QuantState(
            self.scales, (self.out_features, self.in_features), dtype=dtype, blocksize=BLOCK_SIZE,
            quant_type="nf4",
        )  # fmt: skip
        weight: Tensor = functional.dequantize_4bit(self.codes, state)
        return weight

    def forward(self, input: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        found: Tensor = _Product.apply(input, self.bias, self)
        return found

    def plain(self) -> nn.Linear:
        """A linear layer with the weight that the codes stand for."""
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        layer.weight = nn.Parameter(self.weight, requires_grad=False)
        if self.bias is not None:
            layer.bias = self.bias
        return layer


class _Product(torch.autograd.Function):
    """The layer's product; the weight is made again for the way back, where autograd would keep it until then."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, bias: Tensor | None, layer: QuantizedLinear) -> Tensor:
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        ctx.layer, ctx.dtype, ctx.input_dtype = layer, dtype, input.dtype
        with torch.autocast(kind, enabled=False):
            return F.linear(input.to(dtype), layer.weight_in(dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        weight = ctx.layer.weight_in(ctx.dtype)
        return (gradient.to(ctx.dtype) @ weight).to(ctx.input_dtype), None, None


def _quantized(weight: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Codes and scales of a weight (outputs, inputs)."""
    from bitsandbytes import functional

    if dtype == "int8":
        codes, scales, _ = functional.int8_vectorwise_quant(weight.half())
        return codes, scales
    packed, state = functional.quantize_4bit(
        weight.contiguous(), blocksize=BLOCK_SIZE, quant_type="nf4", compress_statistics=False
    )
    return packed, state.absmax


def quantize(network: nn.Module, dtype: str) -> int:
    """Let the linear layers of a network's blocks keep their weights in `dtype`, in place; returns how many.

    Layers outside the blocks, which bring latents, text and time in and the prediction out, stay as they are.

    Raises:
        ValueError: the network names no blocks.
    """
    names = set(getattr(network, "_no_split_modules", None) or ())
    blocks = [m for m in network.modules() if type(m).__name__ in names]
    found = {id(layer): layer for block in blocks for layer in block.modules() if type(layer) is nn.Linear}
    if not found:
        raise ValueError(
            "model.lora.base_dtype: the network names no blocks with linear layers; write base_dtype: float32"
        )
    _replace(network, lambda layer: QuantizedLinear(layer, dtype) if id(layer) in found else layer)
    return len(found)


def to_plain(network: nn.Module) -> None:
    """Make the layers of `quantize` plain ones with the weights that the codes stand for, in place."""
    _replace(network, lambda layer: layer.plain() if isinstance(layer, QuantizedLinear) else layer)


def _replace(network: nn.Module, change: Callable[[Any], nn.Module]) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            changed = change(child)
            if changed is not child:
                setattr(module, name, changed)
