"""The recaption stage: the kept pictures of one part, captioned in the order of their uids."""

import io
import json
import logging
import shutil
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image, UnidentifiedImageError

from darkroom.captioners.base import CaptionerSection, Generated, Loaded, Request, Wanted
from darkroom.captioners.table import CAPTIONERS
from darkroom.components.base import Component
from darkroom.recaption.quality import FLAGS, caption_flags, strip_prefix
from darkroom.store import TarReader, read_table, sha256_json, write_table
from darkroom.store.captions import ORIGINAL, caption_column

_MODEL = ("model", "model_path", "model_sha256", "model_revision")
_SECONDS_BETWEEN_LINES = 10.0

_log = logging.getLogger(__name__)
_Row = dict[str, Any]


def recaption_part(
    table: str | Path,
    tar: str | Path,
    selection: str | Path,
    settings: CaptionerSection,
    components: Mapping[str, Component],
    out: str | Path,
    keep_scratch: bool = False,
) -> dict[str, Any]:
    """Caption the kept pictures of a part and write `out`, one row each, sorted by uid.

    The alt-text is carried along as `caption_original` and is never part of a request. Pictures are captioned
    in the order of (uid, row), so the same inputs give the same file. A flagged caption is kept.

    Args:
        table: the part's table of the download stage (uid, row, caption, width, height, offset, size).
        tar: its pictures.
        selection: the part's table of the filter stage (uid, row, kept).
        settings: the captions with their prompts, and how they are decoded.
        components: those that the settings name.
        out: Parquet file with the columns of `captions_schema`, and where the captions come from: model,
            model_path, model_sha256, model_revision, NAME_prompt_sha256, decoding (JSON) and library.
        keep_scratch: leave what the captioner kept beside `out` to the caller, who calls `forget`.

    Returns:
        captioned, for each caption tokens and how many texts have each flag, and the captioner's own counts.

    Raises:
        ValueError: a picture cannot be read or captioned; names its uid. Nothing is written then.
    """
    rows, requests = _kept_rows(table, selection), settings.asked()
    captioner = CAPTIONERS[settings.kind].load(settings, components)
    with TarReader(tar) as reader:
        pictures = _Pictures(rows, reader, str(tar), scratch_folder(out), len(rows) * len(requests))
        with captioner.asking(pictures) as ask:
            answers = ask(Wanted({place: tuple(requests) for place in range(len(rows))}))
    captions = [
        _caption_row(row, {name: answers[place, name] for name in requests}, requests)
        for place, row in enumerate(rows)
    ]
    made = pl.DataFrame(captions, schema=captions_schema(requests))
    write_table(out, made.with_columns(_provenance(requests, captioner)), sort_by=None)
    counts = {**_counts(made, requests), **captioner.counts}
    if not keep_scratch:
        forget(out, counts)
    return counts


def scratch_folder(out: str | Path) -> Path:
    """Where a captioner keeps things of a part until it is finished."""
    return Path(out).parent / f".{Path(out).stem}.captions"


def forget(out: str | Path, counts: Mapping[str, Any]) -> None:
    """Remove what a captioner kept of a part that is finished, with these counts.

    It stays where captions failed: made again, the part asks for these alone.
    """
    if not counts.get("failed"):
        shutil.rmtree(scratch_folder(out), ignore_errors=True)


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


class _Pictures:
    """See `captioners.base.Pictures`."""

    def __init__(
        self, rows: Sequence[_Row], reader: TarReader, where: str, scratch: Path, num_captions: int
    ) -> None:
        self.where, self.scratch = where, scratch
        self.uids: Sequence[str] = [str(row["uid"]) for row in rows]
        self._rows, self._reader, self._reading = rows, reader, threading.Lock()
        self._progress = _Progress(num_captions)

    def jpeg(self, place: int) -> bytes:
        content = self._read(place)
        self._open(content, place).close()
        return content

    def image(self, place: int) -> Image.Image:
        with self._open(self._read(place), place) as image:
            try:
                return image.convert("RGB")
            except OSError as error:
                raise self._undecoded(place, error) from error

    def tell(self, num_captions: int) -> None:
        self._progress.add(num_captions)

    def _read(self, place: int) -> bytes:
        with self._reading:
            return self._reader.read(self._rows[place]["offset"], self._rows[place]["size"])

    def _open(self, content: bytes, place: int) -> Image.Image:
        """Its header is compared with the table before it is decoded."""
        row = self._rows[place]
        try:
            image = Image.open(io.BytesIO(content), formats=["JPEG"])
        except (UnidentifiedImageError, OSError) as error:
            raise self._undecoded(place, error) from error
        if image.size != (row["width"], row["height"]):
            raise ValueError(
                f"{self.where}: picture {row['uid']} is {image.size[0]}x{image.size[1]} px, its table says "
                f"{row['width']}x{row['height']}; make the download part again"
            )
        return image

    def _undecoded(self, place: int, error: Exception) -> ValueError:
        return ValueError(f"{self.where}: picture {self.uids[place]} cannot be decoded ({error})")


def _caption_row(row: _Row, answers: Mapping[str, Generated], requests: Mapping[str, Request]) -> _Row:
    made: _Row = {"uid": row["uid"], "row": row["row"], caption_column(ORIGINAL): row["caption"]}
    for name, answer in answers.items():
        text = strip_prefix(answer.text, requests[name].strip_prefixes)
        made[caption_column(name)] = text
        made[f"{name}_finish_reason"] = answer.finish_reason
        made[f"{name}_num_tokens"] = answer.num_tokens
        made[f"{name}_flags"] = caption_flags(text, answer.finish_reason, stripped=text != answer.text)
    return made


def captions_schema(names: Collection[str]) -> dict[str, Any]:
    """Column -> type of a part, less its provenance: the captions, and of each generated one how it came out."""
    of_each = {"finish_reason": pl.String, "num_tokens": pl.Int32, "flags": pl.List(pl.String)}
    captions = {caption_column(name): pl.String for name in (ORIGINAL, *names)}
    about = {f"{name}_{what}": kind for name in names for what, kind in of_each.items()}
    return {"uid": pl.String, "row": pl.Int64, **captions, **about}


def _provenance(requests: Mapping[str, Request], captioner: Loaded) -> list[pl.Expr]:
    by_caption = {name: _told(request) for name, request in requests.items()}
    told = {**captioner.decoding, "captions": by_caption}
    decoding = json.dumps(told, sort_keys=True, ensure_ascii=False)
    asked = {f"{name}_prompt_sha256": sha256_json(request.prompt) for name, request in requests.items()}
    values = {name: captioner.provenance[name] for name in _MODEL}
    values |= {**asked, "decoding": decoding, "library": captioner.provenance["library"]}
    return [pl.lit(value, dtype=pl.String).alias(name) for name, value in values.items()]


def _told(request: Request) -> dict[str, Any]:
    """How a caption is decoded."""
    options = ("max_new_tokens", "strip_prefixes", "temperature", "top_p")
    return {option: getattr(request, option) for option in options}


def _counts(made: pl.DataFrame, names: Collection[str]) -> dict[str, int | dict[str, int]]:
    counts: dict[str, int | dict[str, int]] = {"captioned": len(made)}
    for name in names:
        counts[f"{name}_tokens"] = int(made[f"{name}_num_tokens"].sum())
        flags = made[f"{name}_flags"].explode().drop_nulls().to_list()
        counts[f"{name}_flags"] = {flag: flags.count(flag) for flag in FLAGS}
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
