"""The training loop: from a checkpoint or from step 0 to the last step, or to a signal."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from darkroom.config.run import Train
from darkroom.train.checkpoint import (
    Saved,
    checkpoint_folder,
    newest_checkpoint,
    read_checkpoint,
)
from darkroom.train.data import SampleSource
from darkroom.train.distributed import Ranks, StopVote, first_finds, wait_for_all
from darkroom.train.loader import Loader, TrainBatch
from darkroom.train.outputs import OnSample, Outputs
from darkroom.train.paired import PairedPlan
from darkroom.train.parallel import Placed
from darkroom.train.phases import Initial, begin_from, restore_weights
from darkroom.train.plan import BatchPlan
from darkroom.train.record import History, Log
from darkroom.train.seen import find_samples_seen
from darkroom.train.step import Stepper, make_optimizers

# EX_TEMPFAIL of sysexits.h: stopped by a signal, saved; the same command goes on from there.
STOPPED_EXIT_CODE = 75


class Stopped(SystemExit):
    """A signal asked the training to stop; a checkpoint is written. Ends the process with code 75."""

    def __init__(self, step: int) -> None:
        super().__init__(STOPPED_EXIT_CODE)
        self.step = step


class StopSignal:
    """Whether SIGTERM or SIGUSR1 has come."""

    def __init__(self) -> None:
        self.received = False

    def __call__(self, *_: object) -> None:
        self.received = True


@contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Catch SIGTERM and SIGUSR1 inside the block (only the main thread can)."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def fit(
    cache: SampleSource,
    model: nn.Module,
    ema: nn.Module,
    settings: Train,
    seed: int,
    run_dir: str | Path,
    ranks: Ranks,
    log: Log,
    on_sample: OnSample | None = None,
    check: Callable[[], None] = lambda: None,
    plan: BatchPlan | PairedPlan | None = None,
    initial: Initial | None = None,
) -> History:
    """Train `model` and its average `ema` in place, going on from the newest checkpoint in `run_dir`.

    Every rank calls it; rank 0 writes. The models are on their device and hold the initial weights; a run
    without a checkpoint of its own takes those of `initial`. `plan` is the plain one of all pictures unless given.
    `check` is called before a checkpoint is put in place, and may raise.
    Returns the history of all steps since step 0. Raises what `train.stage.train` does.
    """
    placed = Placed(model, ema, settings, ranks)
    optimizers, history = make_optimizers(model, settings), History(settings, ranks)
    _begin(placed, optimizers, history, settings, run_dir, ranks, log, initial)
    if history.num_done >= settings.num_steps:
        with placed.whole_average():
            return history
    steps_before = initial.num_steps if initial is not None else 0
    stepper = Stepper(placed.shared(), optimizers, placed.average, settings, ranks.world_size, steps_before)
    plan = plan or BatchPlan(seed, settings.global_batch_size, cache.uids)
    first, on_gpu = history.num_done, stepper.device.type == "cuda"
    vote, seen = StopVote(ranks), find_samples_seen(run_dir, ranks)
    outputs = Outputs(placed, optimizers, history, settings, ranks, run_dir, log, on_sample, check)
    with stop_signals() as stop, outputs:
        loader = Loader(cache, plan, settings, seed, first, ranks.rank, ranks.world_size, on_gpu)
        if ranks.world_size > 1 and not placed.is_sharded:
            _settle_buckets(stepper, loader.make(0))
        with loader:
            for batch in loader:
                history.add(stepper.step(batch))
                step = batch.step + 1
                if seen is not None:
                    seen.add(batch)
                is_stopped = vote.count(stop.received) and step < settings.num_steps
                outputs.after(step, is_stopped, loader.seconds_waited)
                if is_stopped:
                    # A launcher ends all ranks when one has left, and rank 0 may still be writing.
                    wait_for_all(ranks)
                    if ranks.is_first:
                        log(f"train: stopped by a signal after step {step}; start it again to go on")
                    raise Stopped(step)
    with placed.whole_average():
        return history


def _begin(
    placed: Placed,
    optimizers: Sequence[torch.optim.Optimizer],
    history: History,
    settings: Train,
    run_dir: str | Path,
    ranks: Ranks,
    log: Log,
    initial: Initial | None,
) -> None:
    """Take over the state of the newest checkpoint, or else that of the phase before."""
    step = first_finds(lambda: newest_checkpoint(run_dir, log), ranks)
    if step is not None:
        saved = read_checkpoint(checkpoint_folder(run_dir, step))
        restore(saved, placed.model, placed.average, optimizers, history)
    elif initial is not None:
        begin_from(initial, placed.model, placed.average, optimizers if settings.carry_optimizer else [])
        log(f"train: goes on from {initial.run}, {initial.num_steps} steps in")


def _settle_buckets(stepper: Stepper, batch: TrainBatch) -> None:
    """One backward pass without an update, the same at every start.

    After its first pass DDP lays gradients out anew for the exchange, and the last bits of a sum over ranks
    depend on the layout. So a resumed training must have it from its first step on.
    """
    stepper.losses(batch, slice(0, stepper.settings.microbatch_size))[0].sum().backward()
    for optimizer in stepper.optimizers:
        optimizer.zero_grad(set_to_none=True)


def restore(
    saved: Saved,
    model: nn.Module,
    ema: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    history: History,
) -> None:
    """The inverse of `outputs.snapshot`, in place."""
    history.restore(saved.tensors["history"])
    restore_weights(saved, model, ema, optimizers)
