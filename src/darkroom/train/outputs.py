"""What a training leaves on its way: lines in the log, checkpoints and pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from darkroom.config.run import Train
from darkroom.train.checkpoint import Writer
from darkroom.train.distributed import ALONE, Ranks, Words
from darkroom.train.parallel import Placed
from darkroom.train.record import History, Log, Progress

# Called with (averaged model, completed steps); may return a picture (H, W, 3) uint8 for TensorBoard.
OnSample = Callable[[nn.Module, int], npt.NDArray[np.uint8] | None]


class Outputs:
    """Every rank has one, and calls it after the same steps; rank 0 writes.

    Use it as a context manager: when the block ends, nothing is being written any more.
    """

    def __init__(
        self,
        placed: Placed,
        optimizers: Sequence[torch.optim.Optimizer],
        history: History,
        settings: Train,
        ranks: Ranks,
        run_dir: str | Path,
        log: Log,
        on_sample: OnSample | None,
        check: Callable[[], None],
    ) -> None:
        self._placed, self._optimizers, self._history = placed, optimizers, history
        self._settings, self._on_sample = settings, on_sample
        self._writer = Writer(run_dir, log, check, Words(ranks) if placed.is_sharded else ALONE)
        self._progress = Progress(run_dir, settings, history.num_done, log) if ranks.is_first else None

    def __enter__(self) -> "Outputs":
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.close()
        self._writer.wait()

    def after(self, step: int, is_stopped: bool, seconds_waited: float) -> None:
        """Tell and save what is due after `step` completed steps; all of it after the last one.

        is_stopped: no step follows, though there are more. seconds_waited: for data, since the start.
        """
        settings, progress = self._settings, self._progress
        is_last = is_stopped or step == settings.num_steps
        is_saved = is_last or step % settings.checkpoint_every_steps == 0
        if progress is not None:
            progress.done(step)
        if is_saved or step % settings.log_every_steps == 0:
            self._history.flush()
            if progress is not None:
                progress.report(self._history, seconds_waited)
        if is_saved:
            self._save(step)
        if self._on_sample is not None and _is_due(step, settings):
            with self._placed.whole_average() as drawn:
                if progress is not None:
                    progress.picture(step, self._on_sample(drawn, step))
        if is_last:
            self._writer.finish()

    def _save(self, step: int) -> None:
        placed = self._placed
        if placed.is_sharded or self._progress is not None:
            tensors = snapshot(placed.model, placed.average, self._optimizers, self._history)
            self._writer.write(step, tensors)


def _is_due(step: int, settings: Train) -> bool:
    return settings.sample_every_steps > 0 and step % settings.sample_every_steps == 0


def snapshot(
    model: nn.Module, ema: nn.Module, optimizers: Sequence[torch.optim.Optimizer], history: History
) -> dict[str, torch.Tensor]:
    """Everything that the next step depends on, by name, and the history. No copies."""
    tensors = {f"weights/{name}": t for name, t in model.state_dict().items()}
    tensors |= {f"ema/{name}": t for name, t in ema.state_dict().items()}
    for name, weight in model.named_parameters():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(weight, {}).items():
                # bitsandbytes counts steps in a plain number.
                tensors[f"{key}/{name}"] = value if isinstance(value, torch.Tensor) else torch.tensor(value)
    return tensors | {"history": history.done()}
