"""The train stage: from latent shards to a model folder that diffusers loads."""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from darkroom.config.run import Train
from darkroom.models.attention import use_attention
from darkroom.models.components import load_vae, moved
from darkroom.models.denoiser import Denoiser
from darkroom.models.families import AnyFamily, build_denoiser, check_size
from darkroom.models.lora import has_lora
from darkroom.models.parts import Parts
from darkroom.models.text_encoders import load_text_encoder
from darkroom.objectives.schedules import half_life_steps
from darkroom.objectives.training import TrainingObjective
from darkroom.sample.export import export_pipeline
from darkroom.sample.families import make_family_pipeline, save_lora, save_network
from darkroom.sample.schedulers import make_scheduler
from darkroom.store import replacing, sha256_json
from darkroom.train.data import LatentCache, SampleSource, joint_null_rate
from darkroom.train.distributed import Ranks, find_device, find_ranks
from darkroom.train.lock import LOCK_WAIT_S, locked
from darkroom.train.loop import Stopped, fit, stop_signals
from darkroom.train.online import OnlineEncoder
from darkroom.train.outputs import OnSample
from darkroom.train.paired import PairedPlan, make_plan
from darkroom.train.parallel import is_sharded
from darkroom.train.phases import Initial
from darkroom.train.plan import BatchPlan, parse_uids
from darkroom.train.record import History, Log, print_line
from darkroom.train.rendezvous import joined, seconds_of

# Called on rank 0 with (pipeline of the averaged weights, completed steps); draws and keeps pictures as it
# likes, and may return one (H, W, 3) uint8 for TensorBoard. It must not touch torch's global state.
DrawSamples = Callable[[Any, int], npt.NDArray[np.uint8] | None]


def train(
    shards: Sequence[tuple[str | Path, str | Path]],
    null: str | Path,
    expected: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    model: AnyFamily,
    settings: Train,
    seed: int,
    run_dir: str | Path,
    parts: Parts,
    out_model: str | Path,
    out_untrained: str | Path,
    out_history: str | Path,
    *,
    tars: Sequence[str | Path] = (),
    draw_samples: DrawSamples | None = None,
    priors: Sequence[str] | None = None,
    initial: Initial | None = None,
    device: str | None = None,
    log: Log = print_line,
) -> dict[str, Any]:
    """Train a network on cached latents, going on from `run_dir`'s newest checkpoint if it has one.

    Every rank calls it with the same arguments (`train.distributed.find_ranks`); rank 0 writes.

    Args:
        shards, null, expected, tars: see `train.data.LatentCache`, and `train.online.OnlineEncoder` for the tars.
        run_dir: checkpoints and TensorBoard of one set of options and one cache: `run_key` names it.
        parts: what made the cache, exported with the model, and what the training goes on from.
        out_model, out_untrained, out_history: the averaged pipeline, the network at step 0, a row a step.
        priors: uids of DreamBooth's class pictures, half of every batch; None where there are none.
        initial: the end of the phase before, from whose weights a run without checkpoints begins.
    Returns counts: steps, samples_seen, num_parameters and the account of the batch plan.
    Raises:
        ValueError: a stale shard, or options that do not fit the data.
        RuntimeError: the run directory is in use, the loss is not finite, or a rank is missing or failed.
        Stopped: SIGTERM or SIGUSR1 came and all is saved; a SystemExit with code 75.
    """
    ranks = _find_ranks(settings)
    with ExitStack() as stack:
        chosen = stack.enter_context(_settled(settings, find_device(ranks, device)))
        with joined(ranks, chosen, _key(model, settings, seed, expected), log):
            cache = _samples(shards, tars, null, expected, parts, chosen)
            check = stack.enter_context(_held(run_dir, ranks, log))
            _describe(settings, cache, ranks, log)
            stop = stack.enter_context(stop_signals())  # one that comes during the export lets it finish
            trained, average = _initial_models(model, settings, cache, seed, parts, ranks, chosen)
            if ranks.is_first:
                _write_network(average, out_untrained)
            if stop.received:
                raise Stopped(0)
            plan = _plan(seed, settings, cache, priors)
            in_pipeline = partial(_pipeline, parts, make_scheduler(settings, _mean_pixels(cache)))
            on_sample = None if draw_samples is None else _sampler(draw_samples, in_pipeline)
            history = fit(
                cache, trained, average, settings, seed, run_dir, ranks, log, on_sample, check, plan, initial
            )  # fmt: skip
        if ranks.is_first:
            history.write(out_history)
            export_pipeline(in_pipeline(average.cpu()), out_model, partial(save_lora, average))
    return _counts(history, trained, plan, settings, initial)


def _initial_models(
    model: AnyFamily,
    settings: Train,
    cache: SampleSource,
    seed: int,
    parts: Parts,
    ranks: Ranks,
    device: torch.device,
) -> tuple[Denoiser, Denoiser]:
    """The network to train, and its average; on the device, or on the CPU where shards are cut from them."""
    trained = build_denoiser(model, cache.sizes, seed, parts.pretrained)
    if not is_sharded(settings, ranks):
        trained = moved(trained, device)
    for width, height in cache.uids:
        check_size(trained.network, cache.latent_shape((width, height)), f"bucket {width}x{height}")
    average = copy.deepcopy(trained).eval().requires_grad_(False)
    use_attention(trained.network, model.attention, device, settings.dtype)
    return trained.train(), average


def _plan(
    seed: int, settings: Train, cache: SampleSource, priors: Sequence[str] | None
) -> BatchPlan | PairedPlan:
    class_uids = None if priors is None else parse_uids(list(priors))
    return make_plan(seed, settings.global_batch_size, cache.uids, class_uids)


def _write_network(network: Denoiser, folder: str | Path) -> None:
    with replacing(folder) as beside:
        save_network(network, beside)


def _counts(
    history: History,
    trained: Denoiser,
    plan: BatchPlan | PairedPlan,
    settings: Train,
    initial: Initial | None,
) -> dict[str, Any]:
    """What `train` returns."""
    return {
        "steps": history.num_done,
        "samples_seen": history.num_done * settings.global_batch_size,
        "num_parameters": sum(p.numel() for p in trained.parameters()),
        **plan.account(settings.num_steps),
        **({} if initial is None else {"steps_before": initial.num_steps}),
    }


def _samples(
    shards: Sequence[tuple[str | Path, str | Path]],
    tars: Sequence[str | Path],
    null: str | Path,
    expected: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    parts: Parts,
    device: torch.device,
) -> SampleSource:
    if not parts.cache.online:
        return LatentCache(shards, null, expected)
    return OnlineEncoder(shards, tars, null, expected, parts, device)


def _key(model: AnyFamily, settings: Train, seed: int, expected: Any) -> str:
    """What all ranks must agree on before they train together."""
    options = {"model": model.model_dump(mode="json"), "train": settings.model_dump(mode="json")}
    return sha256_json({**options, "seed": seed, "cache": expected, "torch": torch.__version__})[:12]


@contextmanager
def _held(run_dir: str | Path, ranks: Ranks, log: Log) -> Iterator[Callable[[], None]]:
    """Rank 0 alone trains in the run directory until the block ends; gives what to call before writing there."""
    if not ranks.is_first:
        yield lambda: None
        return
    with locked(run_dir, seconds_of(LOCK_WAIT_S), log) as lock:
        yield lock.check


def _find_ranks(settings: Train) -> Ranks:
    ranks = find_ranks()
    if ranks.world_size > settings.global_batch_size:
        raise ValueError(
            f"train.global_batch_size {settings.global_batch_size} is smaller than the "
            f"{ranks.world_size} ranks; start at most {settings.global_batch_size}"
        )
    return ranks


def _describe(settings: Train, cache: SampleSource, ranks: Ranks, log: Log) -> None:
    """Tell what the options come to: where the loss's weight lies, and how long the average remembers."""
    if not ranks.is_first:
        return
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
    areas = {shape: shape[0] * shape[1] for shape in cache.uids}
    counts = {shape: len(uids) for shape, uids in cache.uids.items()}
    return sum(areas[shape] * counts[shape] for shape in areas) / max(1, sum(counts.values()))


@contextmanager
def _settled(settings: Train, device: torch.device) -> Iterator[torch.device]:
    """Deterministic operators and a fixed number of threads on the device, until the block ends."""
    determinism: Any = torch.utils.deterministic
    threads, was_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fills = determinism.fill_uninitialized_memory
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A guard for programs that read uninitialised memory; it costs a pass over every new tensor.
    determinism.fill_uninitialized_memory = False
    try:
        yield device
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(was_deterministic)
        determinism.fill_uninitialized_memory = fills


def _pipeline(parts: Parts, scheduler: Any, average: Denoiser) -> Any:
    encoders = [load_text_encoder(component) for component in parts.text_encoders]
    is_single = parts.cache.text_encoder is not None
    return make_family_pipeline(
        average, load_vae(parts.vae), encoders, parts.cache.encoders, is_single, scheduler
    )


def _sampler(draw_samples: DrawSamples, make: Callable[[Denoiser], Any]) -> OnSample:
    """Calls `draw_samples` with a pipeline that is made once, or for adapters, which are merged, each time."""
    made: list[Any] = []

    def on_sample(average: nn.Module, step: int) -> npt.NDArray[np.uint8] | None:
        assert isinstance(average, Denoiser)
        device = next(average.parameters()).device
        if not made or has_lora(average.network):
            made[:] = [make(average)]
        try:
            return draw_samples(moved(made[0], device), step)
        finally:
            _to_cpu(made[0], average)

    return on_sample


def _to_cpu(pipeline: Any, average: nn.Module) -> None:
    """What drawing alone needs, as encoders and VAE, makes room on the GPU until the next picture."""
    trained = set(average.modules())
    for part in pipeline.components.values():
        if isinstance(part, nn.Module) and part not in trained:
            moved(part, torch.device("cpu"))
