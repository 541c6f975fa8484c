"""`kind: list`: lists of URLs with metadata, as LAION and others publish them, in one file or many."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from darkroom.settings.base import ADDED
from darkroom.sources.base import Piece, Source, SourceSection
from darkroom.sources.listing import stamp_of
from darkroom.sources.paths import PATH, File, Wanted, named_lists, tell_what_is_left_out

if TYPE_CHECKING:
    import polars as pl

    from darkroom.settings.columns import Kind
    from darkroom.sources.readers import Wanted as Columns


class ListSource(SourceSection):
    """Lists of URLs with metadata: Parquet, CSV, TSV or JSONL, in one file or many."""

    kind: Literal["list"]
    path: str | tuple[str, ...] = Field(
        description=f"list with one row a URL, {PATH} Or an address that fsspec reads: https://..., s3://... Or"
        " several of these, one after another"
    )
    url_column: str = Field("URL", description="column that holds the URL")
    caption_column: str = Field("TEXT", description="column that holds the alt-text")
    hash_column: Annotated[str | None, ADDED] = Field(
        None, description="column with the SHA-256 or MD5, in hex, that the file at the URL had; null: none"
    )

    @field_validator("path")
    @classmethod
    def _some(cls, path: Any) -> Any:
        if not path:
            raise ValueError("names no list; write a path, or a list of several")
        return path

    @property
    def paths(self) -> tuple[str, ...]:
        """One path, or several."""
        return (self.path,) if isinstance(self.path, str) else self.path

    def __str__(self) -> str:
        return ", ".join(self.paths)


def files_of(source: ListSource) -> tuple[list[File], int]:
    """The files of a source, those of each path sorted by name, and how many others of its folders are no lists.

    Raises:
        ValueError: there is none, one that is named is no list, or two paths lead to one.
    """
    from darkroom.sources.readers import FORMATS, format_of

    wanted = Wanted("list", tuple(FORMATS), lambda file: format_of(file) is not None)
    found = [named_lists(path, wanted) for path in source.paths]
    files = [file for named, _ in found for file in named.values()]
    names = [str(file) for file in files]
    if twice := sorted({name for name in names if names.count(name) > 1}) if len(found) > 1 else []:
        raise ValueError(f"source.path: leads to {twice[0]} twice; name every list once")
    return files, sum(num_others for _, num_others in found)


def pieces(source: ListSource) -> list[Piece]:
    """See `Source.pieces`: a piece a file."""
    files = files_of(source)[0]

    @cache
    def wanted(columns: tuple[str, ...]) -> "Columns":
        return _wanted(source, columns)

    def read(file: File, columns: Sequence[str]) -> "Iterator[pl.DataFrame]":
        yield from _read(file, wanted(tuple(columns)))

    return [Piece(str(file), {str(file): stamp_of(file)}, partial(read, file)) for file in files]


def tell_the_log(source: ListSource, folder: Path) -> None:
    """What is no list, and what links are not followed."""
    del folder
    tell_what_is_left_out(source.paths, "lists", files_of(source)[1])


def columns_of(source: ListSource) -> "dict[str, Kind]":
    """See `Source.columns`: those of the first file, under its names; others than numbers, text and booleans, and
    names that the download's table has itself (its `width` is the stored picture's), are left out."""
    from darkroom.download.writer import LISTED_HASH
    from darkroom.sources.columns import kind_of

    kinds = {name: kind_of(dtype) for name, dtype in _types(source).items()}
    hashes: dict[str, Kind] = {LISTED_HASH: "text"} if source.hash_column else {}
    return {**hashes, **{name: kind for name, kind in kinds.items() if kind is not None}}


def _types(source: ListSource) -> "dict[str, pl.DataType]":
    from darkroom.download.writer import LISTED_HASH, OF_LISTS, OWN_COLUMNS, SAME_BYTES
    from darkroom.sources import readers

    first = files_of(source)[0][0]
    form = readers.format_of(first)
    assert form is not None, "files_of gives lists only"
    taken = {*OWN_COLUMNS, *OF_LISTS, LISTED_HASH, SAME_BYTES}
    taken |= {source.url_column, source.caption_column, source.hash_column or ""}
    with _naming():
        return {name: kind for name, kind in readers.columns_of(first, form).items() if name not in taken}


def _wanted(source: ListSource, columns: Sequence[str]) -> "Columns":
    from darkroom.download.writer import LISTED_HASH
    from darkroom.sources.readers import Wanted as Columns

    types = _types(source) if columns else {}
    carried = [name for name in columns if name != LISTED_HASH]
    for name in carried:
        if name not in types:
            raise ValueError(f"source.path: {source}: no column {name!r}; it has {', '.join(types)}")
    needed = {
        "url": (source.url_column, "source.url_column"),
        "caption": (source.caption_column, "source.caption_column"),
    }
    if source.hash_column and LISTED_HASH in columns:
        needed[LISTED_HASH] = (source.hash_column, "source.hash_column")
    return Columns(needed, {name: types[name] for name in carried})


def _read(file: File, wanted: "Columns") -> "Iterator[pl.DataFrame]":
    """Batches of one file; the first one is empty, and has their types."""
    import polars as pl

    from darkroom.download.writer import LISTED_HASH
    from darkroom.sources import readers

    form = readers.format_of(file)
    assert form is not None, "files_of gives lists only"
    texts = dict.fromkeys(wanted.needed, pl.String())
    yield pl.DataFrame(schema={**texts, readers.SEVERAL: pl.List(pl.String()), **wanted.carried})
    with _naming():
        for batch in readers.read_rows(file, form, wanted):
            yield batch.with_columns(_hash(name) for name in batch.columns if name == LISTED_HASH)


def _hash(name: str) -> "pl.Expr":
    """A hash in lower-case hex; null, if it is neither a SHA-256 nor an MD5."""
    import polars as pl

    from darkroom.download.decoders import MD5_DIGITS, SHA256_DIGITS

    text = pl.col(name).str.strip_chars().str.to_lowercase()
    return pl.when(text.str.contains(f"^([0-9a-f]{{{MD5_DIGITS}}}|[0-9a-f]{{{SHA256_DIGITS}}})$")).then(text)


@contextmanager
def _naming() -> Iterator[None]:
    """Errors about a file name the option that leads to it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"source.path: {error}") from None


SPEC = Source("list", ListSource, pieces, columns=columns_of, write_beside=tell_the_log)
