"""The cache stage: one shard of latents and text embeddings for each part, and one for the empty caption."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import polars as pl
import torch

from darkroom.cache.encode import ComputeDtype, autocast, caption_states, picture_latents, stored
from darkroom.cache.fingerprint import (
    CAPTION_COLUMNS,
    common_fields,
    form_fields,
    part_fields,
    picture_fields,
    read_part,
    text_fields,
)
from darkroom.cache.pictures import picture_batches
from darkroom.config.components import Component
from darkroom.config.run import Cache, TextEncoderUse
from darkroom.models.components import load_vae, moved
from darkroom.models.text import TextEncoder
from darkroom.models.text_encoders import load_text_encoder
from darkroom.store import write_table
from darkroom.store.latents import (
    CAPTION_KINDS,
    latents_name,
    of_encoder,
    table_columns,
    table_digest,
    write_shard,
)


def cache_part(
    table: str | Path,
    tar: str | Path,
    captions: str | Path,
    buckets: str | Path,
    settings: Cache,
    vae: Component,
    text_encoders: Sequence[Component],
    out_tensors: str | Path,
    out_table: str | Path,
    *,
    compute_dtype: ComputeDtype = "float32",
    device: str | None = None,
) -> dict[str, Any]:
    """Encode the pictures of a part that have a bucket, and their captions, into a latent shard.

    `table` and `tar` are the download part, `captions` the recaption part, `buckets` the bucket part;
    `store.latents` describes what is written. Weights are float32; `compute_dtype` bfloat16 runs the
    encoders under autocast. Equal captions are encoded and stored once. `text_encoders` are the components
    of `settings.encoders`; one is in memory at a time.

    Returns counts: pictures, pictures by bucket, captions (three a picture), captions_unique,
    captions_cut (by any encoder) and captions_empty.

    Raises:
        ValueError: a picture is missing, damaged or encodes to something not finite; names the uid.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    pictures = read_part(table, captions, buckets)
    precision = autocast(chosen, compute_dtype)
    tensors, index = _latents(pictures, tar, settings, moved(load_vae(vae), chosen), precision)
    texts: dict[str, torch.Tensor] = {}
    spans: list[pl.Series] = []
    cut: set[str] = set()
    for place, (use, component) in enumerate(zip(settings.encoders, text_encoders, strict=True)):
        encoder = load_text_encoder(component)
        moved(encoder.model, chosen)
        of_this, its_spans, its_cut = _captions(pictures, settings, use, encoder, precision)
        texts |= {of_encoder(name, place): tensor for name, tensor in of_this.items()}
        spans += [column.alias(of_encoder(column.name, place)) for column in its_spans]
        cut |= its_cut
    columns = [pl.Series("index", index), *spans]
    index_table = _index_table(
        pictures, columns, table_columns(len(text_encoders), settings.size_conditioning)
    )
    found = {
        **picture_fields(vae),
        **text_fields(settings, text_encoders),
        **form_fields(settings),
        **common_fields(settings, compute_dtype),
        **part_fields(pictures),
        "table": table_digest(index_table),
    }
    write_shard(out_tensors, {**tensors, **texts}, found)
    write_table(out_table, index_table)
    by_bucket = {name.removeprefix("latents/"): len(t) for name, t in sorted(tensors.items())}
    uses = [text for name in CAPTION_COLUMNS for text in pictures[name].to_list()]
    return {
        "pictures": pictures.height,
        "buckets": by_bucket,
        "captions": len(uses),
        "captions_unique": len(set(uses)),
        "captions_cut": sum(text in cut for text in uses),
        "captions_empty": sum(not text.strip() for text in uses),
    }


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


def _latents(
    pictures: pl.DataFrame,
    tar: str | Path,
    settings: Cache,
    vae: Any,
    precision: AbstractContextManager[Any],
) -> tuple[dict[str, torch.Tensor], list[int]]:
    """The latents of every bucket (N, C, H, W), and the place of each picture in its bucket's."""
    found: dict[tuple[int, int], list[torch.Tensor]] = {}
    index = [0] * pictures.height
    filled: dict[tuple[int, int], int] = {}
    for batch in picture_batches(pictures, tar, settings.batch_size):
        with precision:
            latents = picture_latents(vae, batch.pixels, pictures["uid"][batch.rows].to_list(), settings)
        found.setdefault(batch.bucket, []).append(latents)
        first = filled.get(batch.bucket, 0)
        for place, number in enumerate(batch.rows, start=first):
            index[number] = place
        filled[batch.bucket] = first + len(batch.rows)
    return {latents_name(*bucket): torch.cat(parts) for bucket, parts in found.items()}, index


def _captions(
    pictures: pl.DataFrame,
    settings: Cache,
    use: TextEncoderUse,
    encoder: TextEncoder,
    precision: AbstractContextManager[Any],
) -> tuple[dict[str, torch.Tensor], list[pl.Series], set[str]]:
    """Text and pooled embeddings of every kind, each picture's spans in them, and captions that were cut."""
    columns = {name: pictures[name].to_list() for name in CAPTION_COLUMNS}
    unique = sorted({text for column in columns.values() for text in column})

    def uid_of(text: str) -> str:
        return pictures.filter(pl.any_horizontal(pl.col(CAPTION_COLUMNS) == text))["uid"][0]

    with precision:
        encoded = caption_states(encoder, unique, use, settings, uid_of)
    known = dict(zip(unique, encoded, strict=True))
    tensors: dict[str, torch.Tensor] = {}
    spans: list[pl.Series] = []
    for kind, column in zip(CAPTION_KINDS, columns.values(), strict=True):
        dtype = getattr(torch, settings.dtype)
        hidden, starts, total = [torch.zeros(0, encoder.text_dim, dtype=dtype)], {}, 0
        for text in dict.fromkeys(column):
            starts[text] = total
            hidden.append(known[text].hidden)
            total += len(hidden[-1])
        tensors[f"text/{kind}"] = torch.cat(hidden)
        if use.pooled:
            pooled = [known[text].pooled[None] for text in column]
            pooled = [torch.zeros(0, encoder.pooled_dim, dtype=dtype), *pooled]
            tensors[f"pooled/{kind}"] = torch.cat(pooled)
        spans.append(pl.Series(f"{kind}_offset", [starts[text] for text in column], dtype=pl.Int64))
        lengths = [len(known[text].hidden) for text in column]
        spans.append(pl.Series(f"{kind}_length", lengths, dtype=pl.Int64))
    return tensors, spans, {text for text in unique if known[text].num_tokens_cut > 0}
