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

from darkroom.config.components import Component
from darkroom.config.model import MMDiTModel
from darkroom.config.run import Train
from darkroom.models.components import build_mmdit, load_text_encoder, load_vae, moved
from darkroom.models.mmdit import MMDiT
from darkroom.objectives.schedules import half_life_steps
from darkroom.objectives.training import TrainingObjective
from darkroom.sample.export import export_pipeline, make_pipeline, save_transformer
from darkroom.sample.pipeline import DarkroomPipeline
from darkroom.sample.schedulers import make_scheduler
from darkroom.store import replacing, sha256_json
from darkroom.train.data import LatentCache
from darkroom.train.distributed import Ranks, find_device, find_ranks
from darkroom.train.lock import LOCK_WAIT_S, locked
from darkroom.train.loop import OnSample, Stopped, fit, stop_signals
from darkroom.train.plan import BatchPlan
from darkroom.train.record import Log, print_line
from darkroom.train.rendezvous import joined, seconds_of

# Called on rank 0 with (pipeline of the averaged weights, completed steps); draws and keeps pictures as it
# likes, and may return one (H, W, 3) uint8 for TensorBoard. It must not touch torch's global state.
DrawSamples = Callable[[DarkroomPipeline, int], npt.NDArray[np.uint8] | None]


def train(
    shards: Sequence[tuple[str | Path, str | Path]],
    null: str | Path,
    expected: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    model: MMDiTModel,
    settings: Train,
    seed: int,
    run_dir: str | Path,
    vae: Component,
    text_encoder: Component,
    out_model: str | Path,
    out_untrained: str | Path,
    out_history: str | Path,
    *,
    draw_samples: DrawSamples | None = None,
    device: str | None = None,
    log: Log = print_line,
) -> dict[str, Any]:
    """Train an MMDiT on cached latents, going on from `run_dir`'s newest checkpoint if it has one.

    Every rank calls it with the same arguments (`train.distributed.find_ranks`); rank 0 writes.

    Args:
        shards, null, expected: see `train.data.LatentCache`; `cache.expected_fingerprint` gives `expected`.
        run_dir: checkpoints and TensorBoard of one set of options and one cache: `run_key` names it.
        vae, text_encoder: what made the cache, exported with the model.
        out_model, out_untrained: the pipeline with the averaged weights; `transformer` as it was at step 0.
        out_history: Parquet, see `train.record.History`.

    Returns counts: steps, samples_seen, num_parameters and the account of the batch plan.
    Raises:
        ValueError: a stale shard, or options that do not fit the data.
        RuntimeError: the run directory is in use, the loss is not finite, or a rank is missing or failed.
        Stopped: SIGTERM or SIGUSR1 came and all is saved; a SystemExit with code 75.
    """
    ranks = find_ranks()
    _check_ranks(settings, ranks)
    with ExitStack() as stack:
        chosen = find_device(ranks, device)
        stack.enter_context(_settled(settings, chosen))
        with joined(ranks, chosen, _key(model, settings, seed, expected), log):
            cache = LatentCache(shards, null, expected)
            _check_patches(cache, model)
            lock = None
            if ranks.is_first:
                lock = stack.enter_context(locked(run_dir, seconds_of(LOCK_WAIT_S), log))
                _describe(settings, cache, log)
            # One that comes while the model is exported lets it finish.
            stop = stack.enter_context(stop_signals())
            trained = moved(build_mmdit(model, **cache.sizes, seed=seed), chosen)
            average = copy.deepcopy(trained).eval().requires_grad_(False)
            scheduler = make_scheduler(settings, _mean_pixels(cache))
            in_pipeline = partial(_pipeline, vae, text_encoder, cache.max_text_tokens, scheduler)
            on_sample = None if draw_samples is None else _sampler(draw_samples, in_pipeline)
            if ranks.is_first:
                with replacing(out_untrained) as beside:
                    save_transformer(trained, beside / "transformer")
            if stop.received:
                raise Stopped(0)
            check = lock.check if lock else lambda: None
            history = fit(
                cache, trained.train(), average, settings, seed, run_dir, ranks, log, on_sample, check
            )
        if ranks.is_first:
            history.write(out_history)
            export_pipeline(in_pipeline(average.cpu()), out_model)
    account = BatchPlan(seed, settings.global_batch_size, cache.uids).account(settings.num_steps)
    num_parameters, seen = trained.num_parameters(), history.num_done * settings.global_batch_size
    return {"steps": history.num_done, "samples_seen": seen, "num_parameters": num_parameters, **account}


def _key(model: MMDiTModel, settings: Train, seed: int, expected: Any) -> str:
    """What all ranks must agree on before they train together."""
    options = {"model": model.model_dump(mode="json"), "train": settings.model_dump(mode="json")}
    return sha256_json({**options, "seed": seed, "cache": expected, "torch": torch.__version__})[:12]


def _check_ranks(settings: Train, ranks: Ranks) -> None:
    if ranks.world_size > settings.global_batch_size:
        raise ValueError(
            f"train.global_batch_size {settings.global_batch_size} is smaller than the "
            f"{ranks.world_size} ranks; start at most {settings.global_batch_size}"
        )


def _describe(settings: Train, cache: LatentCache, log: Log) -> None:
    """Tell what the options come to: where the loss's weight lies, and how long the average remembers."""
    log(f"train: {TrainingObjective(settings).describe(list(cache.uids))}")
    log(
        f"train: the average of the weights has a half-life of {half_life_steps(settings.ema_decay):.0f} of "
        f"{settings.num_steps} steps"
    )


def _mean_pixels(cache: LatentCache) -> float:
    """Of the pictures as they are trained on."""
    areas = {shape: shape[0] * shape[1] for shape in cache.uids}
    counts = {shape: len(uids) for shape, uids in cache.uids.items()}
    return sum(areas[shape] * counts[shape] for shape in areas) / max(1, sum(counts.values()))


def _check_patches(cache: LatentCache, model: MMDiTModel) -> None:
    """Refuse before the first step what would fail at the first batch of an odd bucket."""
    for width, height in cache.uids:
        _, rows, columns = cache.latent_shape((width, height))
        if rows % model.patch_size or columns % model.patch_size:
            raise ValueError(
                f"model.patch_size {model.patch_size} does not divide the {rows}x{columns} latents of bucket "
                f"{width}x{height}; make bucket.step_px a multiple of {model.patch_size} latent pixels"
            )


@contextmanager
def _settled(settings: Train, device: torch.device) -> Iterator[None]:
    """Deterministic operators and a fixed number of threads, until the block ends."""
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
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(was_deterministic)
        determinism.fill_uninitialized_memory = fills


def _pipeline(
    vae: Component, text_encoder: Component, max_text_tokens: int, scheduler: Any, average: MMDiT
) -> DarkroomPipeline:
    encoder = load_text_encoder(text_encoder)
    return make_pipeline(average, load_vae(vae), encoder.model, encoder.tokenizer, max_text_tokens, scheduler)


def _sampler(draw_samples: DrawSamples, make: Callable[[MMDiT], DarkroomPipeline]) -> OnSample:
    """Calls `draw_samples` with a pipeline that is made once."""
    made: list[DarkroomPipeline] = []

    def on_sample(average: nn.Module, step: int) -> npt.NDArray[np.uint8] | None:
        if not made:
            assert isinstance(average, MMDiT)
            made.append(moved(make(average), average.device))
        return draw_samples(made[0], step)

    return on_sample
