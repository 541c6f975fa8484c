"""The table of a part's captions: its rows, where they come from, and what is counted of them."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import polars as pl

from darkroom.captioners.base import Request
from darkroom.captioners.quality import FLAGS
from darkroom.config.gates import Gates
from darkroom.recaption.asking import Asked, Made, PartCaptions
from darkroom.settings.captions import ORIGINAL
from darkroom.store import sha256_json
from darkroom.store.captions import DROPPED, caption_column

_MODEL = ("model", "model_path", "model_sha256", "model_revision")
Row = dict[str, Any]


def captions_table(
    rows: Sequence[Row],
    asked: PartCaptions,
    requests: Mapping[str, Request],
    gates: Gates | None,
    carried: Sequence[str],
) -> pl.DataFrame:
    """The table of a part.

    Args:
        rows: a picture each, in the order in which it was asked about: uid, row, and the captions of `carried`.
        asked: what was made of them.
        requests: name -> what was asked for.
        gates: what the captions had to be.
        carried: captions that stood there before.
    """
    body = [
        {**row, **_made({name: asked.made[place, name] for name in requests}, gates)}
        for place, row in enumerate(rows)
    ]
    made = pl.DataFrame(body, schema=captions_schema(requests, gates is not None, carried))
    return made.with_columns(_provenance(requests, asked.captioners))


def _made(captions: Mapping[str, Made], gates: Gates | None) -> Row:
    made: Row = {}
    for name, caption in captions.items():
        made[caption_column(name)] = caption.text
        made[f"{name}_finish_reason"] = caption.finish_reason
        made[f"{name}_num_tokens"] = caption.num_tokens
        made[f"{name}_flags"] = caption.flags
        if gates is not None:
            made |= {f"{name}_{what}": getattr(caption, what) for what in ("captioner", "tries", "gate")}
    failed = [caption.gate for caption in captions.values() if caption.gate is not None]
    if gates is not None:
        made[DROPPED] = failed[0] if failed and gates.drops else None
    return made


def captions_schema(
    names: Collection[str], has_gates: bool = False, carried: Sequence[str] = (ORIGINAL,)
) -> dict[str, Any]:
    """Column -> type of a part, less its provenance: the captions, and of each generated one how it came out."""
    of_each = {"finish_reason": pl.String, "num_tokens": pl.Int32, "flags": pl.List(pl.String)}
    if has_gates:
        of_each |= {"captioner": pl.Int32, "tries": pl.Int32, "gate": pl.String}
    captions = {caption_column(name): pl.String for name in (*carried, *names)}
    about = {f"{name}_{what}": kind for name in names for what, kind in of_each.items()}
    return {
        "uid": pl.String,
        "row": pl.Int64,
        **captions,
        **about,
        **({DROPPED: pl.String} if has_gates else {}),
    }


def _provenance(requests: Mapping[str, Request], captioners: Sequence[Asked | None]) -> list[pl.Expr]:
    """Columns that say what wrote the captions, the first captioner's without a number."""
    asked = {f"{name}_prompt_sha256": sha256_json(request.prompt) for name, request in requests.items()}
    values: dict[str, str | None] = {}
    for number, captioner in enumerate(captioners):
        told = dict.fromkeys((*_MODEL, "decoding", "library")) if captioner is None else _told(captioner)
        if number == 0:
            told = {**{name: told[name] for name in _MODEL}, **asked, **told}
        values |= {f"{name}.{number}" if number else name: value for name, value in told.items()}
    return [pl.lit(value, dtype=pl.String).alias(name) for name, value in values.items()]


def _told(captioner: Asked) -> dict[str, str | None]:
    options = ("max_new_tokens", "strip_prefixes", "temperature", "top_p")
    by_caption = {
        name: {option: getattr(request, option) for option in options}
        for name, request in captioner.requests.items()
    }
    told = {**captioner.decoding, "captions": by_caption}
    decoding = json.dumps(told, sort_keys=True, ensure_ascii=False)
    model = {name: captioner.provenance[name] for name in _MODEL}
    return {**model, "decoding": decoding, "library": captioner.provenance["library"]}


def counted(made: pl.DataFrame, names: Collection[str]) -> dict[str, int | dict[str, int]]:
    """Of each of the captions, its tokens and how many texts have each flag."""
    counts: dict[str, int | dict[str, int]] = {}
    for name in names:
        counts[f"{name}_tokens"] = int(made[f"{name}_num_tokens"].sum())
        flags = made[f"{name}_flags"].explode().drop_nulls().to_list()
        counts[f"{name}_flags"] = {flag: flags.count(flag) for flag in FLAGS}
    return counts
