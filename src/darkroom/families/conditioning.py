"""What a network is told about a picture besides its noise: text by encoder, pooled text, and sizes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """The conditioning of B pictures.

    text: (B, L_i, D_i) hidden states of each text encoder, in the run's order.
    text_mask: for each encoder (B, L_i) bool, False on padding; None where nothing is padded.
    pooled: (B, P) pooled embeddings of the encoders that give one, one after another; P may be 0.
    time_ids: (B, 6) SDXL's original height and width, crop top and left, target height and width in
        pixels; None where the cache keeps no sizes.
    """

    text: tuple[Tensor, ...]
    text_mask: tuple[Tensor | None, ...]
    pooled: Tensor
    time_ids: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Conditioning":
        """The same with `change` applied to every tensor."""
        masks = tuple(None if mask is None else change(mask) for mask in self.text_mask)
        sizes = None if self.time_ids is None else change(self.time_ids)
        return Conditioning(tuple(change(text) for text in self.text), masks, change(self.pooled), sizes)

    def __getitem__(self, part: slice) -> "Conditioning":
        return self.map(lambda tensor: tensor[part])

    def to(self, device: torch.device) -> "Conditioning":
        """On a device, numbers as float32."""
        return self.map(
            lambda tensor: tensor.to(
                device, torch.float32 if tensor.is_floating_point() else tensor.dtype, non_blocking=True
            )
        )
