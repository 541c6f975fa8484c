"""The ranks of a training: who they are, and how they agree to stop."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This process's place among all: its rank, how many there are, its place on its machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that writes files."""
        return self.rank == 0


def find_ranks(environment: Mapping[str, str] | None = None) -> Ranks:
    """The ranks that torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or srun (SLURM_PROCID, ...) announce.

    Raises:
        ValueError: there are several ranks and MASTER_ADDR or MASTER_PORT, where they meet, is unset.
    """
    env = os.environ if environment is None else environment
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "WORLD_SIZE" not in env and "SLURM_PROCID" in env:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    rank, world_size, local_rank = (
        int(env.get(name, default)) for name, default in zip(names, ("0", "1", "0"), strict=True)
    )
    if world_size > 1 and not ("MASTER_ADDR" in env and "MASTER_PORT" in env):
        raise ValueError(
            f"{names[1]} is {world_size}, but MASTER_ADDR and MASTER_PORT are not both set; "
            "export them before srun, or start with torchrun"
        )
    return Ranks(rank, world_size, local_rank)


def find_device(ranks: Ranks, device: str | None = None) -> torch.device:
    """`device`, or this rank's GPU where there is one, or the CPU."""
    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda", ranks.local_rank % torch.cuda.device_count())
    return torch.device("cpu")


@contextmanager
def process_group(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Join the other ranks (NCCL between GPUs, gloo between CPUs); nothing where there are none."""
    if ranks.world_size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method="env://",
        rank=ranks.rank,
        world_size=ranks.world_size,
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def first_finds(find: Callable[[], int | None], ranks: Ranks) -> int | None:
    """What `find` returns on rank 0, on every rank: they must not each trust their own look at a disk."""
    if ranks.world_size == 1:
        return find()
    found = find() if ranks.is_first else None
    on_gpu = dist.get_backend() == "nccl"
    number = torch.tensor([-1 if found is None else found], device="cuda" if on_gpu else "cpu")
    dist.broadcast(number, src=0)
    return None if number.item() < 0 else int(number.item())


class StopVote:
    """All ranks stop after the same step, though a signal reaches them at different times.

    A vote cast after one step is counted after the next, so no step waits for it. Without other
    ranks the answer comes at once.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._group = dist.new_group(backend="gloo") if ranks.world_size > 1 else None
        self._votes: torch.Tensor | None = None
        self._work: dist.Work | None = None

    def count(self, wants_stop: bool) -> bool:
        """Cast this rank's vote; True when any rank's last counted vote was to stop."""
        if self._group is None:
            return wants_stop
        stop = False
        if self._work is not None and self._votes is not None:
            self._work.wait()
            stop = bool(self._votes.item())
        self._votes = torch.tensor([int(wants_stop)])
        self._work = dist.all_reduce(self._votes, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return stop
