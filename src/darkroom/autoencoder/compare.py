"""An autoencoder beside another one, on pictures that it never learned from: a table, latents, and a sheet."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from darkroom.autoencoder.network import NUM_SCALED, latent_moments
from darkroom.autoencoder.pictures import PictureFiles, Pictures, split
from darkroom.autoencoder.quality import mean_absolute_error, psnr, ssim
from darkroom.components.base import Component
from darkroom.components.files import moved
from darkroom.components.vae import decode_latents, encode_latents, load_vae
from darkroom.perceptual.base import Distance
from darkroom.perceptual.table import PERCEPTUAL
from darkroom.sample.grid import write_grid
from darkroom.store import replacing
from darkroom.train.determinism import deterministic
from darkroom.train.distributed import Ranks, find_device
from darkroom.train.record import Log, print_line

# Pictures of the sheet, a column each.
NUM_SHOWN = 8
_CELL_PX = 96
_BATCH_SIZE = 32
SCORES = ("psnr", "ssim", "l1", "perceptual")


@dataclass(frozen=True)
class Compared:
    """What a comparison writes: the two tables and the sheet."""

    scores: str | Path
    latents: str | Path
    sheet: str | Path


@dataclass(frozen=True)
class Contestant:
    """An autoencoder, by the name that the tables call it."""

    name: str
    component: Component


def compare(
    files: PictureFiles,
    settings: Mapping[str, Any],
    contestants: tuple[Contestant, Contestant],
    components: Mapping[str, Component],
    out: Compared,
    *,
    device: str | None = None,
    num_threads: int = 0,
    log: Log = print_line,
) -> dict[str, int]:
    """Reconstruct held-out pictures with each of two autoencoders, ours first.

    Reconstructions are of the posterior's means, as those that a run's cache holds, rounded to 8 bits.

    Args:
        settings: `AutoencoderProject.settings("compare")`: crop_px, held_out, loss.perceptual.
        components: those that the perceptual distance names.

    Returns:
        Counts: pictures, unreadable.

    Raises:
        ValueError: no held-out picture is there or can be read, or an autoencoder cannot be loaded.
    """
    on = find_device(Ranks(), device)
    held = settings["held_out"]
    with deterministic(on, num_threads):
        _, held_out, _ = split(files, held["share"], settings["crop_px"])
        number = min(held["max_pictures"], len(held_out))
        section = settings["loss"]["perceptual"]
        distance = None
        if section is not None:
            spec = PERCEPTUAL[section["kind"]]
            distance = spec.load(spec.section(**section), components, on)
        rows, sheets, moments = {}, [], {}
        for contestant in contestants:
            vae = moved(load_vae(contestant.component), on)
            rows[contestant.name], original, sheet = _reconstruct(vae, held_out, number, distance)
            sheets.append(sheet)
            moments[contestant.name] = _scaled(vae, latent_moments(vae, held_out, min(number, NUM_SCALED)))
    _write_scores(out.scores, rows)
    _write_latents(out.latents, moments)
    pictures = np.concatenate([original, *reversed(sheets)])
    names = ["original", *(contestant.name for contestant in reversed(contestants))]
    labels = [name for name in names for _ in range(len(original))]
    write_grid(out.sheet, pictures, labels, num_columns=len(original), cell_px=_CELL_PX)
    num_read = len(next(iter(rows.values())))
    for name, found in rows.items():
        log(f"compare: {name}: {', '.join(f'{k} {v:.4g}' for k, v in _means(found).items())}")
    return {"pictures": num_read, "unreadable": number - num_read}


def _reconstruct(
    vae: Any, pictures: Pictures, number: int, distance: Distance | None
) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """A row a picture with SCORES, and the first NUM_SHOWN pictures and reconstructions, (n, H, W, 3) uint8."""
    tables, originals, found = [], [], []
    for batch in pictures.middles(number, _BATCH_SIZE):
        if not len(batch.pixels):
            continue
        images = torch.from_numpy(batch.pixels)
        decoded = decode_latents(vae, encode_latents(vae, images.float() / 127.5 - 1)).cpu()
        rounded = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()
        tables.append(_scores(rounded, images, distance, vae.device))
        originals.append(images)
        found.append(rounded)
    if not tables:
        raise ValueError(
            f"none of the {number} held-out pictures can be read; make the download's parts again"
        )
    return pl.concat(tables), _shown(originals), _shown(found)


def _shown(batches: list[Tensor]) -> np.ndarray:
    return torch.cat(batches)[:NUM_SHOWN].permute(0, 2, 3, 1).numpy()


def _scores(found: Tensor, pictures: Tensor, distance: Distance | None, device: torch.device) -> pl.DataFrame:
    """SCORES of reconstructions (B, 3, H, W) uint8; the perceptual distance is null where there is none."""
    one, other = found / 255, pictures / 255
    columns: dict[str, Any] = {
        "psnr": psnr(one, other),
        "ssim": ssim(one, other),
        "l1": mean_absolute_error(one, other),
    }
    values = {name: pl.Series(tensor.double().numpy()) for name, tensor in columns.items()}
    perceptual = None
    if distance is not None:
        with torch.no_grad():
            pairs = zip(found.to(device) / 127.5 - 1, pictures.to(device) / 127.5 - 1, strict=True)
            # One by one: a batch's distance is a mean.
            perceptual = [float(distance(a[None], b[None])) for a, b in pairs]
    return pl.DataFrame(
        {**values, "perceptual": pl.Series(perceptual or [None] * len(found), dtype=pl.Float64)}
    )


def _means(rows: pl.DataFrame) -> dict[str, float]:
    """Of each score; equal pictures, whose PSNR is infinite, count as 100 dB."""
    clipped = rows.with_columns(pl.col("psnr").clip(upper_bound=100.0))
    return {
        name: float(clipped[name].to_numpy().mean()) for name in SCORES if clipped[name].null_count() == 0
    }


def _scaled(vae: Any, moments: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Mean and standard deviation of each channel of the latents, scaled as a run's cache has them."""
    scale, shift = vae.config["scaling_factor"], vae.config["shift_factor"] or 0.0
    pairs = zip(moments["means"], moments["stds"], strict=True)
    return [((mean - shift) * scale, std * scale) for mean, std in pairs]


def _write_scores(path: str | Path, rows: Mapping[str, pl.DataFrame]) -> None:
    """A row an autoencoder: means over the pictures."""
    told = [
        {"autoencoder": name, "pictures": len(found), **{k: _means(found).get(k) for k in SCORES}}
        for name, found in rows.items()
    ]
    _write_csv(path, pl.DataFrame(told, schema_overrides=dict.fromkeys(SCORES, pl.Float64)))


def _write_latents(path: str | Path, moments: Mapping[str, list[tuple[float, float]]]) -> None:
    """A row a channel of each autoencoder: mean and standard deviation of scaled latents."""
    told = [
        {"autoencoder": name, "channel": channel, "mean": mean, "std": std}
        for name, found in moments.items()
        for channel, (mean, std) in enumerate(found)
    ]
    _write_csv(path, pl.DataFrame(told))


def _write_csv(path: str | Path, table: pl.DataFrame) -> None:
    with replacing(path) as beside:
        table.write_csv(beside, float_precision=6)
