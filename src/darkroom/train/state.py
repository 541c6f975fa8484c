"""The state of a training: everything that its next step depends on, as checkpoints keep it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from darkroom.train.adaptive import group_state, load_group_state
from darkroom.train.checkpoint import SNAPSHOT_PREFIX, LoadedCheckpoint
from darkroom.train.parallel import shard_like
from darkroom.train.power_averages import PowerAverages
from darkroom.train.sharded_tensors import ShardedTensors

_MODULES, _HISTORY, _GROUPS = ("weights", "ema"), "history", "groups"
# What a checkpoint holds besides the optimizers' moments.
_NO_MOMENTS = (*_MODULES, _HISTORY, _GROUPS, SNAPSHOT_PREFIX.rstrip("/"))


class Rows(Protocol):
    """What is known of all steps so far, as `record.History`."""

    def done(self) -> torch.Tensor: ...

    def restore(self, rows: torch.Tensor) -> None: ...


RowsT = TypeVar("RowsT", bound=Rows)


@dataclass(frozen=True)
class TrainState(Generic[RowsT]):
    """Weights, their average, the optimizers' moments and the history of all steps.

    model, average: whole, or this rank's shards. powers: averages of `train.post_hoc_ema`.
    """

    model: nn.Module
    average: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    history: RowsT
    powers: PowerAverages | None = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it by name; no copies."""
        tensors = {f"weights/{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"ema/{name}": t for name, t in self.average.state_dict().items()}
        for name, weight in self.model.named_parameters():
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(weight, {}).items():
                    # bitsandbytes counts steps in a plain number.
                    is_tensor = isinstance(value, torch.Tensor)
                    tensors[f"{key}/{name}"] = value if is_tensor else torch.tensor(value)
        for place, optimizer in enumerate(self.optimizers):
            tensors |= {f"{_GROUPS}/{place}.{name}": t for name, t in group_state(optimizer).items()}
        if self.powers is not None:
            tensors |= self.powers.tensors()
        return tensors | {_HISTORY: self.history.done()}

    def restore(self, saved: LoadedCheckpoint) -> None:
        """Go on from a checkpoint of this training, in place."""
        self.history.restore(saved_history(saved))
        self.load(saved)
        if self.powers is not None:
            self.powers.load(saved.tensors)

    def load(self, saved: LoadedCheckpoint, with_moments: bool = True) -> None:
        """Take weights, average and moments from a checkpoint, each rank's shards where they are sharded.

        A weight whose moments are not there starts without. Weights of Schedule-Free without its moments are the
        averaged ones: those that it trains are between these and what it has taken steps from.

        Raises:
            RuntimeError, KeyError: the checkpoint is of another model.
        """
        kinds: dict[str, set[str]] = {}
        for name in saved.tensors:
            kind, _, rest = name.partition("/")
            kinds.setdefault(kind, set()).add(rest)
        is_average = not with_moments and any(name.endswith(".weight_sum") for name in kinds.get(_GROUPS, ()))
        sources = ("ema", "ema") if is_average else _MODULES
        for module, kind in zip((self.model, self.average), sources, strict=True):
            like = module.state_dict()
            module.load_state_dict(
                {name: shard_like(saved.tensors, f"{kind}/{name}", like.get(name)) for name in kinds[kind]}
            )
        if with_moments:
            moments = {k: names for k, names in kinds.items() if k not in _NO_MOMENTS}
            self._load_moments(saved.tensors, moments)
            for place, optimizer in enumerate(self.optimizers):
                mine = [name for name in kinds.get(_GROUPS, ()) if name.startswith(f"{place}.")]
                values = {n.removeprefix(f"{place}."): saved.tensors[f"{_GROUPS}/{n}"] for n in mine}
                load_group_state(optimizer, values)

    def _load_moments(self, saved: ShardedTensors, moments: dict[str, set[str]]) -> None:
        names = {weight: name for name, weight in self.model.named_parameters()}
        for optimizer in self.optimizers:
            flat = [weight for group in optimizer.param_groups for weight in group["params"]]
            state: dict[str, Any] = optimizer.state_dict()
            state["state"] = {
                place: {
                    kind: _moment(saved, f"{kind}/{names[weight]}", weight)
                    for kind, found in moments.items()
                    if names[weight] in found
                }
                for place, weight in enumerate(flat)
            }
            optimizer.load_state_dict(state)


def saved_history(saved: LoadedCheckpoint) -> torch.Tensor:
    """The rows of a checkpoint's history, see `record.History`."""
    return saved.tensors[_HISTORY]


def _moment(saved: ShardedTensors, name: str, weight: torch.Tensor) -> torch.Tensor | int:
    """A moment laid out as its weight; what has another shape, as the count of steps, is no part of a shard.

    What was a plain number becomes one again: bitsandbytes counts steps so, and torch in float32.
    """
    if saved.shape(name) == tuple(weight.shape):
        return shard_like(saved, name, weight)
    whole = saved[name]
    return int(whole) if whole.dtype == torch.int64 and not whole.ndim else whole
