"""A small dataset of drawn pictures as its stages leave it, and small autoencoders to train on it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from darkroom.autoencoder.pictures import PictureFiles
from darkroom.config.autoencoder import Autoencoder
from darkroom.store import write_table, write_tar

CROP_PX = 16
TRAIN = {
    "num_steps": 8,
    "batch_size": 4,
    "optimizer": "muon",
    "learning_rate": 0.002,
    "num_threads": 1,
    "dtype": "float32",
    "checkpoint_every_steps": 3,
    "log_every_steps": 1,
}


def settings(**changes: Any) -> Autoencoder:
    """A small autoencoder with every loss but the perceptual one; `changes` replace what it says."""
    return Autoencoder.model_validate(
        {
            "description": "small",
            "dataset": "drawn",
            "crop_px": CROP_PX,
            "network": {
                "block_out_channels": [8, 16],
                "layers_per_block": 1,
                "latent_channels": 3,
                "norm_num_groups": 4,
            },
            "loss": {"adversarial": {"start_step": 4, "num_layers": 1, "num_channels": 4}},
            "train": TRAIN,
            "shift": True,
            "held_out": {"share": 0.2},
            "reference": "demo-vae",
            **changes,
        }
    )


def write_pictures(folder: Path, num: int = 40, num_parts: int = 2) -> PictureFiles:
    """Coloured ramps of several sizes in `num_parts` parts; every ninth is not kept by the filter."""
    rng = np.random.default_rng(5)
    tables, tars, selections = [], [], []
    for part in range(num_parts):
        rows, members = [], []
        for number in range(part, num, num_parts):
            width, height = int(rng.integers(16, 40)), int(rng.integers(16, 40))
            ramp = np.linspace(*rng.uniform(0, 255, (2, 3)), width)[None].repeat(height, axis=0)
            buffer = io.BytesIO()
            Image.fromarray(ramp.astype(np.uint8)).save(buffer, format="JPEG", quality=95)
            uid = f"{rng.integers(2**63):016x}{number:016x}"
            members.append((f"{number:05d}.jpg", buffer.getvalue()))
            rows.append({"uid": uid, "row": number, "width": width, "height": height})
        tars.append(folder / f"part-{part:05d}.tar")
        spans = write_tar(tars[-1], members)
        for row, (name, _) in zip(rows, members, strict=True):
            row["offset"], row["size"] = spans[name]
        tables.append(folder / f"part-{part:05d}.parquet")
        write_table(tables[-1], pl.DataFrame(rows))
        selections.append(folder / f"kept-{part:05d}.parquet")
        write_table(selections[-1], pl.DataFrame(rows).select("uid", "row", kept=pl.col("row") % 9 != 8))
    return PictureFiles(tables, tars, selections)
