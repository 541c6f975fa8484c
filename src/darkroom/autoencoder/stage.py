"""Training of an autoencoder: from a dataset's pictures to an AutoencoderKL folder."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from darkroom.autoencoder import VERSION
from darkroom.autoencoder.discriminator import built, smallest_picture
from darkroom.autoencoder.network import (
    NUM_SCALED,
    build,
    latent_moments,
    make_optimizers,
    write_autoencoder,
)
from darkroom.autoencoder.pictures import PictureFiles, Pictures, Plan, batches, split
from darkroom.autoencoder.step import COLUMNS, Networks, Stepper
from darkroom.components.base import Component
from darkroom.components.files import moved
from darkroom.config.autoencoder import Autoencoder
from darkroom.lock import locked
from darkroom.perceptual.base import Distance
from darkroom.perceptual.table import PERCEPTUAL
from darkroom.store import COMPUTED_IN, sha256_json, write_table
from darkroom.train.checkpoint import Writer, checkpoint_folder, newest_checkpoint, read_checkpoint
from darkroom.train.determinism import deterministic
from darkroom.train.distributed import find_device, find_ranks
from darkroom.train.precision import resolve_dtype
from darkroom.train.record import Log, print_line
from darkroom.train.rendezvous import LOCK_WAIT_S, timeout_seconds
from darkroom.train.signals import Stopped, StopSignal, stop_signals
from darkroom.train.state import TrainState

# What may change without making another training of it: how it is logged and kept.
_NOT_IN_KEY = {"num_threads", "checkpoint_every_steps", "log_every_steps"}


@dataclass(frozen=True)
class AutoencoderInputs:
    """What a training is made from. `components`: those that the settings name, by name."""

    files: PictureFiles
    settings: Autoencoder
    components: Mapping[str, Component]


def training_key(settings: Mapping[str, Any], upstream: Mapping[str, str]) -> str:
    """12 hex digits that name a training's run directory: other data, options or code give others.

    Args:
        settings: what the stage's manifest holds (`AutoencoderProject.settings`).
        upstream: name -> digest of the manifests above and of the components.
    """
    train = {name: value for name, value in settings["train"].items() if name not in _NOT_IN_KEY}
    return sha256_json({**settings, "train": train, "upstream": dict(upstream), "version": VERSION})[:12]


class History:
    """One row of COLUMNS for every step: functions of the training alone, never of the clock."""

    def __init__(self, num_steps: int) -> None:
        self.rows = np.full((num_steps, len(COLUMNS)), np.nan)
        self.num_done = 0

    def add(self, row: torch.Tensor) -> None:
        """Note a step's measures.

        Raises:
            RuntimeError: the loss or the gradient is not finite.
        """
        self.rows[self.num_done] = row.numpy()
        self.num_done += 1
        if not np.isfinite(
            self.rows[self.num_done - 1, [COLUMNS.index("loss"), COLUMNS.index("grad_norm")]]
        ).all():
            raise RuntimeError(
                f"autoencoder: loss or gradient of step {self.num_done} is not finite. Lower train.learning_rate,"
                " loss.adversarial.weight or train.max_grad_norm, which starts at step 0"
            )

    def done(self) -> torch.Tensor:
        """The filled rows, (num_done, len(COLUMNS)) float64."""
        return torch.from_numpy(self.rows[: self.num_done].copy())

    def restore(self, rows: torch.Tensor) -> None:
        """Take over the rows of a checkpoint."""
        self.num_done = len(rows)
        self.rows[: self.num_done] = rows.numpy()

    def write(self, path: str | Path) -> None:
        """Write step (from 1) and COLUMNS, null for NaN, as Parquet."""
        columns = {name: self.rows[: self.num_done, i] for i, name in enumerate(COLUMNS)}
        table = pl.DataFrame({"step": np.arange(1, self.num_done + 1), **columns}).fill_nan(None)
        write_table(path, table, sort_by="step")

    def line(self, last: int) -> str:
        """The means of the last so many steps, for the log."""
        found = self.rows[max(0, self.num_done - last) : self.num_done]
        names = [name for i, name in enumerate(COLUMNS[:7]) if np.isfinite(found[:, i]).any()]
        means = {name: float(np.nanmean(found[:, COLUMNS.index(name)])) for name in names}
        return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in means.items())


class _Trained(nn.Module):
    """The networks, and which pictures could not be read, as checkpoints hold them besides average and moments."""

    def __init__(self, vae: nn.Module, discriminator: nn.Module | None, num_pictures: int) -> None:
        super().__init__()
        self.vae, self.discriminator = vae, discriminator
        self.lost: torch.Tensor
        self.register_buffer("lost", torch.zeros(num_pictures, dtype=torch.uint8))


def train_autoencoder(
    inputs: AutoencoderInputs,
    run_dir: str | Path,
    model: str | Path,
    history: str | Path,
    *,
    device: str | None = None,
    log: Log = print_line,
) -> dict[str, Any]:
    """Train an autoencoder, going on from the run directory's newest checkpoint if it has one.

    Args:
        run_dir: of this training alone, see `training_key`.
        model: the folder for the averaged AutoencoderKL. history: a row a step.

    Returns:
        Counts: steps, pictures_shown, pictures, held_out, too_small, unreadable, num_parameters, computed_in.

    Raises:
        ValueError: options that do not fit the data, a component that cannot be read, or several ranks.
        RuntimeError: the run directory is in use, or the loss is not finite.
        Stopped: SIGTERM, SIGUSR1 or Ctrl-C came and all is saved; a SystemExit with code 75.
    """
    ranks = find_ranks()
    if ranks.world_size > 1:
        raise ValueError(
            f"autoencoder: {ranks.world_size} ranks are started, and one process trains it; start it without"
            " torchrun or srun"
        )
    settings, on = inputs.settings, find_device(ranks, device)
    _check_discriminator(settings)
    shown, held_out, num_small = split(inputs.files, settings.held_out.share, settings.crop_px)
    with (
        deterministic(on, settings.train.num_threads),
        _locked(run_dir, log) as check,
        stop_signals() as stop,
    ):
        as_train = resolve_dtype(settings.train.as_train(), run_dir, ranks, on, log)
        settings = settings.model_copy(
            update={"train": settings.train.model_copy(update={"dtype": as_train.dtype})}
        )
        log(
            f"autoencoder: learns from {len(shown):,} pictures; {len(held_out):,} are held out, and {num_small:,}"
            f" are smaller than {settings.crop_px} px"
        )
        training = _Training(inputs, settings, shown, on)
        training.run(run_dir, check, stop, log)
        average = training.networks.average.eval()
        moments = latent_moments(average, shown, NUM_SCALED)
        write_autoencoder(average.cpu(), moments, settings.shift, model)
        training.history.write(history)
    of_data = {"pictures": len(shown), "held_out": len(held_out), "too_small": num_small}
    return {**of_data, **training.counts()}


class _Training:
    """The networks, their state, and the steps."""

    def __init__(
        self, inputs: AutoencoderInputs, settings: Autoencoder, shown: Pictures, device: torch.device
    ) -> None:
        self._settings, self._shown = settings, shown
        vae = moved(build(settings, inputs.components), device)
        average = copy.deepcopy(vae).requires_grad_(False)
        adversarial, discriminator = settings.loss.adversarial, None
        if adversarial is not None:
            discriminator = moved(
                built(adversarial.num_layers, adversarial.num_channels, settings.seed), device
            )
        self.networks = Networks(
            vae.train(), average, discriminator, load_perceptual(settings, inputs.components, device)
        )
        self.trained = _Trained(vae, discriminator, len(shown))
        mine, others = make_optimizers(vae, discriminator, settings, device)
        self.history = History(settings.train.num_steps)
        self._state = TrainState(self.trained, average, [*mine, *others], self.history)
        self._stepper = Stepper(self.networks, mine, others, settings, settings.train.dtype == "bfloat16")

    def run(self, run_dir: str | Path, check: Any, stop: StopSignal, log: Log) -> None:
        """The steps that are left, from the newest checkpoint on."""
        step = newest_checkpoint(run_dir, log, set_aside=True)
        if step is not None:
            self._state.restore(read_checkpoint(checkpoint_folder(run_dir, step)))
            log(f"autoencoder: goes on after step {step}")
        train, writer = self._settings.train, Writer(run_dir, log, check)
        plan = Plan(self._settings.seed, train.batch_size, len(self._shown))
        try:
            for batch in batches(self._shown, plan, self.history.num_done, train.num_steps):
                self.trained.lost[batch.batch.lost.tolist()] = 1
                self.history.add(self._stepper.step(batch))
                self._after(stop, writer, log)
            writer.finish()
        finally:
            writer.wait()

    def counts(self) -> dict[str, Any]:
        """What the manifest has of the steps."""
        return {
            "steps": self.history.num_done,
            "pictures_shown": int(self.history.rows[:, COLUMNS.index("pictures")].sum()),
            "unreadable": int(self.trained.lost.sum()),
            "num_parameters": sum(p.numel() for p in self.networks.vae.parameters()),
            COMPUTED_IN: {self._settings.train.dtype: self.history.num_done},
        }

    def _after(self, stop: StopSignal, writer: Writer, log: Log) -> None:
        """Tell and save what is due after a step.

        Raises:
            Stopped: a signal has come, and all is saved.
        """
        train, done = self._settings.train, self.history.num_done
        is_last = done == train.num_steps
        is_stopped = stop.received and not is_last
        if done % train.log_every_steps == 0 or is_last or is_stopped:
            log(f"autoencoder: step {done}/{train.num_steps}, {self.history.line(train.log_every_steps)}")
        if done % train.checkpoint_every_steps == 0 or is_last or is_stopped:
            writer.write(done, self._state.tensors())
        if is_stopped:
            writer.finish()
            log(f"autoencoder: stopped by a signal after step {done}; start it again to go on")
            raise Stopped(done)


def load_perceptual(
    settings: Autoencoder, components: Mapping[str, Component], device: torch.device
) -> Distance | None:
    """The perceptual distance that the settings name; None where they name none."""
    section = settings.loss.perceptual
    return None if section is None else PERCEPTUAL[section.kind].load(section, components, device)


def _check_discriminator(settings: Autoencoder) -> None:
    adversarial = settings.loss.adversarial
    if adversarial is None:
        return
    least = smallest_picture(adversarial.num_layers)
    if settings.crop_px < least:
        raise ValueError(
            f"loss.adversarial.num_layers: {adversarial.num_layers} leave nothing of {settings.crop_px} px; write"
            f" a smaller number, or crop_px: {least} or more"
        )


@contextmanager
def _locked(run_dir: str | Path, log: Log) -> Iterator[Any]:
    with locked(run_dir, timeout_seconds(LOCK_WAIT_S), log) as lock:
        yield lock.check
