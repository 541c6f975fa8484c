"""How long a training takes from its settings to its first batch, and what it holds in memory, by pictures.

The shards are written for it: tables with every picture, and files whose numbers take no room on the disk.
A start that finds no index makes one; those after it map it, here 8 at once, as ranks of one machine do. Each
counts from the shards' paths to the first batch, noise included. The first batch of all ranks must be the one that
comes without an index. The goals are processor seconds of a rank, and bytes a picture.

    python speed/start.py
    python speed/start.py --size small
"""

import hashlib
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import race
import torch
from race import Figure, Result

from darkroom.config.run import Train
from darkroom.settings.captions import ORIGINAL
from darkroom.store import write_table
from darkroom.store.latents import table_columns, table_digest, write_shard
from darkroom.train.data import LatentCache
from darkroom.train.loader import BatchMaker
from darkroom.train.plan import BatchPlan

SIZES = {"smallest": (20_000,), "small": (100_000, 1_000_000, 10_000_000)}
SIZES["large"] = (*SIZES["small"], 100_000_000)
A_SHARD, NUM_RANKS, BATCH = 50_000, 8, 64
SHAPES = ((512, 512), (576, 448), (448, 576))
NUM_TOKENS, TEXT_DIM = 20, 64
# Of a start that keeps the index in memory: what is compared, where that takes no minutes.
MOST_COMPARED = 1_000_000


def write_shards(folder: Path, num: int) -> None:
    """Parts with random uids, a third of the pictures in each shape."""
    for part, first in enumerate(range(0, num, A_SHARD)):
        rows = min(A_SHARD, num - first)
        digits = np.random.default_rng(part).bytes(16 * rows).hex()
        columns: dict[str, Any] = {
            "uid": sorted(digits[32 * n : 32 * n + 32] for n in range(rows)),
            "row": np.arange(rows),
            "index": np.arange(rows) // len(SHAPES),
            f"{ORIGINAL}_offset": NUM_TOKENS * np.arange(rows),
            f"{ORIGINAL}_length": np.full(rows, NUM_TOKENS),
        }
        for name, place in (("bucket_width", 0), ("bucket_height", 1)):
            columns[name] = np.array([shape[place] for shape in SHAPES])[np.arange(rows) % len(SHAPES)]
        table = pl.DataFrame(columns).select(table_columns([ORIGINAL]))
        path = folder / f"part-{part:05d}.parquet"
        write_table(path, table)
        shapes: dict[str, tuple[int, ...]] = {
            f"latents/{w}x{h}": (-(-rows // len(SHAPES)), 4, h // 8, w // 8) for w, h in SHAPES
        }
        shapes[f"text/{ORIGINAL}"] = (rows * NUM_TOKENS, TEXT_DIM)
        write_empty(path.with_suffix(".safetensors"), shapes, table_digest(table))
    null = {"text/null": torch.zeros(1, TEXT_DIM, dtype=torch.float16)}
    write_shard(folder / "null.safetensors", null, {})


def write_empty(path: Path, shapes: dict[str, tuple[int, ...]], digest: str) -> None:
    """A shard of zeros that are not on the disk."""
    fingerprint = json.dumps({"caption_names": [ORIGINAL], "table": digest})
    header: dict[str, Any] = {"__metadata__": {"darkroom": fingerprint}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def own_bytes() -> int:
    """Memory of this process that is no other's and no file's."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def start(folder: Path, index: Path | None) -> list[Any]:
    """Processor seconds, wall seconds, own bytes, most resident bytes, and the digest of the first batch."""
    held, wall, begin = own_bytes(), time.perf_counter(), time.process_time()
    paths = sorted(folder.glob("part-*.safetensors"))
    shards = [(path, path.with_suffix(".parquet")) for path in paths]
    cache = LatentCache(shards, folder / "null.safetensors", {}, index)
    settings = Train(num_steps=10, global_batch_size=BATCH, microbatch_size=BATCH)
    batch = BatchMaker(cache, BatchPlan(0, BATCH, cache.uids), settings, seed=0).make(0)
    used = [time.process_time() - begin, time.perf_counter() - wall, own_bytes() - held]
    used.append(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    digest = hashlib.sha256(batch.uids.tobytes() + batch.noise.numpy().tobytes())
    return [*used, digest.hexdigest()]


def starts(folder: Path, index: Path | None, num: int) -> list[list[Any]]:
    """What `start` tells, of so many new processes at once; what they import is not counted."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    with context.Pool(num) as pool:
        return pool.starmap(start, [(folder, index)] * num, chunksize=1)


def main() -> None:
    asked = race.arguments(__doc__)
    figures: list[Figure] = []
    wrong: list[str] = []
    seconds: dict[str, tuple[float, float]] = {}
    for num in SIZES[asked.size]:
        with tempfile.TemporaryDirectory(prefix="speed-") as name:
            folder = Path(name)
            index = folder / "pictures.index"
            write_shards(folder, num)
            answers = starts(folder, None, 1) if num <= MOST_COMPARED else []
            first, ranks = starts(folder, index, 1)[0], starts(folder, index, NUM_RANKS)
            size = index.stat().st_size
        answers += [first, *ranks]
        if len({answer[-1] for answer in answers}) != 1:
            wrong.append(f"{num:,} pictures: the first batches differ")
        used, wall, own = (max(rank[place] for rank in ranks) for place in range(3))
        seconds[f"{num:,}: makes index"] = (first[0], first[1])
        seconds[f"{num:,}: a rank of {NUM_RANKS}"] = (used, wall)
        together = size + sum(rank[2] for rank in ranks)
        figures = [
            Figure("a rank, to the first batch", "s", 1.0, used),
            Figure("index, a picture", "B", 100.0, size / num),
            Figure("8 ranks, a picture", "B", 120.0, together / num),
        ]
        print(
            f"{num:,}: a rank's own memory {own / 1e6:.0f} MB, the index {size / 1e6:.0f} MB, made in at most"
            f" {first[3] / 1e6:,.0f} MB with torch's own",
            file=sys.stderr,
        )
    told = f"{SIZES[asked.size][-1]:,} pictures in shards of {A_SHARD:,}, {NUM_RANKS} ranks of a machine"
    race.end(Result("start of a training", told, figures, seconds, wrong), asked.json)


if __name__ == "__main__":
    main()
