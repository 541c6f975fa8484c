"""Train: started once by hand or by Snakemake, or once a rank by srun or torchrun."""

import argparse
import json
import shutil
from pathlib import Path

from darkroom.config.components import Component
from darkroom.config.model import read_model
from darkroom.config.run import Cache, Train
from darkroom.folders import prior_uids
from darkroom.jobs import job, summary_line
from darkroom.store import (
    check_newest_files,
    read_manifest,
    read_table,
    replacing,
    sha256_file,
    write_manifest,
)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--settings", type=json.loads, required=True, help="the stage's settings, JSON")
for name in ("cache", "run-dir", "model", "untrained", "samples", "history", "loss", "manifest", "log"):
    parser.add_argument(f"--{name}", type=Path, required=True)
parser.add_argument("--initial", type=Path, help="manifest of the phase before")
parser.add_argument("--download", type=Path, help="manifest of the download, where training encodes")
parser.add_argument("--class-tables", type=Path, nargs="+", help="download tables with class pictures")
args = parser.parse_args()

settings = Train(**args.settings["train"])
model, seed = read_model(args.settings["model"]), args.settings["seed"]
cache = read_manifest(args.cache)
components = {name: Component(**values) for name, values in args.settings["components"].items()}

with job(args.log, settings.num_threads):
    from darkroom.cache import expected_fingerprint
    from darkroom.models.parts import Parts
    from darkroom.train.checkpoint import run_key
    from darkroom.train.distributed import find_ranks
    from darkroom.train.phases import chain_digest, find_initial
    from darkroom.train.samples import sample_writer
    from darkroom.train.stage import train

    if find_ranks().is_first:
        num_checked = check_newest_files(args.cache)
        print(f"train: {num_checked} of {len(cache['files'])} files of the cache are as they were written")
        if args.download:
            check_newest_files(args.download)
    parts = Parts.named(Cache(**cache["params"]["cache"]), model, components)
    upstream = {"cache": args.cache, **({"initial": args.initial} if args.initial else {})}
    made_from = chain_digest([sha256_file(path) for path in upstream.values()])
    run_dir = args.run_dir / run_key(model, settings, seed, made_from)
    before, initial = settings.initial_run, None
    if before is not None:
        initial = find_initial(before, args.initial, args.run_dir.parent / before)
    shards = [args.cache.parent / name for name in sorted(cache["files"]) if name.startswith("part-")]
    tensors = [path for path in shards if path.suffix == ".safetensors"]
    counts = train(
        [(path, path.with_suffix(".parquet")) for path in tensors],
        args.cache.parent / "null.safetensors",
        expected_fingerprint(parts.cache, parts.vae, parts.text_encoders),
        model,
        settings,
        seed,
        run_dir,
        parts,
        args.model,
        args.untrained,
        args.history,
        tars=[args.download.parent / f"{path.stem}.tar" for path in tensors] if args.download else (),
        draw_samples=sample_writer(settings.sample_prompts, settings.sampling, seed, run_dir / "samples"),
        priors=prior_uids(args.class_tables) if args.class_tables else None,
        initial=initial,
    )
    if find_ranks().is_first:
        (run_dir / "samples").mkdir(exist_ok=True)
        with replacing(args.samples) as beside:
            shutil.copytree(run_dir / "samples", beside)
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
        print(summary_line("train", counts))
