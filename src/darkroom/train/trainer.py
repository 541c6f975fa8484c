"""One training on a page: from step 0, a checkpoint or an earlier phase to the last step, or to a signal."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from darkroom.train.checkpoint import checkpoint_folder, newest_checkpoint, read_checkpoint
from darkroom.train.distributed import StopVote, broadcast_from_first
from darkroom.train.flops import peak_flops, training_flops
from darkroom.train.loader import BatchMaker, Loader, TrainBatch
from darkroom.train.meter import SpeedMeter
from darkroom.train.outputs import Outputs
from darkroom.train.paired import make_plan
from darkroom.train.parallel import DistributedModel, compute_device
from darkroom.train.power_averages import PowerAverages
from darkroom.train.record import History
from darkroom.train.seen import find_samples_seen
from darkroom.train.signals import Stopped, StopSignal, stop_signals
from darkroom.train.speeds import Speeds
from darkroom.train.state import TrainState, saved_history
from darkroom.train.step import Stepper, make_optimizers
from darkroom.train.training import Training, TrainingRun
from darkroom.train.validation import Validator


class Trainer:
    """Trains a network: the same training gives the same bytes, however often it is stopped and started.

    Every rank makes one. `plan` says which pictures make each batch, `state` is all that the next step depends on.

    Raises:
        ValueError: options that do not fit the data or the number of ranks.
    """

    def __init__(self, training: Training, run: TrainingRun) -> None:
        self.training, self.run, self.settings = training, run, training.settings
        buckets, size = training.samples.uids, self.settings.global_batch_size
        before = 0 if training.initial is None else -(-training.initial.num_samples // size)
        self.plan = make_plan(training.seed, size, buckets, training.priors, before, training.mixture)
        self.model = DistributedModel(training.model, training.average, self.settings, run.ranks)
        optimizers = make_optimizers(training.model, self.settings)
        self.history = History(self.settings, run.ranks)
        wanted = self.settings.post_hoc_ema
        powers = None if wanted is None else PowerAverages(self.model.model, wanted.widths)
        self.state = TrainState(self.model.model, self.model.average, optimizers, self.history, powers)

    def train(self, last_step: int | None = None) -> History:
        """Train to `last_step`, None: to `num_steps`; returns the history of all steps since step 0.

        It may be further already, where a checkpoint is; what comes after `last_step` goes on from there.

        Raises:
            RuntimeError: the loss is not finite, or another rank failed.
            Stopped: a signal came and all is saved; a SystemExit with code 75.
        """
        last_step = self.settings.num_steps if last_step is None else last_step
        self._restore()
        if self.history.num_done < last_step:
            self._go_on(last_step)
        with self.model.whole_average():
            return self.history

    def _restore(self) -> None:
        """Take over the state of the newest checkpoint, or else that of the phase before."""
        folder, initial = self.run.folder, self.training.initial
        step = broadcast_from_first(
            lambda: newest_checkpoint(folder, self.run.log, set_aside=True, why_not=self._why_not),
            self.run.ranks,
        )
        if step is not None:
            self.state.restore(read_checkpoint(checkpoint_folder(folder, step)))
        elif initial is not None:
            initial.load_into(self.state, self.settings.carry_optimizer)
            self.run.log(f"train: goes on from {initial.run}, {initial.num_steps} steps in")

    def _why_not(self, folder: Path) -> str:
        """Why a checkpoint of the run directory is none of this training, or ""."""
        return self.history.why_not(saved_history(read_checkpoint(folder)))

    def _speed_meter(self, device: torch.device) -> SpeedMeter:
        """What measures this rank's steps."""
        training, settings = self.training, self.settings
        trained = [name for name, p in training.model.named_parameters() if p.requires_grad]
        # The average has the model's shape, and neither shards nor kernels that shapes alone cannot pass.
        whole = training.average
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        known = Speeds(name, self.run.ranks.world_size, peak_flops(name, settings.dtype), {})

        def count(batch: TrainBatch) -> int:
            return training_flops(whole, trained, batch.latents[:1], batch.conditioning[:1])

        return SpeedMeter(self.run.folder, device, known, settings.global_batch_size, count, self.run.log)

    def _go_on(self, last_step: int) -> None:
        """The steps that are left until then, on compiled blocks where that is asked for."""
        with stop_signals() as stop, self._compiled():
            self._steps(last_step, stop)

    def _compiled(self) -> AbstractContextManager[None]:
        """Before DDP is put around the network: passes without an exchange are none of DDP's."""
        if self.settings.compile == "off":
            return nullcontext()
        # What torch.compile imports is loaded for it alone.
        from darkroom.train.compiled import compiling

        model, run = self.model.model, self.run
        return compiling(
            *(model, self.training.samples, self.settings), run.ranks, compute_device(model), run.log
        )

    def _steps(self, last_step: int, stop: StopSignal) -> None:
        """Batch, step, record, save."""
        training, settings, ranks = self.training, self.settings, self.run.ranks
        steps_before = 0 if training.initial is None else training.initial.num_steps
        state = self.state
        stepper = Stepper(
            self.model.for_training(),
            state.optimizers,
            state.average,
            settings,
            ranks.world_size,
            steps_before,
        )
        batches = BatchMaker(training.samples, self.plan, settings, training.seed, ranks)
        vote, seen = StopVote(ranks), find_samples_seen(self.run.folder, ranks)
        held_out = training.held_out
        validator = None if held_out is None else Validator(held_out, settings, ranks)
        meter = self._speed_meter(stepper.device) if ranks.is_first else None
        outputs = Outputs(self.model, state, settings, self.run, last_step, validator, meter)
        with outputs:
            if ranks.world_size > 1 and not self.model.is_sharded:
                stepper.warm_up(batches.make(0))
            num_at_once = 1 if self.run.encoders is None else self.run.encoders.num_at_once
            pin_memory = stepper.device.type == "cuda"
            with Loader(batches, self.history.num_done, last_step, pin_memory, num_at_once) as loader:
                for batch in loader:
                    step = batch.step + 1
                    is_skipped = step in settings.skip_steps
                    if is_skipped:
                        self.history.add(stepper.skipped())
                    else:
                        with nullcontext() if meter is None else meter.step(batch):
                            self.history.add(stepper.step(batch))
                    if state.powers is not None:
                        state.powers.update(step)
                    if seen is not None and not is_skipped:
                        seen.add(batch)
                    is_stopped = vote.count(stop.received) and step < last_step
                    outputs.after(step, is_stopped, loader.seconds_waited)
                    if is_stopped:
                        if ranks.is_first:
                            self.run.log(
                                f"train: stopped by a signal after step {step}; start it again to go on"
                            )
                        raise Stopped(step)
