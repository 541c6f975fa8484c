"""Attention operators of a GPU, flash and xformers, for the networks that take them.

Padded text is packed away: they see every sample's real tokens, one sample after another, with the lengths of
each. Only the networks' operators are exchanged; weights and exports know nothing of it.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, JointAttnProcessor2_0
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def use_processors(network: Any, operator: str) -> None:
    """Let the attention of a network of diffusers that has exchangeable processors run on flash or xformers."""
    if operator == "xformers":
        network.enable_xformers_memory_efficient_attention()
        return
    flash = {AttnProcessor2_0: FlashProcessor, JointAttnProcessor2_0: FlashJointProcessor}
    network.set_attn_processor({name: flash[type(old)]() for name, old in network.attn_processors.items()})


def keep_upcasting(network: Any) -> None:
    """Let the layers whose configuration says `upcast_attention` have their weights worked out in float32.

    The kernels of the other operators always do so; a matrix would be worked out in autocast's precision.
    """
    for module in network.modules():
        if isinstance(module, Attention) and module.upcast_attention:
            scores: Any = _without_autocast(module.get_attention_scores)
            module.get_attention_scores = scores  # type: ignore[method-assign]


def _without_autocast(scores: Any) -> Any:
    def in_float32(query: Tensor, *others: Any) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            return scores(query, *others)

    return in_float32


class FlashProcessor(AttnProcessor2_0):
    """diffusers' processor, held to torch's flash kernel (in the recomputation of checkpointing too)."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


class FlashJointProcessor(JointAttnProcessor2_0):
    """The same for SD3's joint attention."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Tensor | None = None,
    ) -> Any:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            arguments: Any = (hidden_states, encoder_hidden_states, attention_mask)
            return super().__call__(attn, *arguments)


class Packed:
    """An attention operator with the signature of `darkroom.exported.mmdit.attention`.

    The places of the real tokens are found once for a mask and kept: all blocks of a step share one.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._mask: Tensor | None = None
        self._places: Tensor | None = None
        self._lengths: list[int] = []

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """query (B, heads, M, head_dim), key and value (B, heads, N, head_dim), mask (B, 1, 1, N).

        The mask is True where attended. Padded queries get zeros.
        """
        query, key, value = (t.transpose(1, 2) for t in (query, key, value.to(query.dtype)))
        if mask is None:
            return self._dense(query, key, value).transpose(1, 2)
        if mask is not self._mask:
            real = mask[:, 0, 0]
            self._mask, self._places = mask, real.flatten().nonzero()[:, 0]
            self._lengths = real.sum(dim=1).tolist()
        assert self._places is not None
        batch, num_queries, num_keys = len(query), query.shape[1], key.shape[1]
        keys, values = (t.flatten(0, 1)[self._places] for t in (key, value))
        if num_queries != num_keys:  # the last block's text gives no queries, and images are never padded
            out = self._packed(query.flatten(0, 1), keys, values, [num_queries] * batch)
            return out.unflatten(0, (batch, num_queries)).transpose(1, 2)
        packed = self._packed(query.flatten(0, 1)[self._places], keys, values, self._lengths)
        out = packed.new_zeros(batch * num_queries, *packed.shape[1:]).index_copy(0, self._places, packed)
        return out.unflatten(0, (batch, num_queries)).transpose(1, 2)

    def _dense(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, N, heads, head_dim) each."""
        if self.backend == "xformers":
            from xformers.ops import memory_efficient_attention

            return memory_efficient_attention(query, key, value)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            query, key, value = (t.transpose(1, 2) for t in (query, key, value))
            return nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)

    def _packed(self, query: Tensor, key: Tensor, value: Tensor, query_lengths: list[int]) -> Tensor:
        """(T, heads, head_dim) each, samples one after another."""
        if self.backend == "xformers":
            from xformers.ops import memory_efficient_attention
            from xformers.ops.fmha.attn_bias import BlockDiagonalMask

            blocks = BlockDiagonalMask.from_seqlens(query_lengths, self._lengths)
            return memory_efficient_attention(query[None], key[None], value[None], attn_bias=blocks)[0]
        from torch.nn.attention.varlen import varlen_attn

        query_starts, key_starts = (_starts(n, query.device) for n in (query_lengths, self._lengths))
        out = varlen_attn(query, key, value, query_starts, key_starts, max(query_lengths), max(self._lengths))
        assert isinstance(out, Tensor)
        return out


def _starts(lengths: list[int], device: torch.device) -> Tensor:
    """[n_1, n_2, ...] -> int32 (0, n_1, n_1 + n_2, ...)."""
    return torch.tensor([0, *lengths], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)
