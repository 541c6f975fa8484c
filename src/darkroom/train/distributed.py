"""The ranks of a training: who they are, and how they agree to stop."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

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

    A batch script has SLURM_PROCID and SLURM_NTASKS too, but is one process: only a step that srun
    started has SLURM_STEP_NUM_TASKS.

    Raises:
        ValueError: the numbers are incomplete or make no sense.
    """
    env = os.environ if environment is None else environment
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "WORLD_SIZE" not in env and "SLURM_STEP_NUM_TASKS" in env:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    if env.get(names[1], "1") == "1":
        return Ranks()
    given = {name: env.get(name, "") for name in names}
    if not all(value.isdecimal() for value in given.values()) or int(given[names[0]]) >= int(given[names[1]]):
        shown = ", ".join(f"{name}={value}" if value else f"no {name}" for name, value in given.items())
        raise ValueError(
            f"{shown}: every rank needs its number, from 0, below the number of ranks, and its place on its "
            "machine; srun and torchrun set them"
        )
    rank, world_size, local_rank = (int(value) for value in given.values())
    return Ranks(rank, world_size, local_rank)


def training_ranks(everyone: Ranks, num_encoders: int) -> Ranks | None:
    """A rank's place among those that train; None for one of the last `num_encoders`, which encode.

    Raises:
        ValueError: no rank is left to train.
    """
    num = everyone.world_size - num_encoders
    if num < 1:
        started = "one rank is" if everyone.world_size == 1 else f"{everyone.world_size} ranks are"
        raise ValueError(
            f"train.encoder_ranks {num_encoders}: {started} started, and at least one has to train; start"
            f" {num_encoders + 1} or more, or write a smaller number (0: each rank encodes its own samples)"
        )
    if not num_encoders:
        return everyone
    return Ranks(everyone.rank, num, everyone.local_rank) if everyone.rank < num else None


def find_device(ranks: Ranks, device: str | None = None) -> torch.device:
    """`device`, or this rank's GPU where there is one, or the CPU."""
    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda", ranks.local_rank % torch.cuda.device_count())
    return torch.device("cpu")


class _Broadcasts:
    """What rank 0 has announced so far, in the store where the ranks met."""

    # The longest that a wait in the store can last.
    WAIT = timedelta(days=20)

    def __init__(self, store: dist.Store) -> None:
        self.store, self.num_sent = dist.PrefixStore("broadcasts", store), 0


_broadcasts: _Broadcasts | None = None


@contextmanager
def broadcasting(store: dist.Store) -> Iterator[None]:
    """Inside the block, rank 0 tells the others by this store what it did alone."""
    global _broadcasts
    _broadcasts = _Broadcasts(store)
    try:
        yield
    finally:
        _broadcasts = None


def broadcast_from_first(find: Callable[[], int | None], ranks: Ranks) -> int | None:
    """What `find` returns on rank 0, on every rank: they must not each trust their own look at a disk.

    The others wait as long as rank 0 lives, and not as long as a collective may take: reading checkpoints,
    writing one, or drawing may be work of an hour. When rank 0 ends, so do they (`rendezvous`).
    """
    if ranks.world_size == 1:
        return find()
    assert _broadcasts is not None, "ranks wait for each other inside rendezvous.process_group"
    key, _broadcasts.num_sent = str(_broadcasts.num_sent), _broadcasts.num_sent + 1
    if ranks.is_first:
        found = find()
        _broadcasts.store.set(key, json.dumps(found))
        return found
    _broadcasts.store.wait([key], _Broadcasts.WAIT)
    told: int | None = json.loads(_broadcasts.store.get(key))
    return told


def wait_for_first(ranks: Ranks) -> None:
    """Return when rank 0 has come here; it waits for nobody."""
    broadcast_from_first(lambda: None, ranks)


class RankGroup:
    """All ranks as a process group of its own, so that a background thread of each may wait for the others.

    One rank alone (`RankGroup(Ranks())`) has nobody to wait for.
    """

    _MOST_BYTES = 8192

    def __init__(self, ranks: Ranks) -> None:
        self.rank, self.is_first, self.is_single = ranks.rank, ranks.is_first, ranks.world_size == 1
        self._num = ranks.world_size
        self._group = None if self.is_single else dist.new_group(backend="gloo")

    def run_on_all(self, action: Callable[[], str]) -> list[str]:
        """What `action` returned on each rank, at most 1000 characters. Every rank calls it.

        Raises:
            OSError: an action failed by one, here or elsewhere.
            RuntimeError: an action failed otherwise on another rank; here its own error comes through.
        """
        if self.is_single:
            return [action()]
        error: Exception | None = None
        told: dict[str, str] = {}
        try:
            told["done"] = action()
        except Exception as caught:
            error = caught
            kind = "os" if isinstance(error, OSError) else "other"
            told[kind] = f"rank {self.rank}: {error}"[:1000]
        results = [json.loads(text) for text in self._all_gather(json.dumps(told))]
        if error is not None:
            raise error
        for result in results:
            if "os" in result:
                raise OSError(result["os"])
            if "other" in result:
                raise RuntimeError(result["other"])
        return [result["done"] for result in results]

    def _all_gather(self, text: str) -> list[str]:
        mine = torch.zeros(self._MOST_BYTES, dtype=torch.uint8)
        data = text.encode()
        mine[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        everyone = [torch.empty_like(mine) for _ in range(self._num)]
        dist.all_gather(everyone, mine, group=self._group)
        return [bytes(heard.tolist()).rstrip(b"\0").decode() for heard in everyone]


SINGLE = RankGroup(Ranks())


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
