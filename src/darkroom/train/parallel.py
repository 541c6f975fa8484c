"""Where weights, gradients, moments and the average lie: whole on every rank (DDP) or in shards (FSDP2).

DDP (Li et al. 2020, arXiv 2006.15704) keeps all of them on every rank and averages the gradients. FSDP2
(`torch.distributed.fsdp.fully_shard`, after Rajbhandari et al. 2020, arXiv 1910.02054) cuts each into one
shard a rank along its first dimension and brings a block's weights together only while it computes.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from darkroom.config.run import Train
from darkroom.train.distributed import Ranks
from darkroom.train.sharded_tensors import ShardedTensors, shard_bounds


def is_sharded(settings: Train, ranks: Ranks) -> bool:
    """Whether weights are cut into shards: one rank alone holds them whole in any case."""
    return settings.parallelism == "fsdp" and ranks.world_size > 1


class DistributedModel:
    """A model and its average, laid out over the ranks as `train.parallelism` says. Every rank makes one.

    model: the trained module, in place. average: the averaged one that steps change.

    Raises:
        ValueError: `train.shard_size` does not divide the number of ranks, or `train.cpu_offload` is for one.
    """

    def __init__(self, model: nn.Module, ema: nn.Module, settings: Train, ranks: Ranks) -> None:
        self._ranks, self._whole, self.is_sharded = ranks, ema, is_sharded(settings, ranks)
        self.model, self.average = model, ema
        if settings.cpu_offload and not self.is_sharded:
            raise ValueError(
                "train.cpu_offload keeps shards on the CPU, and one rank alone has none: start two or more, or"
                " leave it out, which goes on from the same checkpoints"
            )
        if self.is_sharded:
            mesh = _mesh(settings, ranks)
            # Rank 0 keeps a whole one on the CPU as well, to draw and export from.
            self.average = copy.deepcopy(ema) if ranks.is_first else ema
            for module in (self.model, self.average):
                shard(module, mesh, settings.cpu_offload)

    def for_training(self) -> nn.Module:
        """What a step calls: its gradients come averaged over the ranks."""
        if self.is_sharded or self._ranks.world_size == 1:
            return self.model
        return DistributedDataParallel(self.model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def gathered(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The whole tensors by name on rank 0, nothing elsewhere; sharded ones come to the CPU one by one.

        Every rank calls it with the same names.
        """
        found = {}
        for name, tensor in tensors.items():
            if isinstance(tensor, DTensor):
                tensor = full(tensor)
                tensor = tensor.cpu() if self._ranks.is_first else tensor
            if self._ranks.is_first:
                found[name] = tensor
        return found

    @contextmanager
    def whole_average(self) -> Iterator[nn.Module]:
        """The averaged model, whole on rank 0 and, inside the block, on its device. Every rank calls it."""
        if not self.is_sharded:
            yield self._whole
            return
        state = self.gathered(self.average.state_dict())
        if self._ranks.is_first:
            self._whole.load_state_dict(state)
            self._whole.to(_device_type())
        yield self._whole
        if self._ranks.is_first:
            self._whole.cpu()


def shard(model: nn.Module, mesh: DeviceMesh, on_cpu: bool = False) -> None:
    """Cut a model's weights into shards, in place: each block of its network by itself, then what is left.

    `on_cpu` leaves the shards, and with them gradients and moments, in CPU memory.

    Weights go to the mesh's device block by block, so a model on the CPU never has to fit on one GPU.
    """
    inner = network_blocks(model)
    policy = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda") if on_cpu else OffloadPolicy()
    for module in (*reversed(inner), model):  # children before the blocks that hold them
        fully_shard(module, mesh=mesh, offload_policy=policy)


def network_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model's network, from its first to its last, and those that hold others before them.

    What a block is the network's class says (`_no_split_modules` of diffusers' models).
    """
    names = set(getattr(getattr(model, "network", None), "_no_split_modules", None) or ())
    return [m for m in model.modules() if type(m).__name__ in names]


def _mesh(settings: Train, ranks: Ranks) -> DeviceMesh:
    size = settings.shard_size or ranks.world_size
    if ranks.world_size % size:
        raise ValueError(
            f"train.shard_size {size} does not divide the {ranks.world_size} ranks; write a divisor, most often"
            " the number of GPUs of a machine, or 0 for one shard a rank"
        )
    if size == ranks.world_size:
        return init_device_mesh(_device_type(), (size,), mesh_dim_names=("shard",))
    return init_device_mesh(
        _device_type(), (ranks.world_size // size, size), mesh_dim_names=("replicate", "shard")
    )


def _device_type() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


@contextmanager
def accumulating(model: nn.Module, is_on: bool) -> Iterator[None]:
    """With `is_on`, a backward pass inside the block adds to this rank's own gradients and exchanges nothing."""
    if isinstance(model, DistributedDataParallel) and is_on:
        with model.no_sync():
            yield
        return
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not is_on)
    yield


def compute_device(model: nn.Module) -> torch.device:
    """The device of a model's passes; its weights may lie elsewhere, see `train.cpu_offload`."""
    weight = next(model.parameters())
    if not isinstance(weight, DTensor) or weight.device_mesh.device_type == "cpu":
        return weight.device
    return torch.device(weight.device_mesh.device_type, torch.cuda.current_device())


def full(tensor: DTensor) -> torch.Tensor:
    """The whole of a sharded tensor, on the device where ranks exchange; every rank calls it."""
    # NCCL takes nothing from CPU memory.
    moved: Any = tensor.detach().to(tensor.device_mesh.device_type)
    whole: torch.Tensor = moved.full_tensor()
    return whole


def local(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """This rank's shards (no copies) of those that are sharded, and the others as they are."""
    return [t.to_local().detach() if isinstance(t, DTensor) else t for t in tensors]


def shard_like(saved: ShardedTensors, name: str, like: torch.Tensor | None) -> torch.Tensor:
    """A saved tensor; of one that is laid out as a sharded `like`, this rank's shard alone is read.

    Raises:
        RuntimeError: it has another shape than `like`.
    """
    if not isinstance(like, DTensor):
        return saved[name]
    if saved.shape(name) != tuple(like.shape):
        raise RuntimeError(f"size mismatch for {name}: {saved.shape(name)}, not {tuple(like.shape)}")
    shard = saved.part(name, *shard_bounds(like)).to(like.device)
    return DTensor.from_local(
        shard, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )
