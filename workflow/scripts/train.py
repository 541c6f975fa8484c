"""Train: started once by hand or by Snakemake, or once a rank by srun or torchrun."""

import argparse
import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

from darkroom.components.base import Component
from darkroom.config import ConfigError, load_project
from darkroom.config.model import read_model
from darkroom.config.run import Cache, Train
from darkroom.config.shares import DatasetShare
from darkroom.config.watch import Watch
from darkroom.imports import quick_imports
from darkroom.jobs import job, summary_line, tell
from darkroom.pinned import VARIABLE, config_folder
from darkroom.score.copies import pairs_of_copies
from darkroom.sources.priors import prior_uids
from darkroom.store import (
    check_newest_files,
    read_manifest,
    read_table,
    replacing,
    sha256_file,
    write_json,
    write_manifest,
)
from darkroom.trackers.base import Tracked, TrackerSection
from darkroom.trackers.table import TRACKERS
from darkroom.train.signals import ends_when_stopped
from darkroom.watch.legs import mark_stopped, step_of, stopped_after, stops_after

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--settings", type=json.loads, required=True, help="the stage's settings, JSON")
parser.add_argument("--cache", type=Path, nargs="+", required=True, help="manifest of each dataset's cache")
for name in ("run-dir", "model", "log"):
    parser.add_argument(f"--{name}", type=Path, required=True)
for name in ("untrained", "samples", "history", "loss", "manifest"):
    parser.add_argument(f"--{name}", type=Path, help="not with --until")
parser.add_argument("--legs", type=Path, help="the last leg of a training that is judged on the way")
parser.add_argument("--until", type=step_of, help="of a leg: the name of the step where it ends")
parser.add_argument("--watch", type=json.loads, help="of a leg: how the training is judged, JSON")
parser.add_argument("--before", type=Path, help="of a leg: the one before")
parser.add_argument(
    "--judged", type=Path, nargs="+", default=[], help="of a leg: scores of those before that"
)
parser.add_argument("--initial", type=Path, help="manifest of the phase before")
parser.add_argument(
    "--download", type=Path, nargs="+", default=[], help="and of its download, to encode from"
)
parser.add_argument("--copies", type=Path, nargs="+", default=[], help="scores that tell of copies")
parser.add_argument("--class-tables", type=Path, nargs="+", help="download tables with class pictures")
args = parser.parse_args()

settings = Train(**args.settings["train"])
model, seed = read_model(args.settings["model"]), args.settings["seed"]
datasets = [DatasetShare(**values) for values in args.settings.get("datasets", [])]
caches = {path: read_manifest(path) for path in args.cache}
cache = caches[args.cache[0]]
known = {name: Component(**values) for name, values in args.settings["components"].items()}


def trackers_of(run: str) -> tuple[TrackerSection, ...]:
    """Of a job those that its driver's configuration names; by hand, the project's, if this is one."""
    if VARIABLE in os.environ:
        return load_project(run, config=config_folder()).run.trackers
    try:
        return load_project(run).run.trackers
    except ConfigError:
        return ()


with ends_when_stopped(), job(args.log, settings.num_threads):
    with quick_imports():
        from darkroom.cache.fingerprint import expected_fingerprint
        from darkroom.models.training_components import TrainingComponents
        from darkroom.train.checkpoint import run_key
        from darkroom.train.distributed import find_ranks
        from darkroom.train.goodput import GOODPUT, account, read_journal
        from darkroom.train.inputs import SampleFiles, TrainInputs
        from darkroom.train.phases import find_initial, made_from
        from darkroom.train.samples import copy_samples, sample_writer
        from darkroom.train.speeds import SPEEDS, read_speeds
        from darkroom.train.stage import TrainOutputs, train, train_until

    stopped = None
    if args.until is not None:
        stopped = stops_after(Watch(**args.watch), args.before, args.judged)
    elif args.legs is not None:
        stopped = stopped_after(args.legs)
    if stopped is not None and find_ranks().is_first:
        tell(f"train: stopped after step {stopped}, as watch.patience says")
    if args.until is not None and stopped is not None:
        if find_ranks().is_first:
            mark_stopped(args.model, stopped)
        raise SystemExit
    if find_ranks().is_first:
        for path, body in caches.items():
            num_checked = check_newest_files(path)
            print(f"train: {num_checked} of {len(body['files'])} files of the cache are as they were written")
        for path in args.download:
            check_newest_files(path)
    components = TrainingComponents.from_config(Cache(**cache["params"]["cache"]), model, known)
    names = [f"cache/{share.name}" for share in datasets] or ["cache"]
    upstream = dict(zip(names, args.cache, strict=True)) | ({"initial": args.initial} if args.initial else {})
    digests = {name: sha256_file(path) for name, path in upstream.items()}
    run_dir = args.run_dir / run_key(
        model, settings, seed, made_from(digests, args.settings.get("datasets", ()))
    )
    before, initial = settings.initial_run, None
    if before is not None:
        initial = find_initial(before, args.initial, args.run_dir.parent / before)
    tensors = [
        (place, path.parent / name)
        for place, (path, body) in enumerate(caches.items())
        for name in sorted(body["files"])
        if name.startswith("part-") and name.endswith(".safetensors")
    ]
    files = SampleFiles(
        [(path, path.with_suffix(".parquet")) for _, path in tensors],
        # The empty caption is the same in all of them.
        args.cache[0].parent / "null.safetensors",
        expected_fingerprint(components.cache, components.vae, components.text_encoders),
        [args.download[place].parent / f"{path.stem}.tar" for place, path in tensors if args.download],
        [place for place, _ in tensors],
    )
    priors = prior_uids(args.class_tables) if args.class_tables else None
    # A file's rows are those of its dataset.
    copies = [
        pair
        for folder in dict.fromkeys(path.parent for path in args.copies)
        for pair in pairs_of_copies([path for path in args.copies if path.parent == folder])
    ]
    # No part of the settings: where curves are shown changes nothing that is made.
    tracked = Tracked(args.run_dir.name, run_dir.name, args.settings, run_dir)
    boards = {of.kind: partial(TRACKERS[of.kind].start, of, tracked) for of in trackers_of(tracked.run)}
    inputs = TrainInputs(files, components, model, settings, seed, priors, initial, datasets, copies)
    draw_samples = sample_writer(settings.sample_prompts, settings.sampling, seed, run_dir / "samples")
    counts = None
    if args.until is not None:
        train_until(inputs, run_dir, args.until, args.model, draw_samples=draw_samples, boards=boards)
    else:
        outputs = TrainOutputs(run_dir, args.model, args.untrained, args.history)
        counts = train(inputs, outputs, stopped, draw_samples=draw_samples, boards=boards)
    if counts is not None and find_ranks().is_first:
        with replacing(args.samples) as beside:
            copy_samples(settings, run_dir / "samples", beside, counts["steps"])
        with replacing(args.loss) as beside:
            read_table(args.history).write_csv(beside)
        write_manifest(
            args.manifest,
            stage="train",
            params=args.settings,
            upstream=upstream,
            files=[args.model, args.untrained, args.samples, args.history, args.loss],
            counts=counts,
        )
        write_json(args.log.with_name(GOODPUT), asdict(account(read_journal(run_dir))))
        if (run_dir / SPEEDS).is_file():
            write_json(args.log.with_name(SPEEDS), asdict(read_speeds(run_dir / SPEEDS)))
        tell(summary_line("train", counts))
