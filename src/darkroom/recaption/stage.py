"""The recaption stage: the kept pictures of one part, captioned in the order of their uids."""

import io
import json
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image, UnidentifiedImageError

from darkroom.captioners.base import KINDS, CaptionerSection, Generated, Loaded, PictureError
from darkroom.captioners.table import CAPTIONERS
from darkroom.components.base import Component
from darkroom.recaption.quality import FLAGS, caption_flags, strip_prefix
from darkroom.store import COMPUTED_IN, TarReader, read_table, sha256_json, write_table

_MODEL = ("model", "model_path", "model_sha256", "model_revision")
_BATCHES_AHEAD = 2
_SECONDS_BETWEEN_LINES = 10.0

_log = logging.getLogger(__name__)
_Row = dict[str, Any]
_Batch = tuple[list[_Row], Any]


def recaption_part(
    table: str | Path,
    tar: str | Path,
    selection: str | Path,
    settings: CaptionerSection,
    components: Mapping[str, Component],
    out: str | Path,
) -> dict[str, int | dict[str, int]]:
    """Caption the kept pictures of a part and write `out`, one row each, sorted by uid.

    The alt-text is carried along as `caption_original` and is never part of a request. Batches are cut
    in the order of (uid, row), so the same inputs give the same file. A flagged caption is kept.

    Args:
        table: the part's table of the download stage (uid, row, caption, width, height, offset, size).
        tar: its pictures.
        selection: the part's table of the filter stage (uid, row, kept).
        settings: prompts and decoding.
        components: those that the settings name.
        out: Parquet file with uid, row, caption_original, caption_long, caption_short, for both kinds
            KIND_finish_reason, KIND_num_tokens and KIND_flags, and where they come from: model,
            model_path, model_sha256, model_revision, long_prompt_sha256, short_prompt_sha256, decoding
            (JSON) and library.

    Returns:
        kept, captioned, and for each kind tokens and how many captions have each flag.

    Raises:
        ValueError: a picture cannot be read or captioned; names its uid. Nothing is written then.
    """
    rows = _kept_rows(table, selection)
    captioner = CAPTIONERS[settings.kind].load(settings, components)
    progress, captions = _Progress(len(rows) * len(KINDS)), []
    for batch, inputs in _batches(rows, tar, captioner, settings.batch_size):
        try:
            answers = captioner.caption(inputs)
        except PictureError as error:
            raise ValueError(f"{tar}: picture {batch[error.place]['uid']}: {error}") from error
        except RuntimeError as error:
            first, last = batch[0]["uid"], batch[-1]["uid"]
            raise ValueError(
                f"{tar}: captioning the pictures {first} to {last} failed: {error}; "
                f"a smaller recaption.batch_size than {settings.batch_size} needs less memory"
            ) from error
        for place, row in enumerate(batch):
            captions.append(_caption_row(row, [answer[place] for answer in answers], settings))
        progress.add(len(batch) * len(KINDS))
    made = pl.DataFrame(captions, schema=_SCHEMA)
    write_table(out, made.with_columns(_provenance(settings, captioner)), sort_by=None)
    return {**_counts(made), COMPUTED_IN: {captioner.computed_in: len(made)}}


def _kept_rows(table: str | Path, selection: str | Path) -> list[_Row]:
    """The kept rows with where their picture lies, sorted by (uid, row); joined on the row and the uid."""
    columns = ["uid", "row", "caption", "width", "height", "offset", "size"]
    kept = read_table(selection, ["uid", "row", "kept"]).filter(pl.col("kept"))
    found = kept.join(read_table(table, columns), on=["uid", "row"], how="left", validate="1:1")
    for row in found.filter(pl.col("offset").is_null()).head(1).iter_rows(named=True):
        raise ValueError(
            f"{selection}: keeps {row['uid']} (row {row['row']}), which {table} has no picture of"
        )
    return found.sort("uid", "row").to_dicts()


def _batches(rows: list[_Row], tar: str | Path, captioner: Loaded, batch_size: int) -> Iterator[_Batch]:
    """Batches of rows with the model's inputs; a thread reads and resizes a bounded number ahead."""
    chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    with TarReader(tar) as reader, ThreadPoolExecutor(1) as ahead:

        def prepare(chunk: list[_Row]) -> _Batch:
            pictures = [_decode(reader.read(row["offset"], row["size"]), row, tar) for row in chunk]
            return chunk, captioner.prepare(pictures)

        waiting = [ahead.submit(prepare, chunk) for chunk in chunks[:_BATCHES_AHEAD]]
        try:
            for number in range(len(chunks)):
                batch = waiting.pop(0).result()
                if number + _BATCHES_AHEAD < len(chunks):
                    waiting.append(ahead.submit(prepare, chunks[number + _BATCHES_AHEAD]))
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def _decode(content: bytes, row: _Row, tar: str | Path) -> Image.Image:
    """A picture of the tar, RGB; its header is compared with the table before it is decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if image.size != (row["width"], row["height"]):
                raise ValueError(
                    f"{tar}: picture {row['uid']} is {image.size[0]}x{image.size[1]} px, its table says "
                    f"{row['width']}x{row['height']}; make the download part again"
                )
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{tar}: picture {row['uid']} cannot be decoded ({error})") from error


def _caption_row(row: _Row, answers: list[Generated], settings: CaptionerSection) -> _Row:
    made: _Row = {"uid": row["uid"], "row": row["row"], "caption_original": row["caption"]}
    for kind, answer in zip(KINDS, answers, strict=True):
        text = strip_prefix(answer.text, settings.strip_prefixes)
        made[f"caption_{kind}"] = text
        made[f"{kind}_finish_reason"] = answer.finish_reason
        made[f"{kind}_num_tokens"] = answer.num_tokens
        made[f"{kind}_flags"] = caption_flags(text, answer.finish_reason, stripped=text != answer.text)
    return made


_SCHEMA: dict[str, Any] = {
    "uid": pl.String,
    "row": pl.Int64,
    "caption_original": pl.String,
    "caption_long": pl.String,
    "caption_short": pl.String,
    "long_finish_reason": pl.String,
    "long_num_tokens": pl.Int32,
    "long_flags": pl.List(pl.String),
    "short_finish_reason": pl.String,
    "short_num_tokens": pl.Int32,
    "short_flags": pl.List(pl.String),
}


def _provenance(settings: CaptionerSection, captioner: Loaded) -> list[pl.Expr]:
    common = {name: getattr(settings, name) for name in ("batch_size", "max_new_tokens", "strip_prefixes")}
    decoding = json.dumps({**common, **captioner.decoding}, sort_keys=True, ensure_ascii=False)
    asked = {f"{kind}_prompt_sha256": sha256_json(getattr(settings, f"{kind}_prompt")) for kind in KINDS}
    values = {name: captioner.provenance[name] for name in _MODEL}
    values |= {**asked, "decoding": decoding, "library": captioner.provenance["library"]}
    return [pl.lit(value, dtype=pl.String).alias(name) for name, value in values.items()]


def _counts(made: pl.DataFrame) -> dict[str, int | dict[str, int]]:
    counts: dict[str, int | dict[str, int]] = {"captioned": len(made)}
    for kind in KINDS:
        counts[f"{kind}_tokens"] = int(made[f"{kind}_num_tokens"].sum())
        flags = made[f"{kind}_flags"].explode().drop_nulls().to_list()
        counts[f"{kind}_flags"] = {flag: flags.count(flag) for flag in FLAGS}
    return counts


class _Progress:
    """A line in the log now and then: how far, how fast, how much longer."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._begin = self._last = time.monotonic()

    def add(self, captions: int) -> None:
        self._done += captions
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        self._last, rate = now, self._done / max(now - self._begin, 1e-9)
        left = (self._total - self._done) / rate
        _log.info("%d/%d captions, %.0f captions/s, %.0f s left", self._done, self._total, rate, left)
