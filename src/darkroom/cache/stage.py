"""The cache stage: one shard of latents and text embeddings for each part, and one for the empty caption."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

from darkroom.cache.fingerprint import (
    CAPTION_COLUMNS,
    common_fields,
    part_fields,
    picture_fields,
    read_part,
    text_fields,
)
from darkroom.cache.pictures import picture_batches
from darkroom.config.components import Component
from darkroom.config.run import Cache
from darkroom.models.components import encode_latents, load_text_encoder, load_vae, moved
from darkroom.models.text import EncodedCaption, TextEncoder
from darkroom.store import write_table
from darkroom.store.latents import (
    CAPTION_KINDS,
    latents_name,
    table_columns,
    table_digest,
    write_shard,
)

ComputeDtype = Literal["float32", "bfloat16"]


def cache_part(
    table: str | Path,
    tar: str | Path,
    captions: str | Path,
    buckets: str | Path,
    settings: Cache,
    vae: Component,
    text_encoder: Component,
    out_tensors: str | Path,
    out_table: str | Path,
    *,
    compute_dtype: ComputeDtype = "float32",
    device: str | None = None,
) -> dict[str, Any]:
    """Encode the pictures of a part that have a bucket, and their captions, into a latent shard.

    `table` and `tar` are the download part, `captions` the recaption part, `buckets` the bucket part;
    `store.latents` describes what is written. Weights are float32; `compute_dtype` bfloat16 runs the
    encoders under autocast. Equal captions are encoded and stored once.

    Returns counts: pictures, pictures by bucket, captions (three a picture), captions_unique,
    captions_cut and captions_empty.

    Raises:
        ValueError: a picture is missing, damaged or encodes to something not finite; names the uid.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    pictures = read_part(table, captions, buckets)
    encoder = load_text_encoder(text_encoder)
    moved(encoder.model, chosen)
    precision = _autocast(chosen, compute_dtype)
    tensors, index = _latents(pictures, tar, settings, moved(load_vae(vae), chosen), precision)
    texts, spans, counts = _captions(pictures, settings, encoder, precision)
    index_table = pictures.select("uid", "row", "bucket_width", "bucket_height").with_columns(
        pl.Series("index", index), *spans
    )
    index_table = index_table.select(table_columns())
    found = {
        **picture_fields(vae),
        **text_fields(settings, text_encoder),
        **common_fields(settings, compute_dtype),
        **part_fields(pictures),
        "table": table_digest(index_table),
    }
    write_shard(out_tensors, {**tensors, **texts}, found)
    write_table(out_table, index_table)
    sizes = {name.removeprefix("latents/"): len(t) for name, t in sorted(tensors.items())}
    return {"pictures": pictures.height, "buckets": sizes, **counts}


def cache_null(
    settings: Cache,
    text_encoder: Component,
    out_tensors: str | Path,
    *,
    compute_dtype: ComputeDtype = "float32",
    device: str | None = None,
) -> dict[str, Any]:
    """Encode the empty caption: `text/null` (T, D) and `pooled/null` (1, P). Returns {"captions": 1}."""
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    encoder = load_text_encoder(text_encoder)
    moved(encoder.model, chosen)
    with _autocast(chosen, compute_dtype):
        empty = encoder.encode([""], settings.max_text_tokens, settings.batch_size)[0]
    tensors = {"text/null": empty.hidden, "pooled/null": empty.pooled[None]}
    found = {**text_fields(settings, text_encoder), **common_fields(settings, compute_dtype)}
    stored = {name: _stored(t, settings) for name, t in tensors.items()}
    write_shard(out_tensors, stored, found)
    return {"captions": 1}


def _autocast(device: torch.device, compute_dtype: ComputeDtype) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if compute_dtype == "bfloat16" else nullcontext()


def _stored(tensor: torch.Tensor, settings: Cache) -> torch.Tensor:
    return tensor.to("cpu", getattr(torch, settings.dtype))


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
        pixels = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2)
        with precision:
            encoded = encode_latents(vae, pixels.float() / 127.5 - 1)
        latents = _stored(encoded, settings)
        _refuse_not_finite(latents, [f"the latents of picture {pictures['uid'][n]}" for n in batch.rows])
        found.setdefault(batch.bucket, []).append(latents)
        first = filled.get(batch.bucket, 0)
        for place, number in enumerate(batch.rows, start=first):
            index[number] = place
        filled[batch.bucket] = first + len(batch.rows)
    return {latents_name(*bucket): torch.cat(parts) for bucket, parts in found.items()}, index


def _captions(
    pictures: pl.DataFrame,
    settings: Cache,
    encoder: TextEncoder,
    precision: AbstractContextManager[Any],
) -> tuple[dict[str, torch.Tensor], list[pl.Series], dict[str, int]]:
    """Text and pooled embeddings of every kind, each picture's spans in them, and counts."""
    columns = {name: pictures[name].to_list() for name in CAPTION_COLUMNS}
    unique = sorted({text for column in columns.values() for text in column})
    with precision:
        encoded = encoder.encode(unique, settings.max_text_tokens, settings.batch_size)
    known = dict(zip(unique, encoded, strict=True))
    _refuse_captions_not_finite(known, settings, pictures)
    tensors: dict[str, torch.Tensor] = {}
    spans: list[pl.Series] = []
    for kind, column in zip(CAPTION_KINDS, columns.values(), strict=True):
        hidden, starts, total = [torch.zeros(0, encoder.text_dim)], {}, 0
        for text in dict.fromkeys(column):
            starts[text] = total
            hidden.append(known[text].hidden.cpu())
            total += len(hidden[-1])
        pooled = [torch.zeros(0, encoder.pooled_dim), *(known[text].pooled.cpu()[None] for text in column)]
        tensors[f"text/{kind}"] = _stored(torch.cat(hidden), settings)
        tensors[f"pooled/{kind}"] = _stored(torch.cat(pooled), settings)
        spans.append(pl.Series(f"{kind}_offset", [starts[text] for text in column], dtype=pl.Int64))
        lengths = [len(known[text].hidden) for text in column]
        spans.append(pl.Series(f"{kind}_length", lengths, dtype=pl.Int64))
    uses = [text for column in columns.values() for text in column]
    counts = {
        "captions": len(uses),
        "captions_unique": len(unique),
        "captions_cut": sum(known[text].num_tokens_cut > 0 for text in uses),
        "captions_empty": sum(not text.strip() for text in uses),
    }
    return tensors, spans, counts


def _refuse_captions_not_finite(
    known: dict[str, EncodedCaption], settings: Cache, pictures: pl.DataFrame
) -> None:
    for text, found in known.items():
        both = torch.cat([_stored(found.hidden, settings).flatten(), _stored(found.pooled, settings)])
        if not bool(torch.isfinite(both).all()):
            same = pl.any_horizontal(pl.col(name) == text for name in CAPTION_COLUMNS)
            uid = pictures.filter(same)["uid"][0]
            _refuse_not_finite(both[None], [f"the embedding of a caption of picture {uid} ({text[:60]!r})"])


def _refuse_not_finite(numbers: torch.Tensor, names: Sequence[str]) -> None:
    wrong = np.flatnonzero(~torch.isfinite(numbers).flatten(1).all(dim=1).numpy())
    if len(wrong):
        raise ValueError(
            f"{names[wrong[0]]} are not finite as {numbers.dtype}; "
            "cache.dtype bfloat16 or float32 has the wider range, or leave the picture out"
        )
