"""Stable Diffusion XL."""

# ruff: noqa: F811 (tests take the fixtures that are imported)

import numpy as np
from family_world import CLIP, FamilyCases, cached, world  # noqa: F401 (a fixture)
from test_cache import BUCKETS
from test_family_unet_sd import UNET

from darkroom.store import read_table
from darkroom.train.data import LatentCache

TESTED = FamilyCases(
    encoders=[
        {"name": "plain", "hidden_layer": -2, **CLIP},
        {"name": "clip-g", "hidden_layer": -2, "pooled": True, **CLIP},
    ],
    cases={
        "unet-sdxl": (
            {"params": {**UNET, "addition_time_embed_dim": 4}, "gradient_checkpointing": True},
            "StableDiffusionXLPipeline",
        )
    },
    again=["gradient_checkpointing"],
)


def test_sdxl_is_told_each_pictures_original_size_crop_and_bucket(world):
    inputs, _ = cached(world, "unet-sdxl")
    cache = LatentCache(*inputs)
    download = {r["uid"]: r for r in read_table(world.folder / "part.parquet").iter_rows(named=True)}
    crops = {r["uid"]: r for r in read_table(world.folder / "buckets.parquet").iter_rows(named=True)}
    seen = set()
    for bucket, uids in cache.uids.items():
        places = np.arange(len(uids))
        time_ids = cache.gather(bucket, places, places * 0).conditioning.time_ids
        for (a, b), ids in zip(uids, time_ids.tolist(), strict=True):
            uid = f"{int(a):016x}{int(b):016x}"
            picture, crop = download[uid], crops[uid]
            assert ids == [
                picture["height"], picture["width"], crop["crop_top"], crop["crop_left"], bucket[1], bucket[0],
            ]  # fmt: skip
            seen.add(tuple(ids))
    assert len(seen) > 3 and BUCKETS.step_px == 8
