"""What a kind of source is: one spec, which everything that depends on the kind asks.

A kind's file has its section of the configuration, what its rows are read from, and how the pictures of one part
are got. Nothing else says its name. It is read with the configuration, at every start of Snakemake and in every
job: import what is heavy inside functions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, get_args

from darkroom.settings.base import Section

if TYPE_CHECKING:
    import polars as pl

    from darkroom.settings.columns import Kind
    from darkroom.settings.download import Download, Manners

Counts = dict[str, Any]
# Of a file: its size and the times of its content and of its entry, ns. Of another place: what tells its version.
# None: it is not there.
Stamp = Sequence[Any] | None

# The URLs of files begin with SCHEME, and those of DreamBooth's class pictures with CLASS_URLS.
SCHEME = "local:"
CLASS = "class"
CLASS_URLS = f"{SCHEME}{CLASS}/"


class SourceSection(Section):
    """The `source` section of a dataset. Each kind's own adds `kind` and more."""

    if TYPE_CHECKING:
        kind: str

    def with_captioner(self, has_captioner: bool) -> Self:
        """The section in a dataset whose pictures a captioner describes, or not: what is left open is settled."""
        del has_captioner
        return self


SectionT = TypeVar("SectionT", bound=SourceSection)


@dataclass(frozen=True)
class Piece:
    """Rows of a source that are read together, such as those of one file, in their order.

    Args:
        name: unique within the source.
        stamps: of all files that the rows are made from, by name. While they stay the rows do.
        read: columns that are carried -> batches of rows, at least one, which may be empty. Each has url, caption,
            captions (List(String), of rows with more than one; or no such column) and those that are carried, in
            this order, with the same types in every batch of every piece. Raises ValueError, which names the file
            and the key, line or row.
        pictures: where the pictures come from: the web, the files that `stamps` has under the rows' URLs, or all
            files of `stamps`. Of files, a change reaches the parts.
    """

    name: str
    stamps: Mapping[str, Stamp]
    read: "Callable[[Sequence[str]], Iterator[pl.DataFrame]]"
    pictures: Literal["web", "urls", "files"] = "web"


@dataclass(frozen=True)
class Part:
    """What makes one part: rows [first_row, first_row + num_rows) of `urls` become `tar` and `table`.

    `rows` is the digest that these rows should have, see `listing.PartState`. `num_decoders` processes decode its
    pictures; the files do not depend on it. At most `max_transport_failures` of the rows, a share, may get no
    answer from the web. With `keep_journal` the caller forgets the part's journal (`download.journal`).
    The web is asked with `manners`; None: as fast as it goes.

    A part of a `round` of retries, from 1, has those rows of the tables `retry_of` that are worth another try.
    """

    urls: str | Path
    first_row: int
    num_rows: int
    settings: "Download"
    tar: str | Path
    table: str | Path
    rows: str | None = None
    num_decoders: int = 1
    max_transport_failures: float = 1.0
    keep_journal: bool = False
    round: int = 0
    retry_of: Sequence[str | Path] = ()
    manners: "Manners | None" = None


def fetch(source: SourceSection, part: Part, connect_to: Mapping[str, str] | None = None) -> Counts:
    """Get a part's pictures from the web; connect_to: "host:port" -> "ip:port" instead of a look-up."""
    from darkroom.download.manners.crawl import Crawl
    from darkroom.download.stage import download_part, retry_part

    crawl = None if part.manners is None else Crawl(part.manners)
    if part.round:
        again = part.retry_of, part.round, part.settings, part.tar, part.table
        return retry_part(*again, connect_to, part.num_decoders, part.keep_journal, crawl)
    files = part.urls, part.first_row, part.num_rows, part.settings, part.tar, part.table
    return download_part(
        *files,
        connect_to=connect_to,
        rows_sha256=part.rows,
        num_decoders=part.num_decoders,
        max_transport_failures=part.max_transport_failures,
        keep_journal=part.keep_journal,
        crawl=crawl,
    )


def no_columns(source: SourceSection) -> "dict[str, Kind]":
    """Of a source whose rows are a URL and a caption, and nothing else."""
    return {}


def no_class_pictures(source: SourceSection) -> bool:
    """Of a source whose pictures are all of one kind."""
    return False


def nothing_beside(source: SourceSection, folder: Path) -> None:
    """Of a source that has nothing to tell but its rows."""


@dataclass(frozen=True)
class Truth:
    """What a source knows of its pictures that no caption says: then a report tells which captions are right.

    Attributes:
        right_means: when a caption is right, to be read behind "a caption is right if".
        judge: (folder that the list was written into, table with `row` and `caption_<name>`) -> of the same rows
            in the same order `sort`, a name of which a report shows some of each, and `<name>_right`, null where
            it is not known; or None where nothing is.
    """

    right_means: str
    judge: "Callable[[Path, pl.DataFrame], pl.DataFrame | None]"


@dataclass(frozen=True)
class Source(Generic[SectionT]):
    """A kind of source.

    Args:
        name: what `source.kind` says.
        section: its section of the configuration, whose `kind` is the literal `name`.
        pieces: what its rows are read from, in their order; asked at every start, so nothing is read yet. Raises
            ValueError, which names the key or file, where a dataset cannot be made of it.
        download: make one part's tar and table, see `download.stage.download_part`. Returns {"rows": n,
            "status": {status: n}}.
        columns: column -> kind of what a row has besides URL and caption, which the download's table carries and
            the dataset's criteria may name. Asked at every start, so rows are not read for it.
        has_class_pictures: whether some rows are pictures of a subject's class, which the training weighs apart
            (DreamBooth). Their URLs begin with CLASS_URLS.
        truth: what it knows of its pictures; None where that is what captions say.
        one_picture_a_url: whether rows with one URL mean one picture, which is got once, with all their captions.
        write_beside: write into the folder of `urls.parquet`, or tell the log, what there is to tell besides.
    """

    name: str
    section: type[SectionT]
    pieces: Callable[[SectionT], Sequence[Piece]]
    download: Callable[[SectionT, Part], Counts] = fetch
    columns: "Callable[[SectionT], dict[str, Kind]]" = no_columns
    has_class_pictures: Callable[[SectionT], bool] = no_class_pictures
    truth: Truth | None = None
    one_picture_a_url: bool = True
    write_beside: Callable[[SectionT, Path], None] = nothing_beside

    def __post_init__(self) -> None:
        if get_args(self.section.model_fields["kind"].annotation) != (self.name,):
            raise ValueError(
                f"{self.section.__name__}.kind should be Literal[{self.name!r}], as its spec is named"
            )
