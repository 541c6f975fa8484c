"""Tensors in shards: what each rank holds of them, in a safetensors file of its own.

A file's header says where in the whole tensor each shard begins, as torch.distributed.checkpoint's
`HuggingFaceStorageWriter(save_distributed=True)` does, so that `HuggingFaceStorageReader` puts them together too.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

_OFFSETS = "DCP_SHARDING_INFO"


@dataclass(frozen=True)
class TensorShard:
    """Part of a tensor, and the indices in the whole of the part's first number."""

    tensor: torch.Tensor
    offsets: tuple[int, ...]


def local_shards(tensors: Mapping[str, torch.Tensor], is_first: bool) -> dict[str, TensorShard]:
    """What this rank keeps of `tensors`: its shards, no copies, and on the first rank what is not sharded.

    Of several groups with the same shards (hybrid sharding) the first keeps them.
    """
    found = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            if is_first:
                found[name] = TensorShard(tensor.detach(), (0,) * tensor.ndim)
            continue
        place = tensor.device_mesh.get_coordinate() or []
        is_copy = any(p.is_replicate() and at for p, at in zip(tensor.placements, place, strict=True))
        shard = tensor.to_local().detach()
        if not is_copy and shard.numel():
            found[name] = TensorShard(shard, shard_bounds(tensor)[0])
    return found


def shard_bounds(tensor: DTensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The indices of the first number of this rank's shard in the whole tensor, and the shard's shape."""
    of_shard: Any = tensor
    (chunk,) = of_shard.__create_chunk_list__()
    return tuple(chunk.offsets), tuple(chunk.sizes)


def write_shards(path: Path, shards: Mapping[str, TensorShard]) -> None:
    """Write CPU tensors and their places into one file.

    Raises:
        OSError: there is no space, or the disk fails.
    """
    offsets = {name: {"saved_offsets": list(shard.offsets)} for name, shard in shards.items()}
    tensors = {name: shard.tensor for name, shard in shards.items()}
    try:
        save_file(tensors, path, {_OFFSETS: json.dumps(offsets)})
    except SafetensorError as error:
        if "os error" not in str(error):
            raise
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        free = shutil.disk_usage(path.parent).free
        raise OSError(f"{error}; it needs {size / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free") from error


class ShardedTensors(Mapping[str, torch.Tensor]):
    """Tensors by name, put together when they are asked for, from whatever files their shards lie in."""

    def __init__(self, files: Sequence[Path]) -> None:
        # Name -> (open file, offsets, shape) of each shard.
        self._found: dict[str, list[tuple[Any, list[int], list[int]]]] = {}
        for path in files:
            file: Any = safe_open(path, framework="pt")
            offsets = json.loads((file.metadata() or {}).get(_OFFSETS, "{}"))
            for name in file.keys():  # noqa: SIM118
                shape = file.get_slice(name).get_shape()
                first = offsets[name]["saved_offsets"] if name in offsets else [0] * len(shape)
                self._found.setdefault(name, []).append((file, first, shape))

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, name: str) -> torch.Tensor:
        shape = self.shape(name)
        return self.part(name, (0,) * len(shape), shape)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        ends = ([a + n for a, n in zip(first, shape, strict=True)] for _, first, shape in self._found[name])
        return tuple(max(sides) for sides in zip(*ends, strict=True))

    def part(self, name: str, offsets: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
        """The block of a tensor that begins at `offsets`; only its own numbers are read."""
        shards = self._found[name]
        if len(shards) == 1 and shards[0][2] == list(shape):
            # A copy: a view of the mapped file would die with it when it is removed as an old one.
            return shards[0][0].get_tensor(name).clone()
        block = None
        for file, first, size in shards:
            bounds = [
                (max(a, b), min(a + n, b + m)) for a, n, b, m in zip(offsets, shape, first, size, strict=True)
            ]
            if all(start < end for start, end in bounds):
                there = tuple(slice(s - b, e - b) for (s, e), b in zip(bounds, first, strict=True))
                here = tuple(slice(s - a, e - a) for (s, e), a in zip(bounds, offsets, strict=True))
                read = file.get_slice(name)[there]
                block = read.new_empty(tuple(shape)) if block is None else block
                block[here] = read
        return shards[0][0].get_slice(name)[:0].new_empty(tuple(shape)) if block is None else block
