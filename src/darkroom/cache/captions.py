"""Where the captions of a part lie in its shard, known from their tokens before any is encoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from darkroom.cache.fingerprint import CAPTION_COLUMNS
from darkroom.components.text import TextEncoder, count_tokens
from darkroom.config.run import TextEncoderUse
from darkroom.store.latents import CAPTION_KINDS, latents_name, of_encoder


def unique_captions(pictures: pl.DataFrame) -> list[str]:
    """Every caption of the rows of `read_part` once, sorted."""
    return sorted({text for name in CAPTION_COLUMNS for text in pictures[name].to_list()})


@dataclass(frozen=True)
class CaptionLayout:
    """The captions of one text encoder: equal ones of a kind are stored once, pooled embeddings for each row.

    shapes: of the tensors, by name. spans: the columns of the shard's table. starts: kind -> caption -> first
    token. rows: kind -> caption -> rows of the table; of encoders with a pooled embedding. cut: captions that
    are longer than the encoder takes.
    """

    shapes: dict[str, tuple[int, int]]
    spans: list[pl.Series]
    starts: dict[str, dict[str, int]]
    rows: dict[str, dict[str, list[int]]]
    cut: frozenset[str]


def caption_layout(
    pictures: pl.DataFrame, unique: Sequence[str], encoder: TextEncoder, use: TextEncoderUse, place: int
) -> CaptionLayout:
    """The places of the captions of `pictures`, rows of `read_part`, for the encoder at `place` of the list."""
    found = dict(zip(unique, count_tokens(encoder.tokenizer, unique, use), strict=True))
    lengths = {text: kept for text, (kept, _) in found.items()}
    places = CaptionLayout({}, [], {}, {}, frozenset(text for text, (_, cut) in found.items() if cut))
    for kind, name in zip(CAPTION_KINDS, CAPTION_COLUMNS, strict=True):
        column = pictures[name].to_list()
        places.starts[kind], total = first_places(column, lengths)
        places.shapes[of_encoder(f"text/{kind}", place)] = (total, encoder.text_dim)
        places.rows[kind] = {}
        if use.pooled:
            places.shapes[of_encoder(f"pooled/{kind}", place)] = (len(column), encoder.pooled_dim_of(use))
            for row, text in enumerate(column):
                places.rows[kind].setdefault(text, []).append(row)
        for what, known in (("offset", places.starts[kind]), ("length", lengths)):
            numbers = [known[text] for text in column]
            places.spans.append(pl.Series(of_encoder(f"{kind}_{what}", place), numbers, dtype=pl.Int64))
    return places


def first_places(column: Sequence[Any], lengths: Mapping[Any, int]) -> tuple[dict[Any, int], int]:
    """(where each distinct entry of a column begins, one after another in the order they come, the end)."""
    starts, total = {}, 0
    for entry in dict.fromkeys(column):
        starts[entry] = total
        total += lengths[entry]
    return starts, total


def count_part(pictures: pl.DataFrame, cut: frozenset[str] | set[str]) -> dict[str, Any]:
    """What a part holds, for its manifest; `cut` are the captions that some text encoder cuts."""
    texts = [text for name in CAPTION_COLUMNS for text in pictures[name].to_list()]
    shapes = pictures.group_by("bucket_width", "bucket_height").len().iter_rows()
    by_bucket = {latents_name(width, height).removeprefix("latents/"): num for width, height, num in shapes}
    return {
        "pictures": pictures.height,
        "buckets": dict(sorted(by_bucket.items())),
        "captions": len(texts),
        "captions_unique": len(set(texts)),
        "captions_cut": sum(text in cut for text in texts),
        "captions_empty": sum(not text.strip() for text in texts),
    }
