"""The fingerprint of a cache shard: everything that shaped its numbers, by name.

Fields of every shard of a cache: format, vae, scale, shift, text_encoder, hidden_layer, max_text_tokens
(for a list, instead of these three: text_encoders), sizes where they are kept, online where training
encodes, dtype, compute_dtype. Fields of one part's shard: pictures, crops, captions (digests of the rows
used), caption_names, and table (digest of the shard's own table).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from darkroom.components.base import Component
from darkroom.components.files import component_folder
from darkroom.components.files import fingerprint as component_digest
from darkroom.config.run import Cache
from darkroom.store import read_table, sha256_json
from darkroom.store.captions import caption_column, captions_of, names_in

FORMAT = 1
PICTURE_COLUMNS = ["uid", "sha256", "size", "width", "height"]
CROP_COLUMNS = [
    "uid",
    "bucket_width",
    "bucket_height",
    "resized_width",
    "resized_height",
    "crop_left",
    "crop_top",
]


@dataclass(frozen=True)
class PartTables:
    """The tables of one part: the download's, the recaption's, the buckets', and of a rewrite if there is one."""

    download: str | Path
    captions: str | Path
    buckets: str | Path
    rewritten: str | Path | None = None


def read_part(tables: PartTables) -> pl.DataFrame:
    """The pictures of a part that have a bucket, sorted by uid, with place, crop and captions.

    Raises:
        ValueError: a picture with a bucket is missing in one of the tables.
    """
    crops = read_table(tables.buckets, ["row", "dropped", *CROP_COLUMNS])
    crops = crops.filter(pl.col("dropped").is_null()).drop("dropped")
    places = read_table(tables.download, [*PICTURE_COLUMNS, "offset"])
    written = [path for path in (tables.captions, tables.rewritten) if path is not None]
    texts = {
        path: read_table(path, ["uid", *(caption_column(name) for name in captions_of(path))])
        for path in written
    }
    for path, other in {tables.download: places.drop_nulls("offset"), **texts}.items():
        missing = crops.join(other, on="uid", how="anti")
        if missing.height:
            raise ValueError(
                f"{path}: has no picture {missing['uid'][0]}, to which {tables.buckets} gives a bucket"
            )
    joined = crops.join(places, on="uid", how="left")
    for told in texts.values():
        joined = joined.join(told, on="uid", how="left")
    captions = [caption_column(name) for name in names_in(joined.columns)]
    return joined.sort("uid").with_columns(pl.col(captions).fill_null(""))


def captions_in(pictures: pl.DataFrame) -> dict[str, list[str]]:
    """Name -> texts of the captions of the rows of `read_part`."""
    return {name: pictures[caption_column(name)].to_list() for name in names_in(pictures.columns)}


def part_fields(pictures: pl.DataFrame) -> dict[str, Any]:
    """The fields that belong to one part, from the rows of `read_part`."""
    names = names_in(pictures.columns)
    columns = {
        "pictures": PICTURE_COLUMNS,
        "crops": CROP_COLUMNS,
        "captions": ["uid", *map(caption_column, names)],
    }
    digests = {
        name: sha256_json(pictures.select(chosen).to_dict(as_series=False))
        for name, chosen in columns.items()
    }
    return {**digests, "caption_names": list(names)}


def expected_fingerprint(
    settings: Cache,
    vae: Component,
    text_encoders: Sequence[Component],
    tables: PartTables | None = None,
    *,
    compute_dtype: str = "float32",
) -> dict[str, Any]:
    """The fingerprint that a shard made now would have, without encoding anything.

    With a part's tables it holds that part's fields too; without, those of every shard.
    """
    fields: Mapping[str, Any] = part_fields(read_part(tables)) if tables is not None else {}
    return {
        **picture_fields(vae),
        **text_fields(settings, text_encoders),
        **form_fields(settings),
        **common_fields(settings, compute_dtype),
        **fields,
    }


def picture_fields(vae: Component) -> dict[str, Any]:
    """What turns pixels into latents: the VAE's files, and its scale and shift by themselves."""
    config = json.loads((component_folder(vae, "vae") / "config.json").read_text())
    return {
        "vae": component_digest(vae),
        "scale": config.get("scaling_factor"),
        "shift": config.get("shift_factor") or 0.0,
    }


def text_fields(settings: Cache, text_encoders: Sequence[Component]) -> dict[str, Any]:
    """What turns a caption into its embeddings: the encoders' and tokenizers' files, and how they are read."""
    uses = settings.encoders
    if settings.text_encoder is not None:
        return {
            "text_encoder": component_digest(text_encoders[0]),
            "hidden_layer": uses[0].hidden_layer,
            "max_text_tokens": uses[0].max_tokens,
        }
    found = [
        {"files": component_digest(component), **use.model_dump(mode="json", exclude={"name"})}
        for use, component in zip(uses, text_encoders, strict=True)
    ]
    return {"text_encoders": found}


def form_fields(settings: Cache) -> dict[str, Any]:
    """Whether the tables hold original sizes and crops, and whether training encodes."""
    fields = {"sizes": settings.size_conditioning, "online": settings.online}
    return {name: True for name, is_set in fields.items() if is_set}


def common_fields(settings: Cache, compute_dtype: str) -> dict[str, Any]:
    """The precision of the numbers, while they are computed and as they are stored."""
    return {"format": FORMAT, "dtype": settings.dtype, "compute_dtype": compute_dtype}
