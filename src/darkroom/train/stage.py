"""The train stage: from latent shards to a model folder that diffusers loads."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from darkroom.components.files import component_folder, moved
from darkroom.components.text_encoders import load_text_encoder
from darkroom.components.vae import load_vae
from darkroom.config.families import check_base_dtype
from darkroom.config.fits import max_tokens_of
from darkroom.config.pretrained import pretrained_notes
from darkroom.config.run import Train
from darkroom.formats.card import CARD_FILE, card
from darkroom.formats.diffusers import export_pipeline, save_network
from darkroom.formats.lora import save_lora
from darkroom.lock import locked
from darkroom.models.denoiser import Denoiser
from darkroom.models.families import build_denoiser, check_size, use_attention
from darkroom.models.training_components import TrainingComponents
from darkroom.objectives.schedules import half_life_steps
from darkroom.objectives.training import TrainingObjective
from darkroom.sample.families import make_family_pipeline
from darkroom.sample.schedulers import make_scheduler
from darkroom.store import COMPUTED_IN, replacing
from darkroom.trackers.base import Board
from darkroom.train.adaptive import optimizer_notes
from darkroom.train.averages import KeptAverages
from darkroom.train.compile_choice import num_compiled, resolve_compile
from darkroom.train.data import SampleSource, joint_null_rate, num_pictures
from darkroom.train.determinism import deterministic
from darkroom.train.distributed import Ranks, find_device, find_ranks, training_ranks, wait_for_first
from darkroom.train.encode import encode_for_others
from darkroom.train.encoders import meeting_encoders
from darkroom.train.index import INDEX_FILE
from darkroom.train.inputs import TrainInputs
from darkroom.train.mixed import MixedPlan
from darkroom.train.parallel import is_sharded
from darkroom.train.phases import FinishedTraining
from darkroom.train.plan import parse_uids
from darkroom.train.precision import resolve_dtype
from darkroom.train.record import Log, print_line
from darkroom.train.rendezvous import LOCK_WAIT_S, process_group, timeout_seconds
from darkroom.train.samples import DrawSamples, drawing_from
from darkroom.train.signals import Stopped, stop_signals
from darkroom.train.snapshots import ExportWith, described
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun


@dataclass(frozen=True)
class TrainOutputs:
    """What the stage writes.

    run_dir: checkpoints and TensorBoard of one set of options and one cache: `run_key` names it.
    model: the averaged pipeline. untrained: the network at step 0. history: a row a step.
    """

    run_dir: str | Path
    model: str | Path
    untrained: str | Path
    history: str | Path


def train(
    inputs: TrainInputs,
    outputs: TrainOutputs,
    last_step: int | None = None,
    *,
    draw_samples: DrawSamples | None = None,
    boards: Mapping[str, Callable[[], Board]] = MappingProxyType({}),
    device: str | None = None,
    log: Log = print_line,
) -> dict[str, Any]:
    """Train a network on cached latents, going on from the run directory's newest checkpoint if it has one.

    Every rank calls it with the same arguments (`train.distributed.find_ranks`); rank 0 writes, and the last
    `train.encoder_ranks` ranks only encode.

    last_step: where it has stopped, of one that was judged on the way; None for `num_steps`.

    Returns counts: steps, samples_seen, computed_in (dtype -> steps), compiled (class -> blocks, where some are),
        num_parameters and the account of the batch
        plan; of a rank that only encodes nothing.
    Raises:
        ValueError: a stale shard, or options that do not fit the data.
        RuntimeError: the run directory is in use, the loss is not finite, or a rank is missing or failed.
        Stopped: SIGTERM, SIGUSR1 or Ctrl-C came and all is saved; a SystemExit with code 75.
    """
    if _only_encodes(inputs, outputs.run_dir, device, log):
        return {}
    how = _How(draw_samples, boards, device, log)
    with _trained(inputs, outputs.run_dir, how, last_step, outputs.untrained) as done:
        if done.is_first:
            done.trainer.history.write(outputs.history, _samples_by_step(done.trainer))
            done.export(outputs.model)
    return _counts(done.trainer)


def train_until(
    inputs: TrainInputs,
    run_dir: str | Path,
    step: int,
    model: str | Path,
    *,
    draw_samples: DrawSamples | None = None,
    boards: Mapping[str, Callable[[], Board]] = MappingProxyType({}),
    device: str | None = None,
    log: Log = print_line,
) -> None:
    """As `train`, which goes on from here, to a step on the way; writes the averaged pipeline of that step.

    The run directory keeps it too, so that a training which is further has it still.

    Raises:
        RuntimeError: the training is past that step and has no pipeline of it; or as in `train`.
    """
    if _only_encodes(inputs, run_dir, device, log):
        return
    kept = KeptAverages(run_dir)
    with _trained(inputs, run_dir, _How(draw_samples, boards, device, log), last_step=step) as done:
        if done.is_first:
            if done.trainer.history.num_done == step:
                kept.keep(step, done.export)
            kept.copy(step, model)


@dataclass(frozen=True)
class _How:
    """See `train`."""

    draw_samples: DrawSamples | None
    boards: Mapping[str, Callable[[], Board]]
    device: str | None
    log: Log


@dataclass(frozen=True)
class _Trained:
    """A training that is as far as it should be; `export` writes its averaged pipeline into a folder."""

    trainer: Trainer
    export: Callable[[str | Path], None]

    @property
    def is_first(self) -> bool:
        return self.trainer.run.ranks.is_first


@contextmanager
def _trained(
    inputs: TrainInputs,
    run_dir: str | Path,
    how: _How,
    last_step: int | None = None,
    untrained: str | Path | None = None,
) -> Iterator[_Trained]:
    """Train to `last_step` or to the last one; in the block ranks have left each other, and the lock is held."""
    settings, components, log = inputs.settings, inputs.components, how.log
    everyone, ranks = _find_ranks(settings)
    assert ranks is not None, "others only encode"
    on, num_encoders = find_device(ranks, how.device), settings.encoder_ranks
    with ExitStack() as stack:
        stack.enter_context(deterministic(on, settings.num_threads))
        with (
            process_group(everyone, on, inputs.key, log, num_encoders) as store,
            meeting_encoders(store, everyone, num_encoders, on, log) as encoders,
        ):
            opened = inputs.files.open(components, on, ranks, Path(run_dir) / INDEX_FILE, encoders)
            samples, held_out = inputs.split(opened)
            check = stack.enter_context(_run_lock(run_dir, ranks, log))
            settings = resolve_dtype(settings, run_dir, ranks, on, log)
            settings = resolve_compile(settings, run_dir, ranks, on, log)
            if ranks.is_first:
                _describe(settings, samples, components, log)
                if held_out is not None:
                    log(f"train: {num_pictures(held_out)} pictures are held out, and never trained on")
            stop = stack.enter_context(stop_signals())  # one that comes during the export lets it finish
            model, average = _initial_models(inputs, settings, opened, ranks, on)
            if ranks.is_first and untrained is not None:
                _write_network(average, untrained)
            wait_for_first(ranks)
            if stop.received:
                raise Stopped(0)
            mean_pixels = _mean_pixels(samples)
            in_pipeline = partial(_pipeline, components, make_scheduler(settings, mean_pixels))
            on_sample = how.draw_samples and drawing_from(in_pipeline, how.draw_samples)
            priors = None if inputs.priors is None else parse_uids(list(inputs.priors))
            trainer = Trainer(
                Training(
                    *(samples, model, average, settings, inputs.seed, priors, inputs.initial),
                    *(inputs.mixture(samples), held_out),
                ),
                TrainingRun(run_dir, ranks, log, on_sample, check, how.boards, encoders),
            )
            _tell_shares(trainer, log)
            if ranks.is_first and settings.post_hoc_ema is not None:
                ExportWith(components.cache, opened.sizes, mean_pixels).write(run_dir)
                log(f"train: {described(settings, _num_trained(model))}")
            trainer.train(last_step)
        yield _Trained(trainer, lambda folder: _export(in_pipeline(average.cpu()), average, settings, folder))


def _initial_models(
    inputs: TrainInputs, settings: Train, samples: SampleSource, ranks: Ranks, device: torch.device
) -> tuple[Denoiser, Denoiser]:
    """The network to train, and its average; on the device, or on the CPU where shards are cut from them."""
    if inputs.model.lora is not None:
        check_base_dtype(inputs.model.lora.base_dtype, device.type)
    model = build_denoiser(inputs.model, samples.sizes, inputs.seed, inputs.components.pretrained)
    if not is_sharded(settings, ranks):
        model = moved(model, device)
    for width, height in samples.uids:
        check_size(model, samples.latent_shape((width, height)), f"bucket {width}x{height}")
    average = copy.deepcopy(model).eval().requires_grad_(False)
    use_attention(model, inputs.model.attention, device, settings.dtype)
    return model.train(), average


def export_reconstructed(
    finished: FinishedTraining, weights: Mapping[str, torch.Tensor], folder: str | Path
) -> None:
    """Write the pipeline of a finished training with other averaged weights, as the training wrote its own.

    weights: of all that was trained, by name, as `train.reconstruct` gives them.

    Raises:
        ValueError: they are of another model, or what the export needs is no longer there.
    """
    settings, found = finished.settings, ExportWith.read(finished.folder)
    components = TrainingComponents.from_config(found.cache, finished.model, finished.components)
    average = build_denoiser(finished.model, found.sizes, finished.seed, components.pretrained)
    trained = {name for name, p in average.named_parameters() if p.requires_grad}
    if trained != weights.keys():
        raise ValueError(
            f"{finished.folder}: its snapshots have {len(weights)} weights, and the run's model trains"
            f" {len(trained)}, of other names or numbers"
        )
    average.load_state_dict(dict(weights), strict=False)
    average.eval().requires_grad_(False)
    scheduler = make_scheduler(settings, found.mean_pixels)
    _export(_pipeline(components, scheduler, average), average, settings, folder)


def _num_trained(model: Denoiser) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _write_network(network: Denoiser, folder: str | Path) -> None:
    with replacing(folder) as beside:
        save_network(network, beside)


def _tell_shares(trainer: Trainer, log: Log) -> None:
    """What each of several datasets gives to the training: a function of the plan, so it is known before."""
    if not isinstance(trainer.plan, MixedPlan) or not trainer.run.ranks.is_first:
        return
    account = trainer.plan.account(trainer.settings.num_steps)
    for name, visits in account["visits_by_dataset"].items():
        number = account["samples_by_dataset"][name]
        log(
            f"train: {name} gives {visits} of {account['num_visits']} samples, {account['share_given'][name]:.2%}"
            f" (asked: {account['share_asked'][name]:.2%}); each of its {number} pictures {visits / number:.1f}"
            " times"
        )
    if account["in_several_datasets"]:
        log(f"train: {account['in_several_datasets']} pictures are in several datasets, and shown for each")


def _samples_by_step(trainer: Trainer) -> dict[str, Any]:
    """Columns of the history: how many samples of each step each of several datasets has given."""
    if not isinstance(trainer.plan, MixedPlan):
        return {}
    found = trainer.plan.visits_by_dataset(trainer.history.num_done)
    return {f"samples_{name}": numbers for name, numbers in found.items()}


def _counts(trainer: Trainer) -> dict[str, Any]:
    """What `train` returns."""
    settings, num_done = trainer.settings, trainer.history.num_done
    num_trained = num_done - len(set(settings.skip_steps))
    initial = trainer.training.initial
    return {
        "steps": num_done,
        "samples_seen": num_trained * settings.global_batch_size,
        **({"steps_skipped": num_done - num_trained} if num_trained < num_done else {}),
        **_held_out_counts(trainer),
        COMPUTED_IN: {settings.dtype: num_done},
        **({"compiled": num_compiled(trainer.training.model)} if settings.compile == "on" else {}),
        "num_parameters": sum(p.numel() for p in trainer.training.model.parameters()),
        **trainer.plan.account(num_done),
        **(
            {}
            if initial is None
            else {"steps_before": initial.num_steps, "samples_before": initial.num_samples}
        ),
    }


def _held_out_counts(trainer: Trainer) -> dict[str, int]:
    held_out = trainer.training.held_out
    return {} if held_out is None else {"held_out": num_pictures(held_out)}


@contextmanager
def _run_lock(run_dir: str | Path, ranks: Ranks, log: Log) -> Iterator[Callable[[], None]]:
    """Rank 0 alone trains in the run directory until the block ends; gives what to call before writing there."""
    if not ranks.is_first:
        yield lambda: None
        return
    with locked(run_dir, timeout_seconds(LOCK_WAIT_S), log) as lock:
        yield lock.check


def _find_ranks(settings: Train) -> tuple[Ranks, Ranks | None]:
    """This rank among all, and among those that train; None where it only encodes."""
    everyone = find_ranks()
    num = everyone.world_size - settings.encoder_ranks
    if num > settings.global_batch_size:
        that_train = " that train" if settings.encoder_ranks else ""
        raise ValueError(
            f"train.global_batch_size {settings.global_batch_size} is smaller than the "
            f"{num} ranks{that_train}; start at most {settings.global_batch_size + settings.encoder_ranks}"
        )
    return everyone, training_ranks(everyone, settings.encoder_ranks)


def _only_encodes(inputs: TrainInputs, run_dir: str | Path, device: str | None, log: Log) -> bool:
    """Whether this rank is one that encodes, and has done so until the training has ended."""
    everyone, ranks = _find_ranks(inputs.settings)
    if ranks is None:
        encode_for_others(inputs, run_dir, everyone, device, log)
    return ranks is None


def _describe(settings: Train, cache: SampleSource, components: TrainingComponents, log: Log) -> None:
    """Tell what the options come to: where the loss's weight lies, and how long the average remembers."""
    if components.pretrained is not None:
        pretrained, vae = (component_folder(part) for part in (components.pretrained, components.vae))
        prediction, tokens = settings.objective.prediction, max_tokens_of(components.cache)
        for note in pretrained_notes(prediction, pretrained, vae, tokens):
            log(f"train: note: {note}")
    for note in optimizer_notes(settings):
        log(f"train: note: {note}")
    log(f"train: {TrainingObjective(settings).describe(list(cache.uids))}")
    log(
        f"train: {joint_null_rate(settings.caption_dropout, settings.encoder_dropout):.2%} of the samples show no"
        " text encoder a caption"
    )
    log(
        f"train: the average of the weights has a half-life of {half_life_steps(settings.ema_decay):.0f} of "
        f"{settings.num_steps} steps"
    )


def _mean_pixels(cache: SampleSource) -> float:
    """Of the pictures as they are trained on."""
    pixels = sum(width * height * len(uids) for (width, height), uids in cache.uids.items())
    return pixels / max(1, num_pictures(cache))


def _export(pipeline: Any, average: Denoiser, settings: Train, folder: str | Path) -> None:
    """The model's folder, with its adapters, if it has some, and a README."""

    def add(beside: Path) -> None:
        save_lora(average, beside)
        (beside / CARD_FILE).write_text(card(pipeline, settings.sampling), encoding="utf-8")

    export_pipeline(pipeline, folder, add)


def _pipeline(components: TrainingComponents, scheduler: Any, average: Denoiser) -> Any:
    encoders = [load_text_encoder(component) for component in components.text_encoders]
    is_single = components.cache.text_encoder is not None
    return make_family_pipeline(
        average, load_vae(components.vae), encoders, components.cache.encoders, is_single, scheduler
    )
