"""Files of lists, read as a stream: Parquet, CSV, TSV and JSONL, the texts also as .gz."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import IO, Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from darkroom.settings.json_texts import read_json
from darkroom.sources.columns import cast, stored_type
from darkroom.sources.paths import File
from darkroom.sources.remote import RemoteFile

_BATCH_ROWS = 65_536
# The rows of a text that tell the types of its columns.
_TYPED_ROWS = 1_000
# A field of the csv module's may by default not be longer than some captions are.
csv.field_size_limit(1 << 24)
Row = Sequence[Any]
# What `read_rows` calls the lists of a needed column that has several texts in a row.
SEVERAL = "captions"


@dataclass(frozen=True)
class Wanted:
    """What of a list is read.

    needed: name in the batches -> column, and what names it. carried: column, which may be missing -> type.
    """

    needed: Mapping[str, tuple[str, str]]
    carried: Mapping[str, pl.DataType]

    def places(self, path: File, present: Sequence[str]) -> list[str | None]:
        """The file's own names of the columns; carried ones are matched whatever their case.

        Raises:
            ValueError: a needed column is missing; names the file, the option and what the file has.
        """
        for name, option in self.needed.values():
            if name not in present:
                raise ValueError(f"{path}: no column {name!r} ({option}); it has {', '.join(present)}")
        lower = {name.lower(): name for name in present}
        return [
            *(name for name, _ in self.needed.values()),
            *(lower.get(name.lower()) for name in self.carried),
        ]


@dataclass(frozen=True)
class Format:
    """How files of one format are read. columns: their names and types."""

    columns: Callable[[File], dict[str, pl.DataType]]
    read: Callable[[File, Wanted], Iterator[pl.DataFrame]]


def format_of(path: File) -> Format | None:
    """The format that a file's name tells, or its first bytes where it tells none; None: no list."""
    found = next((form for end, form in FORMATS.items() if path.name.lower().endswith(end)), None)
    if found is None and (isinstance(path, RemoteFile) or path.is_file()):
        with _named(path), _bytes(path) as file:
            return FORMATS[".parquet"] if file.read(4) == b"PAR1" else None
    return found


def columns_of(path: File, form: Format) -> dict[str, pl.DataType]:
    """The names and types of a file's columns; those of a text are told by its first rows.

    Raises:
        ValueError: it cannot be read as what its name says; names the file.
    """
    with _named(path):
        return form.columns(path)


def read_rows(path: File, form: Format, wanted: Wanted) -> Iterator[pl.DataFrame]:
    """Batches of the columns of `wanted`, in order, under its names and in its types; what is needed is text.

    Where the file has lists of texts, such as several captions of a picture, it is their first; `several` are the
    lists with more than one, of the last needed column that has any.

    Raises:
        ValueError: a column is missing, or the file cannot be read; names the file and, of a text, the line.
    """
    with _named(path):
        for batch in form.read(path, wanted):
            names = [*wanted.needed, *wanted.carried]
            named = batch.rename(dict(zip(batch.columns, names, strict=True)))
            several = pl.lit(None, pl.List(pl.String))
            typed = []
            for key in wanted.needed:
                column = pl.col(key)
                if isinstance(named.schema[key], pl.List | pl.Array):
                    texts = column.cast(pl.List(pl.String))
                    several = pl.when(texts.list.len() > 1).then(texts)
                    column = texts.list.first()
                typed.append(column.cast(pl.String).alias(key))
            typed.append(several.alias(SEVERAL))
            typed += [cast(name, kind).alias(name) for name, kind in wanted.carried.items()]
            yield named.select(typed)


@contextmanager
def _named(path: File) -> Iterator[None]:
    """Errors of libraries become ones that name the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text in UTF-8 ({error.reason})") from None
    except (pa.ArrowException, pl.exceptions.PolarsError, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None


def _bytes(path: File, is_random: bool = False) -> BinaryIO:
    return path.open(is_random) if isinstance(path, RemoteFile) else path.open("rb")


def _parquet_columns(path: File) -> dict[str, pl.DataType]:
    # Not polars' reader of schemas, which reads the whole of what is no path.
    with _bytes(path, is_random=True) as file:
        empty = pl.DataFrame(pq.read_schema(file).empty_table())
    return {name: stored_type(kind) for name, kind in empty.schema.items()}


def _type_of_texts(values: Sequence[str | None]) -> pl.DataType:
    """What the first values of a text's column are: booleans, whole numbers, numbers, or text."""
    found = pl.Series(values, dtype=pl.String).drop_nulls()
    if found.is_empty():
        return pl.String()
    if found.str.to_lowercase().is_in(["true", "false"]).all():
        return pl.Boolean()
    numbers: tuple[pl.DataType, ...] = (pl.Int64(), pl.Float64())
    fits = (kind for kind in numbers if not found.cast(kind, strict=False).has_nulls())
    return next(fits, pl.String())


def _read_parquet(path: File, wanted: Wanted) -> Iterator[pl.DataFrame]:
    with _bytes(path, is_random=True) as content, pq.ParquetFile(content) as file:
        places = wanted.places(path, file.schema_arrow.names)
        columns = list(dict.fromkeys(place for place in places if place is not None))
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            frame = pl.from_arrow(pa.Table.from_batches([batch]))
            assert isinstance(frame, pl.DataFrame)
            yield frame.select(
                (pl.lit(None) if place is None else pl.col(place)).alias(str(number))
                for number, place in enumerate(places)
            )


def _open(path: File) -> IO[str]:
    is_packed = path.name.lower().endswith(".gz")
    options: dict[str, Any] = {"encoding": "utf-8-sig", "newline": ""}
    if isinstance(path, RemoteFile):
        content: Any = path.open()
        return io.TextIOWrapper(gzip.GzipFile(fileobj=content) if is_packed else content, **options)
    opened: Any = gzip.open if is_packed else open
    file: IO[str] = opened(path, "rt", **options)
    return file


def _csv_rows(path: File, delimiter: str) -> Iterator[Row]:
    """The header, then the rows; empty lines are passed over."""
    with _open(path) as file:
        lines = csv.reader(file, delimiter=delimiter, strict=True)
        header: Row | None = None
        try:
            for row in lines:
                if not row:
                    continue
                header = header or row
                if len(row) != len(header):
                    raise ValueError(
                        f"{path}: line {lines.line_num} has {len(row)} fields where the header has"
                        f" {len(header)}"
                    )
                yield row
        except csv.Error as error:
            raise ValueError(f"{path}: line {lines.line_num}: {error}") from None
    if header is None:
        raise ValueError(f"{path}: is empty; its first line should name the columns")


def _csv_columns(path: File, delimiter: str) -> dict[str, pl.DataType]:
    header, *rows = islice(_csv_rows(path, delimiter), 1 + _TYPED_ROWS)
    return {name: _type_of_texts([row[place] or None for row in rows]) for place, name in enumerate(header)}


def _read_csv(path: File, wanted: Wanted, delimiter: str) -> Iterator[pl.DataFrame]:
    rows = _csv_rows(path, delimiter)
    header = list(next(rows))
    places = [None if p is None else header.index(p) for p in wanted.places(path, header)]
    # A table of text cannot tell an empty field from a missing one.
    picked = ([None if p is None else row[p] or None for p in places] for row in rows)
    yield from _frames(picked, len(places))


def _objects(path: File) -> Iterator[dict[str, Any]]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found = read_json(line)
            except ValueError as error:
                raise ValueError(f"{path}: line {number} is no JSON ({error})") from None
            if not isinstance(found, dict):
                raise ValueError(f"{path}: line {number} should be an object with a row's columns")
            yield found


def _jsonl_columns(path: File) -> dict[str, pl.DataType]:
    """The keys of the first object."""
    rows = list(islice(_objects(path), _TYPED_ROWS))
    if not rows:
        raise ValueError(f"{path}: is empty; each line should be an object with a row's columns")
    return {name: _type_of_texts([_text(row.get(name)) for row in rows]) for name in rows[0]}


def _read_jsonl(path: File, wanted: Wanted) -> Iterator[pl.DataFrame]:
    """Keys that an object lacks are null; the first object has the needed ones, or the options are wrong."""
    wanted.places(path, list(_jsonl_columns(path)))

    def pick(found: dict[str, Any]) -> Row:
        lower = {key.lower(): value for key, value in found.items()}
        needed = [_texts(found.get(name)) for name, _ in wanted.needed.values()]
        return [*needed, *(_text(lower.get(name.lower())) for name in wanted.carried)]

    width = len(wanted.needed) + len(wanted.carried)
    yield from _frames((pick(found) for found in _objects(path)), width)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _texts(value: Any) -> str | list[str | None] | None:
    return list(map(_text, value)) if isinstance(value, list) else _text(value)


def _frames(rows: Iterator[Row], width: int) -> Iterator[pl.DataFrame]:
    """Batches of rows of text; a column in which any is a list of texts is one of lists."""
    while batch := list(islice(rows, _BATCH_ROWS)):
        columns = []
        for number, values in enumerate(zip(*batch, strict=True)):
            kind: pl.DataType = pl.String()
            if any(isinstance(value, list) for value in values):
                kind = pl.List(pl.String())
                values = tuple(
                    value if value is None or isinstance(value, list) else [value] for value in values
                )
            columns.append(pl.Series(str(number), values, dtype=kind))
        assert len(columns) == width
        yield pl.DataFrame(columns)


def _formats() -> dict[str, Format]:
    parquet = Format(_parquet_columns, _read_parquet)
    comma, tab = (
        Format(partial(_csv_columns, delimiter=sign), partial(_read_csv, delimiter=sign)) for sign in ",\t"
    )
    lines = Format(_jsonl_columns, _read_jsonl)
    texts = {".csv": comma, ".tsv": tab, ".jsonl": lines, ".ndjson": lines}
    return {".parquet": parquet, **texts, **{f"{end}.gz": form for end, form in texts.items()}}


FORMATS = _formats()
