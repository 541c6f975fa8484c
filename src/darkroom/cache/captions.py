"""Where the captions of a part lie in its shard, known from their tokens before any is encoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from darkroom.cache.fingerprint import captions_in
from darkroom.components.text import TextEncoder, count_tokens
from darkroom.config.run import TextEncoderUse
from darkroom.store.latents import latents_name, of_encoder


def unique_captions(pictures: pl.DataFrame) -> list[str]:
    """Every caption of the rows of `read_part` once, sorted."""
    return sorted({text for texts in captions_in(pictures).values() for text in texts})


@dataclass(frozen=True)
class CaptionLayout:
    """The captions of one text encoder: equal ones of a name are stored once, pooled embeddings for each row.

    shapes: of the tensors, by name. spans: the columns of the shard's table. starts: name -> caption -> first
    token. rows: name -> caption -> rows of the table; of encoders with a pooled embedding. cut: captions that
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
    for name, column in captions_in(pictures).items():
        places.starts[name], total = first_places(column, lengths)
        places.shapes[of_encoder(f"text/{name}", place)] = (total, encoder.text_dim)
        places.rows[name] = {}
        if use.pooled:
            places.shapes[of_encoder(f"pooled/{name}", place)] = (len(column), encoder.pooled_dim_of(use))
            for row, text in enumerate(column):
                places.rows[name].setdefault(text, []).append(row)
        for what, known in (("offset", places.starts[name]), ("length", lengths)):
            numbers = [known[text] for text in column]
            places.spans.append(pl.Series(of_encoder(f"{name}_{what}", place), numbers, dtype=pl.Int64))
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
    texts = [text for column in captions_in(pictures).values() for text in column]
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
