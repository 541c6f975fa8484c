"""What a training leaves on its way: lines in the log, checkpoints, snapshots and pictures."""

from contextlib import nullcontext

from darkroom.config.run import Train
from darkroom.train.checkpoint import Writer
from darkroom.train.distributed import SINGLE, RankGroup, wait_for_first
from darkroom.train.meter import SpeedMeter
from darkroom.train.parallel import DistributedModel
from darkroom.train.record import History, Progress
from darkroom.train.snapshots import snapshot_folder
from darkroom.train.state import TrainState
from darkroom.train.training import TrainingRun
from darkroom.train.validation import Validator


class Outputs:
    """Every rank has one, and calls it after the same steps; rank 0 writes.

    Use it as a context manager: when the block ends, nothing is being written any more.
    """

    def __init__(
        self,
        model: DistributedModel,
        state: TrainState[History],
        settings: Train,
        run: TrainingRun,
        last_step: int,
        validator: Validator | None = None,
        meter: SpeedMeter | None = None,
    ) -> None:
        self._model, self._state, self._settings, self._run = model, state, settings, run
        self._last_step, self._validator = last_step, validator
        ranks, num_done = run.ranks, state.history.num_done
        group = RankGroup(ranks) if model.is_sharded else SINGLE
        self._last_stable = settings.num_stable_steps
        self._writer = Writer(run.folder, run.log, run.check, group, self._last_stable)
        told = run.folder, settings, num_done, run.log, run.boards, meter, run.encoders
        self._progress = Progress(*told) if ranks.is_first else None

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
        is_last = is_stopped or step == self._last_step
        # From the last step before a decay a longer training goes on.
        is_saved = is_last or step % settings.checkpoint_every_steps == 0 or step == self._last_stable
        is_kept = self._is_kept(step)
        is_validated = self._is_validated(step)
        if self._run.encoders is not None:
            self._run.encoders.note(seconds_waited)
        if progress is not None:
            progress.done(step)
        if is_saved or is_kept or is_validated or step % settings.log_every_steps == 0:
            self._state.history.flush()
            if progress is not None:
                progress.report(self._state.history, seconds_waited)
        with nullcontext() if progress is None else progress.beside():
            if is_validated:
                self._validate(step)
            if is_saved or is_kept:
                self._save(step, is_saved, is_kept)
            is_drawn = self._run.on_sample is not None and _is_due(step, settings)
            if is_drawn:
                self._draw(step)
            if is_last:
                self._writer.finish()
            if is_saved or is_kept or is_drawn:
                # Rank 0 may have been busy for longer than a collective waits; and a launcher ends all ranks when
                # one has left, while it may still be writing.
                wait_for_first(self._run.ranks)

    def _is_validated(self, step: int) -> bool:
        validation = self._settings.validation
        if self._validator is None or validation is None:
            return False
        return validation.is_due(step, self._settings.num_steps)

    def _validate(self, step: int) -> None:
        assert self._validator is not None
        losses = self._validator.measure(self._model.average)
        self._state.history.add_validation(losses)
        if self._progress is not None:
            self._progress.validation(step, losses)

    def _draw(self, step: int) -> None:
        assert self._run.on_sample is not None
        with self._model.whole_average() as drawn:
            if self._progress is not None:
                self._progress.picture(step, self._run.on_sample(drawn, step))

    def _is_kept(self, step: int) -> bool:
        """Whether a snapshot is due; a training that is judged may stop at any of its last steps."""
        wanted = self._settings.post_hoc_ema
        return wanted is not None and (step % wanted.snapshot_every_steps == 0 or step == self._last_step)

    def _save(self, step: int, is_saved: bool, is_kept: bool) -> None:
        if not self._model.is_sharded and self._progress is None:
            return
        powers = self._state.powers
        folder = snapshot_folder(self._run.folder, self._settings, step) if is_kept else None
        tensors = self._state.tensors() if is_saved or powers is None else powers.tensors()
        self._writer.write(step, tensors, folder, is_saved)


def _is_due(step: int, settings: Train) -> bool:
    return settings.sample_every_steps > 0 and step % settings.sample_every_steps == 0
