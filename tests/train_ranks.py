"""Trainings on several ranks, each a process that can be killed."""

import json
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from ranks import environment, free_port
from test_train_data import FINGERPRINT
from test_train_loop import SETTINGS, make_models

from darkroom.exported.mmdit import MMDiT
from darkroom.lock import locked
from darkroom.train.data import LatentCache
from darkroom.train.distributed import find_ranks
from darkroom.train.record import print_line
from darkroom.train.rendezvous import process_group
from darkroom.train.seen import FOLDER, RECORD_SAMPLES
from darkroom.train.trainer import Trainer
from darkroom.train.training import Training, TrainingRun

CONTEXT = multiprocessing.get_context("forkserver")

NUM_STEPS = 20
ON_RANKS = SETTINGS.model_copy(update={"num_steps": NUM_STEPS, "sample_every_steps": 1})


def start_server():
    """Ranks are forked from a process that has imported all this once: diffusers alone takes seconds."""
    assert MMDiT
    CONTEXT.set_forkserver_preload(["train_ranks"])
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with mock.patch.dict(os.environ, {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()


def _one_rank(env, cache_folder, run_dir, seconds_a_step, plain, options):
    os.environ.clear()
    os.environ.update(env)
    log = os.open(run_dir / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    ranks = find_ranks()
    shards = [(p, p.with_suffix(".parquet")) for p in sorted(cache_folder.glob("part-*.safetensors"))]
    with ExitStack() as stack:
        stack.enter_context(process_group(ranks, torch.device("cpu"), "same", print_line))
        if ranks.is_first:
            stack.enter_context(locked(run_dir, 0))
        cache = LatentCache(shards, cache_folder / "null.safetensors", FINGERPRINT)
        on_sample = lambda *_: time.sleep(seconds_a_step)  # noqa: E731
        settings = ON_RANKS.model_copy(update=options)
        training = Training(cache, *make_models(cache, plain), settings, 0)
        Trainer(training, TrainingRun(run_dir, ranks, print_line, on_sample)).train()


def on_ranks(num, target, *arguments):
    """Exit codes of `target(rank, num, *arguments)` on each of `num` ranks, joined by gloo."""
    start_server()
    port = free_port()
    ranks = [CONTEXT.Process(target=_joined, args=(target, r, num, port, arguments)) for r in range(num)]
    for rank in ranks:
        rank.start()
    try:
        for rank in ranks:
            rank.join(120)
        return [rank.exitcode for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


def _joined(target, rank, num, port, arguments):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=num)
    target(rank, num, *arguments)
    dist.barrier()
    dist.destroy_process_group()


def last_step(run_dir):
    path = run_dir / "last-step"
    return int(path.read_text() or 0) if path.exists() else 0


def last_step_written(run_dir):
    path = run_dir / "last-step"
    return path.stat().st_mtime_ns if path.exists() else None


def train_on(num_ranks, cache_folder, run_dir, kill_after=None, plain=True, **options):
    """Train a plain model, or a tiny MMDiT, on so many ranks; returns the new part of the log.

    `options` go over ON_RANKS. After step `kill_after` all get a SIGKILL.
    """
    run_dir.mkdir(exist_ok=True)
    # The attempt before may have been let run further than this one is to, by a busy machine.
    earlier = last_step_written(run_dir)
    start_server()
    port, log = free_port(), run_dir / "log"
    before = log.read_text() if log.exists() else ""
    envs = [environment(r, num_ranks, port, **{RECORD_SAMPLES: 1}) for r in range(num_ranks)]
    pause = 0.0 if kill_after is None else 0.05
    ranks = [
        CONTEXT.Process(target=_one_rank, args=(env, cache_folder, run_dir, pause, plain, options))
        for env in envs
    ]
    for rank in ranks:
        rank.start()
    end = time.monotonic() + 900
    try:
        while kill_after is not None and (
            last_step_written(run_dir) == earlier or last_step(run_dir) < kill_after
        ):
            assert time.monotonic() < end and all(r.is_alive() for r in ranks), log.read_text()
            time.sleep(0.005)
        if kill_after is None:
            for rank in ranks:
                rank.join(max(0.0, end - time.monotonic()))
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()
    if kill_after is None:
        assert [r.exitcode for r in ranks] == [0] * num_ranks, log.read_text()
    return log.read_text().removeprefix(before)


def take_seen(run_dir):
    """step -> rank -> its samples, as recorded since the last call."""
    seen = defaultdict(dict)
    folder = run_dir / FOLDER
    for path in sorted(folder.glob("rank-*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            assert path.stem not in seen[record["step"]], "one attempt makes a step once"
            seen[record["step"]][path.stem] = [tuple(sample) for sample in record["samples"]]
    folder.rename(Path(f"{folder}-{time.monotonic_ns()}"))
    return seen


def whole(ranks_of_step):
    """A step's global batch out of what its ranks recorded."""
    return [sample for _, samples in sorted(ranks_of_step.items()) for sample in samples]
