"""Reading cached latents and text in a shuffled order, in batches: ours, webdataset, streaming and litdata.

A sample is a latent of 4 x 64 x 64 and the text of 77 tokens of 768, in half precision, 151 kB. Every side reads
from files of its own format that were just written, and so from memory, one pass, into batches of its own arrays.
Each must give every sample once, with the same bytes; litdata's pass in the order of its files shows what its
shuffling costs.

    python speed/latents.py
    python speed/latents.py --size small --repeats 3
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import race
from race import OURS, Race, Side, Sizes, Work

LATENT, TEXT = (4, 64, 64), (77, 768)
BATCH = 64
Batches = Callable[[], Iterable[tuple[Any, Any]]]
SIZES = {
    "smallest": {"samples": 2 * BATCH, "a_file": BATCH},
    "small": {"samples": 32 * BATCH, "a_file": 512},
    "large": {"samples": 128 * BATCH, "a_file": 512},
}


def told(sizes: Sizes) -> str:
    return f"{sizes['samples']:,} samples of 151 kB, in memory, batches of {BATCH}"


def sample(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Latent and text of random bits."""
    random = np.random.default_rng(number)
    bits = random.integers(0, 2**16, np.prod(LATENT) + np.prod(TEXT), np.uint16).view(np.float16)
    return bits[: np.prod(LATENT)].reshape(LATENT), bits[np.prod(LATENT) :].reshape(TEXT)


def work(batches: Batches) -> Work:
    """One pass; the answer is the digest of the samples whatever their order."""

    def run() -> None:
        for _ in batches():
            pass

    def answer() -> list[Any]:
        found = []
        for latents, text in batches():
            pairs = zip(np.asarray(latents), np.asarray(text), strict=True)
            found += [hashlib.sha256(a.tobytes() + b.tobytes()).hexdigest() for a, b in pairs]
        return [len(found), hashlib.sha256("".join(sorted(found)).encode()).hexdigest()]

    return Work(run, answer)


def write_cache(folder: Path, sizes: Sizes) -> tuple[list[tuple[Path, Path]], Path]:
    """Our shards of these samples and that of the empty caption."""
    import polars as pl
    import torch

    from darkroom.settings.captions import ORIGINAL
    from darkroom.store import sample_uid, write_table
    from darkroom.store.latents import table_columns, table_digest, write_shard

    def tensor(parts: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(parts).view(np.int16)).view(torch.float16)

    shards = []
    for first in range(0, sizes["samples"], sizes["a_file"]):
        numbers = range(first, first + sizes["a_file"])
        latents, text = zip(*map(sample, numbers), strict=True)
        columns: dict[str, Any] = {
            "uid": [sample_uid(str(number), "") for number in numbers],
            **{"row": numbers, "index": range(len(numbers))},
            **{name: [512] * len(numbers) for name in ("bucket_width", "bucket_height")},
            f"{ORIGINAL}_length": [TEXT[0]] * len(numbers),
            f"{ORIGINAL}_offset": range(0, TEXT[0] * len(numbers), TEXT[0]),
        }
        table = pl.DataFrame(columns).select(table_columns([ORIGINAL])).sort("uid")
        path = folder / f"part-{first:08d}.safetensors"
        tensors = {
            "latents/512x512": tensor(list(latents)),
            f"text/{ORIGINAL}": tensor(list(text)).flatten(0, 1),
        }
        write_shard(path, tensors, {"caption_names": [ORIGINAL], "table": table_digest(table)})
        write_table(path.with_suffix(".parquet"), table)
        shards.append((path, path.with_suffix(".parquet")))
    write_shard(folder / "null.safetensors", {"text/null": torch.zeros(1, TEXT[1], dtype=torch.float16)}, {})
    return shards, folder / "null.safetensors"


def ours(folder: Path, sizes: Sizes) -> Work:
    from darkroom.train.data import LatentCache
    from darkroom.train.plan import BatchPlan

    cache = LatentCache(*write_cache(folder, sizes), {})
    plan = BatchPlan(0, BATCH, cache.uids)
    captions = np.zeros(BATCH, np.int64)

    def batches() -> Iterator[tuple[Any, Any]]:
        for step in range(sizes["samples"] // BATCH):
            batch = plan.batch(step)
            read = cache.gather(batch.bucket, batch.index, captions)
            yield read.latents, read.conditioning.text[0]

    return work(batches)


def webdataset(folder: Path, sizes: Sizes) -> Work:
    import webdataset as wds

    pattern = str(folder / "samples-%06d.tar")
    with wds.ShardWriter(pattern, maxcount=sizes["a_file"], verbose=0) as sink:
        for number in range(sizes["samples"]):
            latent, text = sample(number)
            sink.write(
                {"__key__": f"{number:08d}", "latent.bin": latent.tobytes(), "text.bin": text.tobytes()}
            )
    files = sorted(map(str, folder.glob("samples-*.tar")))

    def arrays(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        latent, text = (np.frombuffer(row[name], np.float16) for name in ("latent.bin", "text.bin"))
        return latent.reshape(LATENT), text.reshape(TEXT)

    def batches() -> Any:
        data = wds.WebDataset(files, shardshuffle=len(files), empty_check=False)
        return data.shuffle(1000).map(arrays).batched(BATCH)

    return work(batches)


def streaming(folder: Path, sizes: Sizes) -> Work:
    from streaming import MDSWriter, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory
    from torch.utils.data import DataLoader

    place = folder / "mds"
    kinds = {
        name: f"ndarray:float16:{','.join(map(str, of))}" for name, of in (("latent", LATENT), ("text", TEXT))
    }
    with MDSWriter(out=str(place), columns=kinds, size_limit="64mb") as sink:
        for number in range(sizes["samples"]):
            sink.write(dict(zip(kinds, sample(number), strict=True)))
    clean_stale_shared_memory()
    data = StreamingDataset(local=str(place), shuffle=True, batch_size=BATCH)

    def batches() -> Iterator[tuple[Any, Any]]:
        for batch in DataLoader(data, batch_size=BATCH, num_workers=0):
            yield batch["latent"], batch["text"]

    return work(batches)


def tensors(number: int) -> dict[str, Any]:
    """A sample as litdata is given it."""
    import torch

    return dict(zip(("latent", "text"), map(torch.from_numpy, sample(number)), strict=True))


def litdata(folder: Path, sizes: Sizes, shuffle: bool) -> Work:
    from litdata import StreamingDataLoader, StreamingDataset, optimize

    place = folder / f"litdata-{shuffle}"
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(folder / f"litdata-{shuffle}-cache")
    optimize(
        fn=tensors,
        inputs=list(range(sizes["samples"])),
        output_dir=str(place),
        chunk_bytes="64MB",
        num_workers=1,
    )
    data = StreamingDataset(str(place), shuffle=shuffle)

    def batches() -> Iterator[tuple[Any, Any]]:
        for batch in StreamingDataLoader(data, batch_size=BATCH, num_workers=0):
            yield batch["latent"], batch["text"]

    return work(batches)


def peers_of(goals: tuple[float, float, float, float]) -> tuple[Side, ...]:
    """The other sides, to be so many times slower."""
    return (
        Side("webdataset", webdataset, goals[0]),
        Side("streaming", streaming, goals[1], "streaming"),
        Side("litdata", functools.partial(litdata, shuffle=True), goals[2], "litdata"),
        Side("litdata, in order", functools.partial(litdata, shuffle=False), goals[3], "litdata"),
    )


RACE = Race(
    title="shuffled cached latents and text, read",
    told=told,
    sizes=SIZES,
    sides=(Side(OURS, ours), *peers_of((25, 15, 12, 3.5))),
)

if __name__ == "__main__":
    race.main(RACE, __doc__)
