"""What two ranks tell each other: a few words and some tensors, as one piece of bytes.

First the words and the tensors' types and shapes as JSON, then each tensor from a multiple of 64 bytes on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

_ALIGNED = 64


@dataclass(frozen=True)
class Message:
    """words: what JSON holds. tensors: on the CPU."""

    words: Mapping[str, Any]
    tensors: Sequence[torch.Tensor] = ()


def packed(message: Message) -> tuple[torch.Tensor, int]:
    """A message as uint8 (n,), and how many of the n are its JSON."""
    told = [[str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for tensor in message.tensors]
    head = json.dumps({"words": message.words, "tensors": told}).encode()
    starts = _starts(len(head), [tensor.nbytes for tensor in message.tensors])
    memory = torch.zeros(starts.pop(), dtype=torch.uint8)
    memory[: len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
    for start, tensor in zip(starts, message.tensors, strict=True):
        _view(memory, start, tensor.dtype, tensor.shape).copy_(tensor)
    return memory, len(head)


def unpacked(memory: torch.Tensor, num_head: int) -> Message:
    """The message in bytes that `packed` made; its tensors are views of them."""
    head = json.loads(bytes(memory[:num_head].numpy()))
    kinds = [(getattr(torch, name), shape) for name, shape in head["tensors"]]
    starts = _starts(num_head, [kind.itemsize * prod(shape) for kind, shape in kinds])
    found = [_view(memory, start, kind, shape) for start, (kind, shape) in zip(starts, kinds, strict=False)]
    return Message(head["words"], found)


def _starts(num_head: int, sizes: Sequence[int]) -> list[int]:
    """Where each tensor begins, and where the message ends."""
    starts = [num_head]
    for size in sizes:
        starts[-1] = -(-starts[-1] // _ALIGNED) * _ALIGNED
        starts.append(starts[-1] + size)
    return starts


def _view(memory: torch.Tensor, start: int, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    return memory[start : start + dtype.itemsize * prod(shape)].view(dtype).view(tuple(shape))
