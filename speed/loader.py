"""The whole loader: what `speed/latents.py` reads; ours alone makes noise, timesteps and choices of captions too.

The peers are the same, and make no noise. Every side gives each sample once, with the same bytes.

    python speed/loader.py
    python speed/loader.py --size small --repeats 3
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import race
from latents import BATCH, SIZES, peers_of, told, work, write_cache
from race import OURS, Race, Side, Sizes, Work


def ours(folder: Path, sizes: Sizes) -> Work:
    from darkroom.config.run import Train
    from darkroom.train.data import LatentCache
    from darkroom.train.loader import BatchMaker
    from darkroom.train.plan import BatchPlan

    cache = LatentCache(*write_cache(folder, sizes), {})
    num_steps = sizes["samples"] // BATCH
    settings = Train(
        num_steps=num_steps, global_batch_size=BATCH, microbatch_size=BATCH,
        caption_dropout=0,
    )  # fmt: skip
    maker = BatchMaker(cache, BatchPlan(0, BATCH, cache.uids), settings, seed=0)

    def batches() -> Iterator[tuple[Any, Any]]:
        for step in range(num_steps):
            batch = maker.make(step)
            yield batch.latents, batch.conditioning.text[0]

    return work(batches)


RACE = Race(
    title="the whole loader, noise included",
    told=told,
    sizes=SIZES,
    # The peers are those of latents.py: in tests one is enough.
    sides=(
        Side(OURS, ours),
        *(replace(side, is_tested=side.name == "webdataset") for side in peers_of((8, 5, 4, 1.2))),
    ),
)

if __name__ == "__main__":
    race.main(RACE, __doc__)
