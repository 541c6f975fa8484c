"""`kind: several`: sources of any kinds as one dataset, one after another; each row says which it is of."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, create_model

from darkroom.settings.base import TOLD_ELSEWHERE, Section
from darkroom.settings.unions import one_of
from darkroom.sources.base import SCHEME, Counts, Part, Piece, Source, SourceSection, fetch

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from darkroom.settings.columns import Kind

    Kinds = Mapping[str, Source[Any]]

NAME_COLUMN = "source_name"


class NamedSource(Section):
    """One of several sources."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]+$",
        description=f"what the column {NAME_COLUMN} calls it, letters, digits, - and _",
    )
    if TYPE_CHECKING:
        source: SourceSection


class SeveralSources(SourceSection):
    """Sources of any kinds. Their rows follow each other, and a column `source_name` tells which they are of."""

    kind: Literal["several"]
    if TYPE_CHECKING:
        of: tuple[NamedSource, ...]

    def with_captioner(self, has_captioner: bool) -> Self:
        """See `SourceSection.with_captioner`."""
        of = tuple(
            one.model_copy(update={"source": one.source.with_captioner(has_captioner)}) for one in self.of
        )
        return self.model_copy(update={"of": of})


def spec_of_several(kinds: "Kinds") -> Source[SeveralSources]:
    """The spec, whose sources may be of these kinds."""
    either: Any = Annotated[
        one_of({name: spec.section for name, spec in kinds.items()}),
        Field(description="a source of another kind, as above"),
        TOLD_ELSEWHERE,
    ]
    one: Any = create_model(
        "NamedSource", __base__=NamedSource, __doc__=NamedSource.__doc__, source=(either, ...)
    )
    of: Any = Annotated[
        tuple[one, ...],
        AfterValidator(partial(_checked, kinds)),
        Field(min_length=1, description="the sources, in the order of their rows"),
    ]
    section = create_model(
        "SeveralSources", __base__=SeveralSources, __doc__=SeveralSources.__doc__, of=(of, ...)
    )
    return Source(
        "several",
        section,
        partial(_pieces, kinds),
        partial(_download, kinds),
        partial(_columns, kinds),
        write_beside=partial(_write_beside, kinds),
    )


def _checked(kinds: "Kinds", of: tuple[NamedSource, ...]) -> tuple[NamedSource, ...]:
    names = [one.name for one in of]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two sources are called {twice[0]}; give each a name of its own")
    for one in of:
        if kinds[one.source.kind].has_class_pictures(one.source):
            raise ValueError(
                f"{one.name} has class pictures, which a training weighs apart: make it a dataset of its own, and"
                " a run on several datasets"
            )
    return of


def _columns(kinds: "Kinds", source: SeveralSources) -> "dict[str, Kind]":
    """See `Source.columns`: those of all sources; null in rows of one that lacks it."""
    found: dict[str, Kind] = {NAME_COLUMN: "text"}
    first: dict[str, str] = {NAME_COLUMN: "this dataset"}
    for one in source.of:
        for column, kind in _own_columns(kinds, one).items():
            if column == NAME_COLUMN or found.setdefault(column, kind) != kind:
                raise ValueError(
                    f"source.of: column {column!r} is {kind} in {one.name}, and {found[column]} in {first[column]}"
                    "; rename one of them"
                )
            first.setdefault(column, one.name)
    return found


def _own_columns(kinds: "Kinds", one: NamedSource) -> "dict[str, Kind]":
    with _naming(one):
        return kinds[one.source.kind].columns(one.source)


def _pieces(kinds: "Kinds", source: SeveralSources) -> list[Piece]:
    """See `Source.pieces`: those of each source in turn."""
    columns = _columns(kinds, source)
    found = []
    for one in source.of:
        with _naming(one):
            pieces = kinds[one.source.kind].pieces(one.source)
        for piece in pieces:
            stamps = {_marked(one.name, name): stamp for name, stamp in piece.stamps.items()}
            read = partial(_read, one, piece, columns, _own_columns(kinds, one))
            found.append(Piece(f"{one.name}/{piece.name}", stamps, read, piece.pictures))
    return found


def _read(
    one: NamedSource,
    piece: Piece,
    columns: "Mapping[str, Kind]",
    own: "Mapping[str, Kind]",
    wanted: Sequence[str],
) -> "Iterator[pl.DataFrame]":
    """Rows of a piece with the columns of all sources, in types that hold each of them."""
    import polars as pl

    from darkroom.download.writer import PLACE, SEVERAL
    from darkroom.sources.columns import cast

    types = {"number": pl.Float64(), "text": pl.String(), "boolean": pl.Boolean()}
    carried = [name for name in dict.fromkeys([NAME_COLUMN, *wanted]) if name != NAME_COLUMN]
    with _naming(one):
        for batch in piece.read([name for name in carried if name in own]):
            there = {**SEVERAL, PLACE: pl.String()}
            missing = [
                pl.lit(None, kind).alias(name) for name, kind in there.items() if name not in batch.columns
            ]
            yield batch.with_columns(missing).select(
                _marked_urls(one.name),
                "caption",
                *SEVERAL,
                pl.lit(one.name).alias(NAME_COLUMN),
                *(
                    cast(name, types[columns[name]])
                    if name in own
                    else pl.lit(None, types[columns[name]]).alias(name)
                    for name in carried
                ),
                PLACE,
            )


def _download(kinds: "Kinds", source: SeveralSources, part: Part) -> Counts:
    """Get a part's pictures, each source its own rows."""
    if part.round:
        return fetch(source, part)
    from darkroom.sources.joined import download_joined, owners_of

    by_name = {one.name: one.source for one in source.of}
    owners = owners_of(part, NAME_COLUMN)
    if all(_is_of_the_web(kinds, by_name[owner.name]) for owner in owners):
        return fetch(source, part)

    def get(name: str, own: Part) -> None:
        kinds[by_name[name].kind].download(by_name[name], own)

    of_files = {name for name, own in by_name.items() if not _is_of_the_web(kinds, own)}
    return download_joined(part, owners, of_files, get, _unmarked)


def _is_of_the_web(kinds: "Kinds", source: SourceSection) -> bool:
    return all(piece.pictures == "web" for piece in kinds[source.kind].pieces(source))


def _write_beside(kinds: "Kinds", source: SeveralSources, folder: "Path") -> None:
    """See `Source.write_beside`."""
    for one in source.of:
        kinds[one.source.kind].write_beside(one.source, folder)


def _marked(name: str, url: str) -> str:
    """The URL of a file, told apart from those of the other sources; other URLs as they are."""
    return f"{SCHEME}{name}/{url.removeprefix(SCHEME)}" if url.startswith(SCHEME) else url


def _marked_urls(name: str) -> "pl.Expr":
    import polars as pl

    url = pl.col("url")
    mark = pl.lit(f"{SCHEME}{name}/") + url.str.strip_prefix(SCHEME)
    return pl.when(url.str.starts_with(SCHEME)).then(mark).otherwise(url).alias("url")


def _unmarked(name: str) -> "pl.Expr":
    """The inverse, for rows of the source."""
    import polars as pl

    url, mark = pl.col("url"), f"{SCHEME}{name}/"
    inner = pl.lit(SCHEME) + url.str.strip_prefix(mark)
    return pl.when(url.str.starts_with(mark)).then(inner).otherwise(url).alias("url")


@contextmanager
def _naming(one: NamedSource) -> Iterator[None]:
    """Errors tell which of the sources they are about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"source.of: {one.name}: {error}") from None
