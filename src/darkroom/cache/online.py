"""The cache stage where training encodes: for each part where its pictures lie, their crops and captions."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from darkroom.cache.captions import count_part, first_places, unique_captions
from darkroom.cache.fingerprint import PartTables, captions_in, expected_fingerprint, read_part
from darkroom.components.text import count_tokens
from darkroom.components.text_encoders import load_text_tokenizer
from darkroom.models.training_components import TrainingComponents
from darkroom.store import write_table
from darkroom.store.latents import online_columns, table_digest, write_shard


def cache_index(
    tables: PartTables, encoders: TrainingComponents, out_tensors: str | Path, out_table: str | Path
) -> dict[str, Any]:
    """Write the shard of a part that is encoded during training: from tables, no picture is read.

    The inputs, the counts and the fingerprint are those of `cache_part`; equal captions are stored once.

    Raises:
        ValueError: a picture with a bucket is missing in one of the tables.
    """
    pictures, settings = read_part(tables), encoders.cache
    tensors, spans = {}, []
    captions = captions_in(pictures)
    for name, texts in captions.items():
        column = [text.encode() for text in texts]
        starts, _ = first_places(column, {text: len(text) for text in column})
        joined = np.frombuffer(b"".join(starts), np.uint8).copy()
        tensors[f"caption/{name}"] = torch.from_numpy(joined)
        spans.append(pl.Series(f"{name}_offset", [starts[text] for text in column], dtype=pl.Int64))
        spans.append(pl.Series(f"{name}_length", [len(text) for text in column], dtype=pl.Int64))
    index = pictures.with_columns(*spans).select(online_columns(list(captions)))
    expected = expected_fingerprint(settings, encoders.vae, encoders.text_encoders, tables)
    write_shard(out_tensors, tensors, {**expected, "table": table_digest(index)})
    write_table(out_table, index)
    unique, cut = unique_captions(pictures), set()
    for use, component in zip(settings.encoders, encoders.text_encoders, strict=True):
        found = count_tokens(load_text_tokenizer(component), unique, use)
        cut |= {text for text, (_, num_cut) in zip(unique, found, strict=True) if num_cut}
    return count_part(pictures, cut)
