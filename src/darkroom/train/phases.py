"""Phases: a training that goes on from the end of another one, with buckets, batches and a schedule of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darkroom.config.model import read_model
from darkroom.config.run import Train
from darkroom.store import read_manifest
from darkroom.train.checkpoint import (
    Saved,
    checkpoint_folder,
    newest_checkpoint,
    read_checkpoint,
    run_key,
)
from darkroom.train.parallel import placed_like
from darkroom.train.pieces import Pieces


@dataclass(frozen=True)
class Initial:
    """The end of the phase before: its run's name, its last checkpoint, and all steps up to there."""

    run: str
    folder: Path
    num_steps: int


def find_initial(run: str, manifest: str | Path, run_dir: str | Path) -> Initial:
    """The last checkpoint of a finished run.

    Args:
        run: its name.
        manifest: of its train stage.
        run_dir: where its trainings keep their checkpoints, one folder for each `run_key`.

    Raises:
        ValueError: the checkpoint is no longer there, or is not of the last step.
    """
    body = read_manifest(manifest)
    train = Train(**body["params"]["train"])
    model = read_model(body["params"]["model"])
    made_from = [body["upstream"][name] for name in ("cache", "initial") if name in body["upstream"]]
    folder = Path(run_dir) / run_key(model, train, body["params"]["seed"], chain_digest(made_from))
    step = newest_checkpoint(folder)
    if step != train.num_steps:
        found = "no checkpoint is there" if step is None else f"its last checkpoint is of step {step}"
        raise ValueError(
            f"{folder}: {found}, where run {run} left one of step {train.num_steps}; train it again:"
            f" snakemake train -R train --config run={run}"
        )
    before = int(body["counts"].get("steps_before", 0))
    return Initial(run, checkpoint_folder(folder, step), before + train.num_steps)


def chain_digest(digests: Sequence[str]) -> str:
    """What a training is made from, as `run_key` takes it: its cache's digest, and that of the phase before."""
    return "-".join(digests)


def begin_from(
    initial: Initial, model: nn.Module, ema: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Take over weights, their average and the optimizers' moments, in place.

    Raises:
        ValueError: the checkpoint is of another model.
    """
    try:
        restore_weights(read_checkpoint(initial.folder), model, ema, optimizers)
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{initial.folder}: does not fit this run's model ({error})") from error


def restore_weights(
    saved: Saved, model: nn.Module, ema: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Weights, average and moments from a checkpoint, each rank's shards where they are sharded.

    A weight whose moments are not there starts without.
    """
    kinds: dict[str, set[str]] = {}
    for name in saved.tensors:
        kind, _, rest = name.partition("/")
        kinds.setdefault(kind, set()).add(rest)
    for module, kind in ((model, "weights"), (ema, "ema")):
        like = module.state_dict()
        module.load_state_dict(
            {name: placed_like(saved.tensors, f"{kind}/{name}", like.get(name)) for name in kinds[kind]}
        )
    names = {weight: name for name, weight in model.named_parameters()}
    moments = {kind: found for kind, found in kinds.items() if kind not in ("weights", "ema", "history")}
    for optimizer in optimizers:
        flat = [weight for group in optimizer.param_groups for weight in group["params"]]
        state: dict[str, Any] = optimizer.state_dict()
        state["state"] = {
            place: {
                kind: _moment(saved.tensors, f"{kind}/{names[weight]}", weight)
                for kind, found in moments.items()
                if names[weight] in found
            }
            for place, weight in enumerate(flat)
        }
        optimizer.load_state_dict(state)


def _moment(saved: Pieces, name: str, weight: torch.Tensor) -> torch.Tensor | int:
    """A moment laid out as its weight; what has another shape, as the count of steps, is no part of a shard.

    What was a plain number becomes one again: bitsandbytes counts steps so, and torch in float32.
    """
    if saved.shape(name) == tuple(weight.shape):
        return placed_like(saved, name, weight)
    whole = saved[name]
    return int(whole) if whole.dtype == torch.int64 and not whole.ndim else whole
