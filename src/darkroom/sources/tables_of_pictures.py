"""`kind: tables_of_pictures`: Parquet with the pictures' bytes in it, as Hugging Face publishes data sets."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from pydantic import Field

from darkroom.sources.base import SCHEME, Counts, Part, Piece, Source
from darkroom.sources.captions import CAPTION_KEYS, CaptionedSection, caption_key
from darkroom.sources.packed import kinds_of, packed_pieces
from darkroom.sources.paths import PATH, Wanted, named_files, tell_what_is_left_out

if TYPE_CHECKING:
    import polars as pl

    from darkroom.settings.columns import Kind

_TABLES = Wanted("table", (".parquet",), lambda file: file.name.lower().endswith(".parquet"))
# Pictures that are read at a time.
_READ_ROWS = 16


class PictureTableSource(CaptionedSection):
    """Parquet with a picture's bytes in each row."""

    kind: Literal["tables_of_pictures"]
    path: str = Field(description=f"a Parquet file, {PATH}")
    picture_column: str = Field(
        "image", description="column with the pictures: bytes, or Hugging Face's struct of bytes and path"
    )
    url_column: str | None = Field(
        None, description="column with the URL that a picture is from; null: it is told by its file and row"
    )


def pieces(source: PictureTableSource) -> list[Piece]:
    """See `Source.pieces`: a piece a file."""
    files, _ = named_files(source.path, _TABLES)
    return packed_pieces(files, lambda: _types(source), partial(_read, source))


def columns(source: PictureTableSource) -> "dict[str, Kind]":
    """See `Source.columns`: those of the first file."""
    return kinds_of(_types(source))


def _types(source: PictureTableSource) -> "dict[str, pl.DataType]":
    from darkroom.download.writer import OF_LISTS, OWN_COLUMNS
    from darkroom.sources import readers

    path = next(iter(named_files(source.path, _TABLES)[0].values()))
    taken = {
        *OWN_COLUMNS,
        *OF_LISTS,
        *CAPTION_KEYS,
        source.caption_key,
        source.url_column,
        source.picture_column,
    }
    found = readers.columns_of(path, readers.FORMATS[".parquet"])
    return {name: kind for name, kind in found.items() if name not in taken}


def _read(
    source: PictureTableSource, name: str, path: Path, types: "Mapping[str, pl.DataType]"
) -> "Iterator[pl.DataFrame]":
    """Batches of the rows of one file, without their pictures; the first one is empty, and has their types."""
    import polars as pl

    from darkroom.download.writer import PLACE
    from darkroom.sources import readers

    texts = {"url": pl.String(), "caption": pl.String(), readers.SEVERAL: pl.List(pl.String())}
    yield pl.DataFrame(schema={**texts, **types, PLACE: pl.String()})
    form = readers.FORMATS[".parquet"]
    try:
        present = list(readers.columns_of(path, form))
        _check_pictures(path, source.picture_column)
        needed = {}
        if not _has_no_captions(source, present):
            needed["caption"] = (caption_key(present, source.caption_key, path), "source.caption_key")
        if source.url_column is not None:
            needed["url"] = (source.url_column, "source.url_column")
        # Of a file without any of these, its rows are still to be counted.
        wanted = readers.Wanted(needed or {"caption": (present[0], "its first column")}, types)
        row = 0
        for batch in readers.read_rows(path, form, wanted):
            row += len(batch)
            yield _numbered(batch, name, row - len(batch), list(needed)).select(*texts, *types, PLACE)
    except ValueError as error:
        raise ValueError(f"source.path: {error}") from None


def _has_no_captions(source: PictureTableSource, present: Sequence[str]) -> bool:
    """Whether a file without captions is one that will do."""
    return not source.drops_uncaptioned and source.caption_key is None and not {*CAPTION_KEYS} & {*present}


def _numbered(batch: "pl.DataFrame", name: str, first: int, told: Sequence[str]) -> "pl.DataFrame":
    """Rows of a file with their URLs and places; `told` are the columns that say something."""
    import polars as pl

    from darkroom.download.writer import PLACE

    numbers = range(first, first + len(batch))
    null = pl.lit(None, pl.String)
    own = pl.Series([SCHEME + quote(f"{name}/{number}") for number in numbers], dtype=pl.String)
    url = pl.col("url") if "url" in told else null
    return batch.with_columns(
        pl.when(url.fill_null("") != "").then(url).otherwise(own).alias("url"),
        (pl.col("caption") if "caption" in told else null).alias("caption"),
        pl.Series(PLACE, [json.dumps([name, number]) for number in numbers], pl.String),
    )


def _check_pictures(path: Path, column: str) -> None:
    """Refuse a column that holds no pictures.

    Raises:
        ValueError: it is not there, or has another type; names it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    if column not in schema.names:
        raise ValueError(
            f"{path}: no column {column!r} (source.picture_column); it has {', '.join(schema.names)}"
        )
    kind = schema.field(column).type
    held = (
        kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    )
    if not pa.types.is_binary(held) and not pa.types.is_large_binary(held):
        raise ValueError(
            f"{path}: column {column!r} (source.picture_column) holds {kind}; it should hold bytes, or a struct"
            " with `bytes`"
        )


class _Pictures:
    """The pictures of some rows of a file, which are asked for about in their order, by several threads.

    Args:
        path: the file.
        column: the one with the pictures.
        rows: those that will be asked for, each once.
    """

    def __init__(self, path: Path, column: str, rows: Sequence[int]) -> None:
        self._path, self._column, self._wanted = path, column, set(rows)
        self._found: dict[int, bytes | None] = {}
        self._batches = self._read(min(rows))
        self._lock = threading.Lock()

    def of(self, row: int) -> bytes | None:
        """The bytes of a row; None, if it has none.

        Raises:
            ValueError: the file has no such row any more.
        """
        with self._lock:
            while row not in self._found:
                batch = next(self._batches, None)
                if batch is None:
                    raise ValueError(f"{self._path}: was changed since it was listed. Start snakemake again")
                self._found |= {number: content for number, content in batch if number in self._wanted}
            return self._found.pop(row)

    def _read(self, first: int) -> Iterator[list[tuple[int, bytes | None]]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        # Neither a whole row group nor a whole column of it at once.
        with pq.ParquetFile(self._path, pre_buffer=False, buffer_size=1 << 20) as file:
            held = file.schema_arrow.field(self._column).type
            column = f"{self._column}.bytes" if pa.types.is_struct(held) else self._column
            end = 0
            for group in range(file.num_row_groups):
                begin, end = end, end + file.metadata.row_group(group).num_rows
                if end <= first:
                    continue
                for batch in file.iter_batches(
                    _READ_ROWS, row_groups=[group], columns=[column], use_threads=False
                ):
                    values = batch.column(0).to_pylist()
                    yield list(enumerate((v["bytes"] if isinstance(v, dict) else v for v in values), begin))
                    begin += len(values)


def download(source: PictureTableSource, part: Part) -> Counts:
    """Read the part's pictures from the tables."""
    import polars as pl

    from darkroom.download import status as words
    from darkroom.download.local_files import download_local_part
    from darkroom.download.status import Refused
    from darkroom.download.writer import PLACE

    files, _ = named_files(source.path, _TABLES)
    rows = pl.scan_parquet(part.urls).slice(part.first_row, part.num_rows).select("caption", PLACE).collect()
    if source.drops_uncaptioned:
        rows = rows.filter(pl.col("caption").is_not_null())
    wanted: dict[str, list[int]] = {}
    for name, row in map(json.loads, rows[PLACE]):
        wanted.setdefault(name, []).append(row)
    for name in wanted.keys() - files.keys():
        raise ValueError(f"source.path: {name} is gone since it was listed. Start snakemake again")
    opened = {name: _Pictures(files[name], source.picture_column, of) for name, of in wanted.items()}

    def read(row: Mapping[str, Any], max_bytes: int) -> bytes:
        if row["caption"] is None and source.drops_uncaptioned:
            raise Refused(words.NO_CAPTION, "the row has no caption")
        name, number = json.loads(row[PLACE])
        content = opened[name].of(number)
        if content is None:
            raise Refused(words.NO_PICTURE, "the row has no bytes of a picture")
        if len(content) > max_bytes:
            raise Refused(words.TOO_MANY_BYTES, f"the picture is larger than max_bytes = {max_bytes}")
        return content

    of_part = part.urls, part.first_row, part.num_rows, part.settings, part.tar, part.table
    return download_local_part(*of_part, read, rows_sha256=part.rows, num_decoders=part.num_decoders)


def tell_the_log(source: PictureTableSource, folder: Path) -> None:
    """What is no table, and what links are not followed."""
    del folder
    tell_what_is_left_out([source.path], "tables", named_files(source.path, _TABLES)[1])


SPEC = Source(
    "tables_of_pictures",
    PictureTableSource,
    pieces,
    download,
    columns,
    one_picture_a_url=False,
    write_beside=tell_the_log,
)
