"""`kind: webdataset`: tars of pictures and captions, as img2dataset and others write them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from pydantic import Field

from darkroom.settings.json_texts import read_json
from darkroom.sources.base import SCHEME, Counts, Part, Piece, Source
from darkroom.sources.captions import MAX_BYTES, CaptionedSection, captions_in, captions_of
from darkroom.sources.files import PICTURE_ENDINGS
from darkroom.sources.packed import kinds_of, packed_pieces
from darkroom.sources.paths import PATH, Wanted, named_files, tell_what_is_left_out

if TYPE_CHECKING:
    import polars as pl

    from darkroom.settings.columns import Kind
    from darkroom.sources.tar_index import Member, Sample, TarIndex

# Columns that img2dataset writes of its own work, or that tell of more than the picture.
_NOT_CARRIED = ("exif", "error_message")
_TYPED_SAMPLES = 100
_BATCH_ROWS = 4_096
_MAX_JSON_BYTES = 1_000_000
_TARS = Wanted("tar", (".tar",), lambda file: file.name.lower().endswith(".tar"))


class WebDatasetSource(CaptionedSection):
    """Tars of samples: a picture, and its caption in a .txt, .caption or .json of the same name."""

    kind: Literal["webdataset"]
    path: str = Field(description=f"a tar, {PATH}")
    picture: str | None = Field(
        None,
        description="ending of the pictures, such as jpg; null: the only one of a sample that is a picture's",
    )
    url_key: str = Field("url", description="what a sample's JSON calls the URL that the picture is from")
    one_caption_a_line: bool = Field(
        False, description="each line of a .txt or .caption is a caption of its own; else it is one caption"
    )


def pieces(source: WebDatasetSource) -> list[Piece]:
    """See `Source.pieces`: a piece a tar."""
    files, _ = named_files(source.path, _TARS)
    return packed_pieces(files, lambda: _types(source), partial(_read, source))


def columns(source: WebDatasetSource) -> "dict[str, Kind]":
    """See `Source.columns`: the plain values in the JSON of the first samples."""
    return kinds_of(_types(source))


def _types(source: WebDatasetSource) -> "dict[str, pl.DataType]":
    from darkroom.download.writer import OF_LISTS, OWN_COLUMNS
    from darkroom.sources.captions import CAPTION_KEYS
    from darkroom.sources.tar_index import TarIndex

    name, path = next(iter(named_files(source.path, _TARS)[0].items()))
    taken = {*OWN_COLUMNS, *OF_LISTS, *_NOT_CARRIED, *CAPTION_KEYS, source.caption_key, source.url_key}
    found: dict[str, list[Any]] = {}
    with TarIndex(path, name) as index:
        for sample in islice(index.samples(), _TYPED_SAMPLES):
            for key, value in _json_of(index, sample).items():
                if key not in taken:
                    found.setdefault(key, []).append(value)
    return {key: kind for key, values in found.items() if (kind := _type_of(values)) is not None}


def _type_of(values: Sequence[Any]) -> "pl.DataType | None":
    """The type of plain values; None of others, and of values that are all null."""
    import polars as pl

    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pl.Boolean()
    if kinds == {str}:
        return pl.String()
    if kinds and kinds <= {int, float}:
        return pl.Float64() if float in kinds else pl.Int64()
    return None


def _json_of(index: "TarIndex", sample: "Sample") -> dict[str, Any]:
    """What a sample's JSON says; nothing, where it is none or too long."""
    member = sample.members.get("json")
    if member is None or member.size > _MAX_JSON_BYTES:
        return {}
    try:
        found = read_json(index.read(member))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read(
    source: WebDatasetSource, name: str, path: Path, types: "Mapping[str, pl.DataType]"
) -> "Iterator[pl.DataFrame]":
    """Batches of the samples of one tar; the first one is empty, and has their types."""
    from darkroom.sources.tar_index import TarIndex

    rows: list[dict[str, Any]] = []
    yield _frame(rows, types)
    with TarIndex(path, name) as index:
        for sample in index.samples():
            rows.append(_row(source, name, index, sample))
            if len(rows) == _BATCH_ROWS:
                yield _frame(rows, types)
                rows.clear()
        yield _frame(rows, types)


def _row(source: WebDatasetSource, name: str, index: "TarIndex", sample: "Sample") -> dict[str, Any]:
    """A sample's URL, captions, values, and where its picture lies."""
    told = _json_of(index, sample)
    captions: list[str] = []
    for ending in ("txt", "caption"):
        member = sample.members.get(ending)
        if member is not None and member.size <= MAX_BYTES and not captions:
            captions = captions_in(index.read(member), ending, source.one_caption_a_line, source.caption_key)
    picture = _picture_of(source, name, sample)
    url = told.get(source.url_key)
    if not isinstance(url, str) or not url:
        path = f"{name}/{sample.key}" if picture is None else f"{name}/{picture.name}"
        url = SCHEME + quote(path.encode("utf-8", "surrogateescape"))
    place = None if picture is None else json.dumps([name, *picture])
    captions = captions or captions_of(told, source.caption_key)
    return {"url": url, "captions": captions, "place": place, "told": told}


def _picture_of(source: WebDatasetSource, name: str, sample: "Sample") -> "Member | None":
    """The member with a sample's picture; None, if it has none.

    Raises:
        ValueError: it has several, and the configuration does not say which.
    """
    if source.picture is not None:
        return sample.members.get(source.picture.lower().removeprefix("."))
    found = [ending for ending in sample.members if f".{ending.rpartition('.')[2]}" in PICTURE_ENDINGS]
    if len(found) > 1:
        raise ValueError(
            f"source.path: {name}: {sample.key} has the pictures {' and '.join(found)}; say which is meant as"
            " source.picture"
        )
    return sample.members[found[0]] if found else None


def _frame(rows: Sequence[Mapping[str, Any]], types: "Mapping[str, pl.DataType]") -> "pl.DataFrame":
    import polars as pl

    from darkroom.download.writer import PLACE

    texts = pl.List(pl.String())
    told = [row["told"] for row in rows]
    series = [
        pl.Series("url", [row["url"] for row in rows], pl.String),
        pl.Series("caption", [next(iter(row["captions"]), None) for row in rows], pl.String),
        pl.Series("captions", [row["captions"] if len(row["captions"]) > 1 else None for row in rows], texts),
        *(pl.Series(name, [_as(kind, one.get(name)) for one in told], kind) for name, kind in types.items()),
        pl.Series(PLACE, [row["place"] for row in rows], pl.String),
    ]
    return pl.DataFrame(series)


def _as(kind: "pl.DataType", value: Any) -> Any:
    """A value of JSON in the type of its column; null, if it is of another."""
    import polars as pl

    if isinstance(value, bool):
        return value if kind == pl.Boolean else None
    if isinstance(value, int | float) and kind.is_numeric():
        return value if kind.is_float() or (isinstance(value, int) and abs(value) < 1 << 63) else None
    return value if isinstance(value, str) and kind == pl.String else None


def download(source: WebDatasetSource, part: Part) -> Counts:
    """Read the part's pictures from the tars."""
    from darkroom.download import status as words
    from darkroom.download.local_files import download_local_part
    from darkroom.download.status import Refused
    from darkroom.download.writer import PLACE
    from darkroom.sources.tar_index import Member, TarIndex

    files, _ = named_files(source.path, _TARS)
    with ExitStack() as stack:

        @cache
        def opened(name: str) -> TarIndex:
            if name not in files:
                raise ValueError(f"{name} is gone since it was listed. Start snakemake again")
            return stack.enter_context(TarIndex(files[name], name))

        def read(row: Mapping[str, Any], max_bytes: int) -> bytes:
            if row[PLACE] is None:
                raise Refused(words.NO_PICTURE, "the sample has no picture")
            if row["caption"] is None and source.drops_uncaptioned:
                raise Refused(words.NO_CAPTION, "the sample has no caption in UTF-8")
            name, *where = json.loads(row[PLACE])
            index, member = opened(name), Member(*where)
            if not index.is_at(member):
                raise ValueError(f"{files[name]}: was changed since it was listed. Start snakemake again")
            if member.size > max_bytes:
                raise Refused(words.TOO_MANY_BYTES, f"the file is larger than max_bytes = {max_bytes}")
            return index.read(member)

        parts = part.urls, part.first_row, part.num_rows, part.settings, part.tar, part.table
        return download_local_part(*parts, read, rows_sha256=part.rows, num_decoders=part.num_decoders)


def tell_the_log(source: WebDatasetSource, folder: Path) -> None:
    """What is no tar, and what links are not followed."""
    del folder
    tell_what_is_left_out([source.path], "tars", named_files(source.path, _TARS)[1])


SPEC = Source(
    "webdataset",
    WebDatasetSource,
    pieces,
    download,
    columns,
    one_picture_a_url=False,
    write_beside=tell_the_log,
)
