"""What a training tells: its history (kept, hashed), its log lines and TensorBoard (read, not kept)."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
import torch.distributed as dist

from darkroom.config.run import Train
from darkroom.store import write_table
from darkroom.trackers.base import Board
from darkroom.train.checkpoint import StepMark
from darkroom.train.distributed import Ranks
from darkroom.train.encoders import Encoders
from darkroom.train.goodput import JOURNAL, Account, Journal
from darkroom.train.meter import SpeedMeter
from darkroom.train.speeds import SPEEDS, in_words, together
from darkroom.train.step import NUM_BINS, learning_rate_at

BIN_COLUMNS = [f"loss_bin_{number}" for number in range(NUM_BINS)]
COLUMNS = ["loss", "learning_rate", "grad_norm", *BIN_COLUMNS]
# Of trainings with `validation`, after steps where it was measured.
VALIDATION_COLUMNS = ["validation_loss", *(f"validation_{name}" for name in BIN_COLUMNS)]

Log = Callable[[str], None]


def print_line(text: str) -> None:
    """Print a line at once, also into a file."""
    print(text, flush=True)


class History:
    """One row of `columns` for every step of a run: functions of the run alone, never of the clock.

    `rows` is (num_steps, len(columns)) float64 with the first `num_done` filled. `loss_bin_3` is the
    mean loss of the samples with timesteps in [0.3, 0.4), NaN where the step had none. All but the learning rate
    of a step of `skip_steps` is NaN.
    """

    def __init__(self, settings: Train, ranks: Ranks) -> None:
        self._settings, self._ranks = settings, ranks
        self.columns = [*COLUMNS, *(VALIDATION_COLUMNS if settings.validation is not None else ())]
        self.rows = np.full((settings.num_steps, len(self.columns)), np.nan)
        self.num_done = 0
        self._pending: list[torch.Tensor] = []

    def add(self, measures: torch.Tensor) -> None:
        """Remember a step's measures; they may still be on their way from the GPU."""
        self._pending.append(measures)

    def flush(self) -> None:
        """Bring the measures of all ranks together into `rows`. Every rank calls it after the same steps.

        Raises:
            RuntimeError: the loss is not finite.
        """
        if not self._pending:
            return
        table = torch.stack(self._pending)
        self._pending.clear()
        norm = table[:, 1].clone()
        if self._ranks.world_size > 1:
            tables = [torch.empty_like(table) for _ in range(self._ranks.world_size)]
            dist.all_gather(tables, table)
            # In the order of the ranks: a sum taken by all_reduce depends on how many rows it is called with.
            table = torch.stack(tables).sum(dim=0)
        table[:, 1] = norm  # of gradients that DDP has made equal on all ranks
        measures = table.cpu().numpy()
        done = slice(self.num_done, self.num_done + len(measures))
        sums, counts = measures[:, 2 : 2 + NUM_BINS], measures[:, 2 + NUM_BINS :]
        rows = self.rows[done]
        rows[:, 0] = measures[:, 0] / self._settings.global_batch_size
        rows[:, 1] = [learning_rate_at(step, self._settings) for step in range(done.start, done.stop)]
        rows[:, 2] = measures[:, 1]
        rows[:, 3 : 3 + NUM_BINS] = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        self.num_done = done.stop
        places = np.flatnonzero(~np.isfinite(rows[:, [0, 2]]).all(axis=1))
        steps = [done.start + 1 + int(place) for place in places]
        wrong = [step for step in steps if step not in self._settings.skip_steps]
        if wrong:
            without = sorted({*self._settings.skip_steps, wrong[0]})
            raise RuntimeError(
                f"train: loss or gradient of step {wrong[0]} is not finite. Write train.skip_steps: {without} to"
                " go on from the newest checkpoint without that step; or lower train.learning_rate or"
                " train.max_grad_norm, which starts at step 0"
            )

    def add_validation(self, losses: npt.NDArray[np.float64]) -> None:
        """Note the validation losses (len(VALIDATION_COLUMNS),) after the last step that is done."""
        self.rows[self.num_done - 1, len(COLUMNS) :] = losses

    def why_not(self, rows: torch.Tensor) -> str:
        """Why a checkpoint with these rows is of a training of another length; "" where it may go on here.

        Its learning rates tell: everything else that a step depends on is the same in all of a run directory.
        """
        if len(rows) > self._settings.num_steps:
            return f"it is past num_steps {self._settings.num_steps}"
        wanted = [learning_rate_at(step, self._settings) for step in range(len(rows))]
        other = np.flatnonzero(rows[:, 1].numpy() != wanted)
        return f"the learning rate of step {other[0] + 1} was another, as in a decay" if len(other) else ""

    def restore(self, rows: torch.Tensor) -> None:
        """Take over the rows of a checkpoint.

        Raises:
            ValueError: it has left out other steps than `skip_steps` says.
        """
        self.num_done = len(rows)
        left_out = [int(step) + 1 for step in np.flatnonzero(np.isnan(rows[:, 0].numpy()))]
        wanted = sorted(step for step in set(self._settings.skip_steps) if step <= self.num_done)
        if left_out != wanted:
            raise ValueError(
                f"train.skip_steps: of the {self.num_done} steps that are done the training left out {left_out},"
                f" and this says {wanted}: write those, or remove the training's checkpoints to start at step 0"
            )
        self.rows[: self.num_done] = rows.numpy()
        validation = self._settings.validation
        if validation is not None:
            # What was the last step of a training that has grown is none that is looked at.
            steps = range(1, self.num_done + 1)
            others = [s - 1 for s in steps if not validation.is_due(s, self._settings.num_steps)]
            self.rows[others, len(COLUMNS) :] = np.nan

    def done(self) -> torch.Tensor:
        """The filled rows, (num_done, len(columns)) float64."""
        return torch.from_numpy(self.rows[: self.num_done].copy())

    def write(self, path: str | Path, more: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        """Write columns step (completed steps, from 1), `columns` (null for NaN) and `more` as Parquet."""
        columns: dict[str, npt.NDArray[Any]] = {"step": np.arange(1, self.num_done + 1)}
        columns |= {name: self.rows[: self.num_done, i] for i, name in enumerate(self.columns)}
        columns |= more or {}
        write_table(path, pl.DataFrame(columns).fill_nan(None), sort_by="step")


class Progress:
    """Log lines and curves of rank 0, in TensorBoard and wherever `boards` show them."""

    def __init__(
        self,
        run_dir: str | Path,
        settings: Train,
        first_step: int,
        log: Log,
        boards: Mapping[str, Callable[[], Board]] = MappingProxyType({}),
        meter: SpeedMeter | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        self._settings, self._log, self._meter, self._encoders = settings, log, meter, encoders
        self._mark = StepMark(run_dir)
        if self._mark.found or first_step:
            repeated = max(0, self._mark.found - first_step)
            log(f"train: resumed at step {first_step}, {repeated} steps repeated")
        curves = partial(_TensorBoard, Path(run_dir) / "tensorboard", first_step)
        starts: dict[str, Callable[[], Board]] = {"TensorBoard": curves, **boards}
        self._boards: dict[str, Board] = {}
        self._failed: set[str] = set()
        for name, start in starts.items():
            with self._forgiving(name):
                self._boards[name] = start()
        self._journal: Journal | None = None
        with self._forgiving(JOURNAL):
            self._journal = Journal(run_dir, first_step)
        self._start = self._last = time.perf_counter()
        self._first_step = self._last_step = first_step
        self._last_wait = 0.0

    def done(self, step: int) -> None:
        """Note that `step` steps are completed, so that a restart can say how many it repeats."""
        self._mark.set(step)

    def report(self, history: History, seconds_waited: float) -> None:
        """Tell of the steps since the last report: the mean loss, speed, and share of time without data."""
        now, step = time.perf_counter(), history.num_done
        seconds, num = max(now - self._last, 1e-9), step - self._last_step
        if num < 1:
            return
        rows = history.rows[self._last_step : step]
        speed = num * self._settings.global_batch_size / seconds
        wait = (seconds_waited - self._last_wait) / seconds
        left = (now - self._start) / (step - self._first_step) * (self._settings.num_steps - step)
        trained = rows[np.isfinite(rows[:, 0])]
        loss, norm = (float(trained[:, i].mean()) if len(trained) else np.nan for i in (0, 2))
        scalars = {"loss": loss, "learning_rate": rows[-1, 1], "grad_norm": norm}
        (used, measured), (idle, idle_share) = self._measured(seconds), self._idle()
        self._log(
            f"train: step {step}/{self._settings.num_steps}, loss {scalars['loss']:.4f}, "
            f"{speed:.1f} img/s{used}, {wait:.1%} waiting for data{idle}, {_clock(left)} left"
        )
        scalars |= {"images_per_second": speed, "data_wait_share": wait, **measured, **idle_share}
        if (account := self._note(step, seconds_waited)) is not None:
            scalars["goodput"] = account.goodput
        for number, name in enumerate(BIN_COLUMNS):
            found = rows[:, 3 + number][np.isfinite(rows[:, 3 + number])]
            if len(found):
                scalars[f"loss_by_timestep/{name}"] = found.mean()
        for name, board in self._boards.items():
            with self._forgiving(name):
                board.scalars(step, {key: float(value) for key, value in scalars.items()})
        self._last, self._last_step, self._last_wait = now, step, seconds_waited

    def _measured(self, seconds: float) -> tuple[str, dict[str, float]]:
        """What the last `seconds` made of the device, in words and as scalars."""
        with self._forgiving(SPEEDS):
            if self._meter is not None:
                speeds = self._meter.note()
                flops, mfu = together(speeds, seconds)
                found = {"tflops_per_device": None if flops is None else flops / 1e12, "mfu": mfu}
                found |= {f"mfu_by_bucket/{name}": speeds.mfu(of) for name, of in speeds.buckets.items()}
                known = {name: number for name, number in found.items() if number is not None}
                return in_words(flops, mfu, speeds.num_ranks), known
        return "", {}

    def _idle(self) -> tuple[str, dict[str, float]]:
        """The share of time for which encoders had nothing to do, in words and as a curve."""
        idle = None if self._encoders is None else self._encoders.idle_share()
        return ("", {}) if idle is None else (f", encoders {idle:.1%} idle", {"encoders_idle_share": idle})

    @contextmanager
    def beside(self) -> Iterator[None]:
        """In the block the training does something else than steps."""
        began = time.perf_counter()
        yield
        if self._journal is not None:
            self._journal.beside(time.perf_counter() - began)

    def _note(self, step: int, seconds_waited: float) -> Account | None:
        with self._forgiving(JOURNAL):
            return None if self._journal is None else self._journal.note(step, seconds_waited)

    def validation(self, step: int, losses: npt.NDArray[np.float64]) -> None:
        """Tell the validation losses (len(VALIDATION_COLUMNS),) after `step` completed steps."""
        self._log(f"train: step {step}/{self._settings.num_steps}, validation loss {losses[0]:.4f}")
        names = [VALIDATION_COLUMNS[0], *(f"validation_by_timestep/{name}" for name in BIN_COLUMNS)]
        values = {name: float(loss) for name, loss in zip(names, losses, strict=True) if np.isfinite(loss)}
        for name, board in self._boards.items():
            with self._forgiving(name):
                board.scalars(step, values)

    def picture(self, step: int, picture: npt.NDArray[np.uint8] | None) -> None:
        """Show a picture (H, W, 3), if there is one."""
        if picture is None:
            return
        for name, board in self._boards.items():
            with self._forgiving(name):
                board.picture(step, picture)

    def close(self) -> None:
        """Write out what boards still hold back, and tell where the time went."""
        self._mark.close()
        for line in self._meter.speeds.told() if self._meter is not None else ():
            self._log(f"train: {line}")
        account = self._note(self._last_step, self._last_wait)
        if account is not None and self._journal is not None:
            self._log(f"train: {account.told}")
            self._journal.close()
        for name, board in self._boards.items():
            with self._forgiving(name):
                board.close()

    @contextmanager
    def _forgiving(self, name: str) -> Iterator[None]:
        """Curves are read and not kept: a full disk or a service that is away costs them, and is told once."""
        try:
            yield
        except Exception as error:
            if name not in self._failed:
                self._log(f"train: {name} could not be written ({error}); the training goes on")
            self._failed.add(name)


class _TensorBoard:
    """See `trackers.base.Board`."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=first_step)  # type: ignore[no-untyped-call]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, picture: npt.NDArray[np.uint8]) -> None:
        self._writer.add_image("samples", picture, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
