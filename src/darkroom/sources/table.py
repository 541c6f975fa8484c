"""The table of sources: `source.kind` names one. Every caller goes through it, and knows no kind.

Other packages add theirs by an entry point of the group `darkroom.sources`, see `darkroom.kinds`. A kind's file
imports `sources.base`, never this one.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from darkroom.kinds import table
from darkroom.sources import classes, dreambooth, folder, listed, several, tables_of_pictures, tars
from darkroom.sources.base import Counts, Part, Source, SourceSection
from darkroom.sources.listing import Ask, Listing, list_rows, listed_rows

if TYPE_CHECKING:
    from darkroom.settings.columns import Kind

_ONE_BY_ONE: dict[str, Source[Any]] = table(
    "darkroom.sources",
    listed.SPEC,
    folder.SPEC,
    tars.SPEC,
    tables_of_pictures.SPEC,
    dreambooth.SPEC,
    classes.SPEC,
)
_SEVERAL = several.spec_of_several(_ONE_BY_ONE)
SOURCES: dict[str, Source[Any]] = {**_ONE_BY_ONE, _SEVERAL.name: _SEVERAL}
# What plans look at and jobs read; whatever is missing there is listed again.
LISTINGS = Path(".snakemake/darkroom/sources")
# Of rows that no one asks for by part.
_ROWS_PER_PART = 65_536


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    """Names of files and columns, which others chose, can neither forge a line of a message nor paint."""
    from darkroom.download.status import printable

    try:
        yield
    except ValueError as error:
        told = str(error)
        if told.isprintable():
            raise
        raise ValueError(printable(told)) from None


def spec_of(source: SourceSection) -> Source[Any]:
    """The spec of a source's kind."""
    return SOURCES[source.kind]


@_told_in_one_line()
def look_at(
    source: SourceSection,
    rows_per_part: int,
    dataset: str,
    folder: Path = LISTINGS,
    withdrawn: Collection[str] = frozenset(),
) -> Listing:
    """List a source's rows in a file of `folder`, named by the dataset, and tell the state of each part.

    Rows whose URL was withdrawn are empty, see `sources.withdrawn`.

    Raises:
        ValueError: no dataset can be made of it; names the file and the key, line or row.
        OSError: the file cannot be written.
    """
    columns, path = list(list_columns(source)), listing_path(dataset, folder)
    return _look(source, columns, rows_per_part, path, withdrawn)


def _look(
    source: SourceSection, columns: list[str], rows_per_part: int, path: Path, withdrawn: Collection[str]
) -> Listing:
    from darkroom.store import sha256_json

    spec = spec_of(source)
    asked = sha256_json([source.model_dump(mode="json"), columns, *sorted(withdrawn)])
    ask = Ask(rows_per_part, spec.one_picture_a_url, withdrawn)
    return list_rows(spec.pieces(source), columns, ask, path, asked)


def listing_path(dataset: str, folder: Path = LISTINGS) -> Path:
    """Where `look_at` lists the rows of a dataset, for its jobs."""
    return folder / f"{dataset}.parquet"


@_told_in_one_line()
def is_fetched(source: SourceSection) -> bool:
    """Whether some of a source's pictures come from the web."""
    return any(piece.pictures == "web" for piece in spec_of(source).pieces(source))


@_told_in_one_line()
def count_rows(source: SourceSection) -> int:
    """How many rows a source has."""
    return sum(len(batch) for piece in spec_of(source).pieces(source) for batch in piece.read([]))


@_told_in_one_line()
def list_columns(source: SourceSection) -> "dict[str, Kind]":
    """See `Source.columns`."""
    return spec_of(source).columns(source)


@_told_in_one_line()
def write_urls(
    source: SourceSection,
    out: str | Path,
    columns: Sequence[str],
    listing: Path | None = None,
    withdrawn: Collection[str] = frozenset(),
) -> int:
    """Write a source's rows in darkroom's columns, and `columns` of its own; returns their number.

    They are taken from `listing`, where `look_at` has listed them; else those whose URL is in `withdrawn` are
    empty.
    """
    from darkroom.store import write_batches

    spec_of(source).write_beside(source, Path(out).parent)
    if listing is not None:
        return write_batches(out, listed_rows(listing))
    with TemporaryDirectory(dir=Path(out).parent) as folder:
        path = Path(folder) / "rows.parquet"
        listed = _look(source, list(columns), _ROWS_PER_PART, path, withdrawn)
        return write_batches(out, listed_rows(listed.path))


@_told_in_one_line()
def download_from(source: SourceSection, part: Part) -> Counts:
    """Make one part's tar and table; see `Source.download`.

    Raises:
        ValueError: a part of a round of retries is asked for, and the pictures are files.
    """
    if part.round and not is_fetched(source):
        raise ValueError(
            f"{Path(part.tar).stem}: pictures of the kind {source.kind} are files, and not fetched again"
        )
    return spec_of(source).download(source, part)
