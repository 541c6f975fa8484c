"""What encoding during training costs: a finished run's batches, read from its cache and encoded from the tars.

The peer of `cache.online: true` is our own cache. Both must give the same latents and embeddings, to the last
digits of the stored precision. Needs a run whose cache and download are here, e.g. after `make demo`.

    python trials/online.py --run demo
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from darkroom.cache.fingerprint import PartTables, expected_fingerprint
from darkroom.cache.online import cache_index
from darkroom.config import load_project
from darkroom.models.training_components import TrainingComponents
from darkroom.train.data import LatentCache
from darkroom.train.loader import BatchMaker, TrainBatch
from darkroom.train.online import OnlineEncoder
from darkroom.train.plan import BatchPlan

Source = LatentCache | OnlineEncoder


def sources(name: str, folder: Path) -> tuple[LatentCache, OnlineEncoder, dict[str, int]]:
    """Both forms of a run's samples, and the bytes of their shards; the index is made in `folder`."""
    project = load_project(name)
    run, parts = (
        project.run,
        TrainingComponents.from_config(project.run.cache, project.run.model, project.components),
    )
    dataset = Path("results/datasets") / project.dataset_name
    owner = Path("results/caches") / project.cache
    tables = sorted((owner / "bucket").glob("part-*.parquet"))
    if not tables or not (owner / "cache/null.safetensors").exists():
        sys.exit(f"{owner}: no buckets and no cache; run `snakemake cache --config run={name}` first")
    encoders = (parts.vae, parts.text_encoders)
    used = run.cache.model_copy(update={"online": True})
    for buckets in tables:
        part = buckets.name
        inputs = PartTables(dataset / "download" / part, dataset / "recaption" / part, buckets)
        cache_index(
            inputs, TrainingComponents(used, *encoders), folder / f"{buckets.stem}.safetensors", folder / part
        )
    null, tars = owner / "cache/null.safetensors", [dataset / f"download/{t.stem}.tar" for t in tables]
    shards = [
        [(place / f"{t.stem}.safetensors", place / t.name) for t in tables]
        for place in (owner / "cache", folder)
    ]
    sizes = [sum(shard.stat().st_size for shard, _ in pairs) for pairs in shards]
    stored = LatentCache(shards[0], null, expected_fingerprint(run.cache, *encoders))
    online = OnlineEncoder(
        shards[1], tars, null, expected_fingerprint(used, *encoders),
        TrainingComponents(used, *encoders), torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )  # fmt: skip
    return stored, online, {"cache": sizes[0], "online": sizes[1]}


def timed(name: str, source: Source, num_batches: int) -> tuple[float, list[TrainBatch]]:
    """Milliseconds a picture, and the batches; the first one, which warms up, is not counted."""
    run = load_project(name).run
    plan = BatchPlan(run.seed, run.train.global_batch_size, source.uids)
    maker = BatchMaker(source, plan, run.train, run.seed)
    batches = [maker.make(0)]
    begin = time.perf_counter()
    batches += [maker.make(step) for step in range(1, num_batches + 1)]
    seconds = time.perf_counter() - begin
    return 1000 * seconds / (num_batches * run.train.global_batch_size), batches


def assert_same(one: TrainBatch, other: TrainBatch) -> None:
    """To the last digits of the stored precision: an operator may sum in another order."""
    pairs = [(one.latents, other.latents), (one.conditioning.pooled, other.conditioning.pooled)]
    pairs += zip(one.conditioning.text, other.conditioning.text, strict=True)
    for mine, its in pairs:
        digit = 4 * torch.finfo(mine.dtype).eps
        torch.testing.assert_close(its, mine, rtol=digit, atol=digit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="demo")
    parser.add_argument("--num-batches", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stored, online, sizes = sources(arguments.run, Path(folder))
        cache_ms, expected = timed(arguments.run, stored, arguments.num_batches)
        online_ms, found = timed(arguments.run, online, arguments.num_batches)
    for one, other in zip(expected, found, strict=True):
        assert_same(one, other)
    print(f"{'':<10}{'MB of shards':>14}{'ms a picture':>14}")
    print(f"{'cache':<10}{sizes['cache'] / 1e6:>14.2f}{cache_ms:>14.2f}")
    print(f"{'online':<10}{sizes['online'] / 1e6:>14.2f}{online_ms:>14.2f}")
    times, less = online_ms / cache_ms, sizes["cache"] / sizes["online"]
    print(f"online takes {times:.0f} times as long a picture and 1/{less:.0f} of the space")


if __name__ == "__main__":
    main()
