"""The cache stage: one shard of latents and text embeddings for each part, and one for the empty caption."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import polars as pl
import torch

from darkroom.cache.captions import CaptionLayout, caption_layout, count_part, unique_captions
from darkroom.cache.encode import ComputeDtype, autocast, caption_embeddings, picture_latents, stored
from darkroom.cache.fingerprint import (
    PartTables,
    captions_in,
    common_fields,
    form_fields,
    part_fields,
    picture_fields,
    read_part,
    text_fields,
)
from darkroom.components.base import Component
from darkroom.components.files import moved
from darkroom.components.text import TextEncoder
from darkroom.components.text_encoders import load_text_encoder
from darkroom.components.vae import latent_shape, load_vae
from darkroom.config.run import Cache
from darkroom.models.training_components import TrainingComponents
from darkroom.store import write_table
from darkroom.store.captions import caption_column
from darkroom.store.latents import (
    ShardWriter,
    latents_name,
    of_encoder,
    table_columns,
    table_digest,
    write_shard,
    written_shard,
)
from darkroom.store.pictures import picture_batches


def cache_part(
    tables: PartTables,
    tar: str | Path,
    encoders: TrainingComponents,
    out_tensors: str | Path,
    out_table: str | Path,
    *,
    compute_dtype: ComputeDtype = "float32",
    device: str | None = None,
) -> dict[str, Any]:
    """Encode the pictures of a part that have a bucket, and their captions, into a latent shard.

    `tar` has the part's pictures; `store.latents` describes what is written. Weights are float32;
    `compute_dtype` bfloat16 runs the encoders under autocast. Equal captions are encoded and stored once.
    One text encoder is in memory at a time, and so is one batch: the shard is written as it is made.

    Returns counts: pictures, pictures by bucket, captions (of all names), captions_unique,
    captions_cut (by any encoder) and captions_empty.

    Raises:
        ValueError: a picture is missing, damaged or encodes to something not finite; names the uid.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    pictures, settings = read_part(tables), encoders.cache
    vae, text_encoders = encoders.vae, encoders.text_encoders
    unique, precision = unique_captions(pictures), autocast(chosen, compute_dtype)
    encoder_of_pictures = moved(load_vae(vae), chosen)
    # Loaded once more to encode: the header, which comes first, needs the sizes of what all of them make.
    places = [
        caption_layout(pictures, unique, load_text_encoder(component), use, place)
        for place, (use, component) in enumerate(zip(settings.encoders, text_encoders, strict=True))
    ]
    in_bucket = pl.int_range(pl.len(), dtype=pl.Int64).over("bucket_width", "bucket_height")
    columns = [pictures.select(in_bucket.alias("index"))["index"], *(s for p in places for s in p.spans)]
    captions = list(captions_in(pictures))
    names = table_columns(captions, len(text_encoders), settings.size_conditioning)
    index_table = _index_table(pictures, columns, names)
    found = {
        **picture_fields(vae),
        **text_fields(settings, text_encoders),
        **form_fields(settings),
        **common_fields(settings, compute_dtype),
        **part_fields(pictures),
        "table": table_digest(index_table),
    }
    shapes = _latent_shapes(pictures, encoder_of_pictures)
    shapes |= {name: shape for of_this in places for name, shape in of_this.shapes.items()}
    with written_shard(out_tensors, shapes, getattr(torch, settings.dtype), found) as shard:
        _write_latents(shard, pictures, tar, settings, encoder_of_pictures, precision)
        del encoder_of_pictures
        for place, component in enumerate(text_encoders):
            encoder = load_text_encoder(component)
            moved(encoder.model, chosen)
            with precision:
                _write_captions(shard, pictures, unique, places[place], place, settings, encoder)
    write_table(out_table, index_table)
    return count_part(pictures, {text for of_this in places for text in of_this.cut})


def _index_table(pictures: pl.DataFrame, columns: Sequence[pl.Series], names: Sequence[str]) -> pl.DataFrame:
    """Where each picture's latents and captions lie in the shard, with the columns that it is to have."""
    sizes = {"original_width": "width", "original_height": "height"}
    kept = pictures.select(
        *("uid", "row", "bucket_width", "bucket_height", "crop_top", "crop_left"),
        *(pl.col(old).alias(new) for new, old in sizes.items()),
    )
    return kept.with_columns(*columns).select(names)


def cache_null(
    settings: Cache,
    text_encoders: Sequence[Component],
    out_tensors: str | Path,
    *,
    compute_dtype: ComputeDtype = "float32",
    device: str | None = None,
) -> dict[str, Any]:
    """Encode the empty caption: `text/null` (T, D) and `pooled/null` (1, P). Returns {"captions": 1}.

    So for every encoder; where `no_caption` is `zeros`, both are zero.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    tensors: dict[str, torch.Tensor] = {}
    for place, (use, component) in enumerate(zip(settings.encoders, text_encoders, strict=True)):
        encoder = load_text_encoder(component)
        moved(encoder.model, chosen)
        with autocast(chosen, compute_dtype):
            empty = encoder.read([""], use, settings.batch_size)[0]
        tensors[of_encoder("text/null", place)] = empty.hidden
        if use.pooled:
            tensors[of_encoder("pooled/null", place)] = empty.pooled[None]
    found = {**text_fields(settings, text_encoders), **common_fields(settings, compute_dtype)}
    write_shard(out_tensors, {name: stored(t, settings) for name, t in tensors.items()}, found)
    return {"captions": 1}


def _latent_shapes(pictures: pl.DataFrame, vae: Any) -> dict[str, tuple[int, ...]]:
    """(N, C, h, w) of every bucket's latents, by the tensor's name."""
    counts = pictures.group_by("bucket_width", "bucket_height").len().iter_rows()
    return {latents_name(w, h): (number, *latent_shape(vae, w, h)) for w, h, number in counts}


def _write_latents(
    shard: ShardWriter,
    pictures: pl.DataFrame,
    tar: str | Path,
    settings: Cache,
    vae: Any,
    precision: AbstractContextManager[Any],
) -> None:
    """Encode the pictures in batches, each bucket's in the order of the table."""
    written: Counter[tuple[int, int]] = Counter()
    for batch in picture_batches(pictures, tar, settings.batch_size):
        with precision:
            latents = picture_latents(vae, batch.pixels, pictures["uid"][batch.rows].to_list(), settings)
        shard.write(latents_name(*batch.bucket), written[batch.bucket], latents)
        written[batch.bucket] += len(latents)


def _write_captions(
    shard: ShardWriter,
    pictures: pl.DataFrame,
    unique: list[str],
    places: CaptionLayout,
    place: int,
    settings: Cache,
    encoder: TextEncoder,
) -> None:
    """Encode the captions in batches with the encoder at `place` of the list."""

    def uid_of(text: str) -> str:
        columns = [caption_column(name) for name in places.starts]
        return pictures.filter(pl.any_horizontal(pl.col(columns) == text))["uid"][0]

    use = settings.encoders[place]
    for start in range(0, len(unique), settings.batch_size):
        batch = unique[start : start + settings.batch_size]
        encoded = caption_embeddings(encoder, batch, use, settings, uid_of)
        for text, found in zip(batch, encoded, strict=True):
            for name, starts in places.starts.items():
                if text in starts:
                    shard.write(of_encoder(f"text/{name}", place), starts[text], found.hidden)
                for row in places.rows[name].get(text, ()):
                    shard.write(of_encoder(f"pooled/{name}", place), row, found.pooled[None])
