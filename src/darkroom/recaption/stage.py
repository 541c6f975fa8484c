"""The recaption stage: the kept pictures of one part, captioned in the order of their uids."""

import copy
import io
import json
import logging
import shutil
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import polars as pl
from PIL import Image, UnidentifiedImageError

from darkroom.captioners.base import CaptionerSection, Request
from darkroom.captioners.quality import FLAGS
from darkroom.components.base import Component
from darkroom.config.gates import CaptionGates
from darkroom.recaption.asking import Asked, Made, caption_all
from darkroom.recaption.gated import gate_counts
from darkroom.settings.captions import ORIGINAL
from darkroom.store import TarReader, read_table, sha256_json, write_table
from darkroom.store.captions import DROPPED, caption_column

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
    gates: CaptionGates | None = None,
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
        components: those that the settings and the gates name.
        out: Parquet file with the columns of `captions_schema`, and where the captions come from: model,
            model_path, model_sha256, model_revision, NAME_prompt_sha256, decoding (JSON) and library; of fallbacks
            model.1 and so on, null where they were not asked.
        gates: what the captions must be; None: anything.
        keep_scratch: leave what the captioner kept beside `out` to the caller, who calls `forget`.

    Returns:
        captioned, for each caption tokens and how many texts have each flag, what the gates did (`gate_counts`),
        and the captioners' own counts.

    Raises:
        ValueError: a picture cannot be read or captioned; names its uid. Nothing is written then.
    """
    rows, requests = _kept_rows(table, selection), settings.asked()
    with TarReader(tar) as reader:
        pictures = _Pictures(rows, reader, str(tar), scratch_folder(out))
        asked = caption_all(pictures, settings, components, gates)
    captions = [
        _caption_row(row, {name: asked.made[place, name] for name in requests}, gates)
        for place, row in enumerate(rows)
    ]
    made = pl.DataFrame(captions, schema=captions_schema(requests, has_gates=gates is not None))
    write_table(out, made.with_columns(_provenance(requests, asked.captioners)), sort_by=None)
    counts = {**_counts(made, requests), **(gate_counts(made, requests) if gates else {})}
    counts |= asked.counts
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
    of_fallbacks = [told for told in counts.values() if isinstance(told, Mapping)]
    if not counts.get("failed") and not any(told.get("failed") for told in of_fallbacks):
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

    def __init__(self, rows: Sequence[_Row], reader: TarReader, where: str, scratch: Path) -> None:
        self.where, self.scratch = where, scratch
        self.uids: Sequence[str] = [str(row["uid"]) for row in rows]
        self.originals: Sequence[str] = [str(row["caption"] or "") for row in rows]
        self._rows, self._reader, self._reading = rows, reader, threading.Lock()
        self._progress = _Progress()

    def for_fallback(self, number: int) -> Self:
        """The same pictures, with what a fallback keeps of them in a folder of its own."""
        pictures = copy.copy(self)
        pictures.scratch = self.scratch / f"fallback-{number}"
        return pictures

    def expect(self, num_captions: int) -> None:
        """Say that so many captions more are asked for."""
        self._progress.expect(num_captions)

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


def _caption_row(row: _Row, captions: Mapping[str, Made], gates: CaptionGates | None) -> _Row:
    made: _Row = {"uid": row["uid"], "row": row["row"], caption_column(ORIGINAL): row["caption"]}
    for name, caption in captions.items():
        made[caption_column(name)] = caption.text
        made[f"{name}_finish_reason"] = caption.finish_reason
        made[f"{name}_num_tokens"] = caption.num_tokens
        made[f"{name}_flags"] = caption.flags
        if gates is not None:
            made |= {f"{name}_{what}": getattr(caption, what) for what in ("captioner", "tries", "gate")}
    failed = [caption.gate for caption in captions.values() if caption.gate is not None]
    if gates is not None:
        made[DROPPED] = failed[0] if failed and gates.otherwise != "keep" else None
    return made


def captions_schema(names: Collection[str], has_gates: bool = False) -> dict[str, Any]:
    """Column -> type of a part, less its provenance: the captions, and of each generated one how it came out."""
    of_each = {"finish_reason": pl.String, "num_tokens": pl.Int32, "flags": pl.List(pl.String)}
    if has_gates:
        of_each |= {"captioner": pl.Int32, "tries": pl.Int32, "gate": pl.String}
    captions = {caption_column(name): pl.String for name in (ORIGINAL, *names)}
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


def _counts(made: pl.DataFrame, names: Collection[str]) -> dict[str, int | dict[str, int]]:
    counts: dict[str, int | dict[str, int]] = {"captioned": len(made)}
    for name in names:
        counts[f"{name}_tokens"] = int(made[f"{name}_num_tokens"].sum())
        flags = made[f"{name}_flags"].explode().drop_nulls().to_list()
        counts[f"{name}_flags"] = {flag: flags.count(flag) for flag in FLAGS}
    return counts


class _Progress:
    """A line in the log now and then: how far, how fast, how much longer."""

    def __init__(self) -> None:
        self._total = self._done = 0
        self._begin = self._last = time.monotonic()

    def expect(self, captions: int) -> None:
        self._total += captions

    def add(self, captions: int) -> None:
        self._done += captions
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        self._last, rate = now, self._done / max(now - self._begin, 1e-9)
        left = (self._total - self._done) / rate
        _log.info("%d/%d captions, %.0f captions/s, %.0f s left", self._done, self._total, rate, left)
