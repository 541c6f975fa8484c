"""The blocks of a network compiled one by one (`torch.compile`), and made ready before the first step.

A block that is repeated is compiled once: blocks of one class and one set of weights' shapes share their graphs.
Batch, height, width and tokens are symbols in a graph, so that another bucket most often needs no other one.

A kernel depends on the sizes that it was first compiled for. So all are compiled at every start, in one order and
from the same samples, wherever a training goes on; what they do not cover runs uncompiled. Then a step
is a function of its batch alone, and a training that was killed goes on to the same bits.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._dynamo import config as dynamo_config
from torch._dynamo import lookup_backend, maybe_mark_dynamic
from torch._dynamo.exc import TorchDynamoException
from torch.fx.experimental import _config as symbol_config

from darkroom.config.run import Train
from darkroom.objectives.training import TrainingObjective
from darkroom.precision import resolve
from darkroom.train.compile_choice import compiled_blocks, num_compiled
from darkroom.train.data import SampleSource
from darkroom.train.distributed import Ranks
from darkroom.train.loader import TrainBatch, rank_slice
from darkroom.train.places import NULL_CAPTION
from darkroom.train.record import Log
from darkroom.train.step import sample_losses


def num_kinds(blocks: Sequence[nn.Module]) -> int:
    """Blocks of one class and the same weights are one kind, whose graphs they share."""
    return len(
        {
            (type(b), tuple((name, p.shape, p.requires_grad) for name, p in b.named_parameters()))
            for b in blocks
        }
    )


class Graphs:
    """A backend of `torch.compile`: inductor's, and it counts.

    limit: how many graphs there may be.
    """

    def __init__(self, limit: int) -> None:
        self.num, self.limit = 0, limit

    def __call__(self, graph: Any, inputs: Any) -> Any:
        """Compile one graph.

        Raises:
            RuntimeError: it is one too many.
        """
        self.num += 1
        if self.num > self.limit:
            raise RuntimeError(f"more than {self.limit} graphs")
        # Choices made by timings would differ from start to start.
        inductor: Any = lookup_backend("inductor")
        return inductor(graph, inputs, config_patches={"deterministic": True})


@contextmanager
def compiling(
    model: nn.Module, samples: SampleSource, settings: Train, ranks: Ranks, device: torch.device, log: Log
) -> Iterator[None]:
    """Compile a network's blocks for all batches of this rank; until the block ends they run compiled.

    Raises:
        ValueError: a block cannot be compiled; says what to write instead.
    """
    begin, blocks = time.monotonic(), compiled_blocks(model)
    batches = list(_shapes(samples, settings, ranks))
    graphs = Graphs(num_kinds(blocks) * len(batches))
    # Two sizes that are equal by chance are two symbols; and there is nothing for DDP to split.
    symbols = symbol_config.patch(use_duck_shape=False)  # type: ignore[attr-defined] # torch adds it at run time
    limits = dynamo_config.patch(
        recompile_limit=graphs.limit, accumulated_recompile_limit=graphs.limit * 4, optimize_ddp=False
    )
    with symbols, limits:
        for block in blocks:
            block.forward = _with_symbols(torch.compile(block.forward, backend=graphs, fullgraph=True))
        try:
            try:
                for batch in batches:
                    _pass(model, batch, settings, device)
            except TorchDynamoException as error:
                said = " ".join(str(error).split("\n\n")[0].split())
                raise ValueError(
                    f"train.compile: {', '.join(num_compiled(model))} cannot be compiled ({said}); write"
                    " compile: off"
                ) from error
            if ranks.is_first:
                log(f"train: {_told(model, graphs, len(batches), time.monotonic() - begin)}")
            with torch.compiler.set_stance("eager_on_recompile"):
                yield
        finally:
            for block in blocks:
                del block.forward  # the class has its own
            torch.compiler.reset()  # or the graphs would count against those of another training


def _told(model: nn.Module, graphs: Graphs, num_shapes: int, seconds: float) -> str:
    blocks = ", ".join(f"{num} {name}" for name, num in num_compiled(model).items())
    return (
        f"compiled {blocks}: {graphs.num} graphs for {num_shapes} shapes of batches (at most {graphs.limit}) in"
        f" {seconds:.1f} s"
    )


def _shapes(samples: SampleSource, settings: Train, ranks: Ranks) -> Iterator[TrainBatch]:
    """A batch of every bucket and number of pictures of a pass, with padded captions and without padding."""
    part = rank_slice(settings.global_batch_size, ranks.rank, ranks.world_size)
    share, most = part.stop - part.start, settings.microbatch_size
    sizes = {min(most, share), share % most} - {0}
    for bucket in sorted(samples.uids):
        for size in sorted(sizes, reverse=True):
            # The same caption for all needs no padding, and one beside the empty caption most often does.
            one = np.zeros(size, np.int64)
            mixed = one.copy()
            mixed[0] = NULL_CAPTION
            for captions in (one, mixed) if size > 1 else (one,):
                yield _batch(samples, bucket, captions)


def _batch(samples: SampleSource, bucket: tuple[int, int], captions: Any) -> TrainBatch:
    """The first picture of a bucket, once for each caption, without noise."""
    places = np.zeros(len(captions), np.int64)
    found = samples.gather(bucket, places, captions)
    noise = torch.zeros(found.latents.shape)
    uids = samples.uids[bucket][places]
    return TrainBatch(0, bucket, found.latents, found.conditioning, noise, torch.zeros(len(places)), uids)


def _pass(model: nn.Module, batch: TrainBatch, settings: Train, device: torch.device) -> None:
    """Forward and backward, which is compiled at its first use; nothing of it stays."""
    in_bfloat16 = resolve(settings.dtype, device) == "bfloat16"
    whole = slice(0, len(batch.latents))
    losses, _ = sample_losses(model, TrainingObjective(settings), batch, whole, device, in_bfloat16)
    losses.sum().backward()
    model.zero_grad(set_to_none=True)


def _with_symbols(compiled: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*arguments: Any, **named: Any) -> Any:
        _mark((arguments, named))
        return compiled(*arguments, **named)

    return forward


def _mark(value: Any) -> None:
    """Let sizes of a block's inputs be symbols, all but those of channels, and those that are 1.

    (B, C, H, W) has them second, and what has fewer dimensions, as tokens (B, N, D), last.
    """
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for part in value:
            _mark(part)
    elif isinstance(value, torch.Tensor):
        channels = 1 if value.ndim == 4 else value.ndim - 1
        for dimension, size in enumerate(value.shape):
            if dimension != channels and size > 1:
                maybe_mark_dynamic(value, dimension)
