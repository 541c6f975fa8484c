"""What sources of folders share: every picture and every caption is one row.

A row's URL is `local:` and the file's path below its folder, percent-encoded; where there are several folders,
they are told apart by a first part. So a list, and the uids made from it, tell nothing of the machine.
"""

import logging
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from pydantic import Field

from darkroom.settings.download import CAPTION_ENDINGS
from darkroom.settings.paths import local_path
from darkroom.sources.base import SCHEME, Counts, Part, Piece, Source, SourceSection
from darkroom.sources.listing import stamp_of
from darkroom.sources.walk import Found, find_files

if TYPE_CHECKING:
    import polars as pl

    from darkroom.settings.columns import Kind

# What people keep pictures as. Those that are not decoded end as unsupported_image, and are counted.
PICTURE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif", ".jxl")
)

_log = logging.getLogger(__name__)


class FilesSection(SourceSection):
    """A source whose pictures are files in folders."""

    follow_links: bool = Field(
        False,
        description="follow links that lead out of the folder, and links to folders; else each of them is counted"
        " as blocked_path",
    )

    @property
    def drops_uncaptioned(self) -> bool:
        """Whether a picture without a caption ends as no_caption."""
        return True


FilesT = TypeVar("FilesT", bound=FilesSection)


class Row(NamedTuple):
    """A row of a folder. captions: of a picture, in their order. values: of carried columns."""

    url: str
    captions: Sequence[str] = ()
    values: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Folder:
    """One folder of a source. first: the first part of its rows' paths, "" where there is one folder only."""

    first: str
    path: Path
    found: Found

    @property
    def names(self) -> list[str]:
        """Its files' paths below it, sorted, with / between parts."""
        return self.found.names

    @property
    def pictures(self) -> list[str]:
        """Those of them that are pictures."""
        return [name for name in self.names if ending(name) in PICTURE_ENDINGS]


@dataclass(frozen=True)
class Listing:
    """What lies in folders: rows, whose URLs are paths below the folder at first, and how many files are none."""

    rows: list[Row]
    num_others: int


@dataclass(frozen=True)
class Folders(Generic[FilesT]):
    """A kind of source whose rows are files in folders.

    Args:
        named: first part of the rows' paths -> (option, its value) of each folder.
        rows_in: the rows of one folder. Raises ValueError, which names the folder or file and what would be right.
        reads: files outside the folders that the rows are made from.
        types: of the columns that the rows have values of.
    """

    named: Callable[[FilesT], Mapping[str, tuple[str, str]]]
    rows_in: Callable[[FilesT, Folder], Listing]
    reads: Callable[[FilesT], Sequence[Path]] = lambda source: ()
    types: "Callable[[FilesT, Folder], Mapping[str, pl.DataType]]" = lambda source, folder: {}

    def spec(self, name: str, section: type[FilesT], **more: Any) -> Source[FilesT]:
        """The kind's spec."""
        return Source(
            name, section, self.pieces, self.download, self.columns, write_beside=self.tell_the_log, **more
        )

    def folders(self, source: FilesT) -> dict[str, Path]:
        """First part of the rows' paths -> folder.

        Raises:
            ValueError: a folder does not exist, or its environment variable is not set.
        """
        found = {}
        for first, (key, text) in self.named(source).items():
            try:
                path = local_path(text)
            except ValueError as error:
                raise ValueError(f"source.{key}: {error}") from None
            if not path.is_dir():
                raise ValueError(f"source.{key}: no folder {text}; it should hold pictures")
            found[first] = path
        return found

    def looked_at(self, source: FilesT) -> list[Folder]:
        """The folders and what lies in them.

        Raises:
            ValueError: a folder is missing, holds no picture, or only links out of it that are not followed.
        """
        looked = []
        for first, path in self.folders(source).items():
            folder = Folder(first, path, find_files(path, source.follow_links))
            pictures = folder.pictures
            if not pictures and not folder.found.folder_links:
                raise ValueError(f"{path}: holds no picture ({', '.join(sorted(PICTURE_ENDINGS))})")
            if folder.found.outside.issuperset(pictures):
                what = (
                    f"{len(pictures)} pictures" if pictures else f"{len(folder.found.folder_links)} folders"
                )
                raise ValueError(
                    f"{path}: all of its {what} are links, which are not followed; write source.follow_links: true"
                )
            looked.append(folder)
        return looked

    def listing(self, source: FilesT) -> Listing:
        """Every picture and caption, sorted by path. Names that start with a dot are passed over.

        A picture that lacks its caption has none, and a caption that lacks its picture is a row with its own path,
        as is a link to a folder that is not followed: the download stage gives each a status.

        Raises:
            ValueError: as `looked_at`, or `rows_in` refuses it.
        """
        rows: list[Row] = []
        num_others = 0
        for folder in self.looked_at(source):
            found = self.rows_in(source, folder)
            links = map(Row, folder.found.folder_links)
            rows += [row._replace(url=url_of(folder.first, row.url)) for row in (*found.rows, *links)]
            num_others += found.num_others
        return Listing(sorted(rows, key=lambda row: row.url), num_others)

    def columns(self, source: FilesT) -> "dict[str, Kind]":
        """See `Source.columns`."""
        from darkroom.sources.columns import kind_of

        kinds = {name: kind_of(dtype) for name, dtype in self._types(source).items()}
        return {name: kind for name, kind in kinds.items() if kind is not None}

    def _types(self, source: FilesT) -> "dict[str, pl.DataType]":
        types: dict[str, pl.DataType] = {}
        for folder in self.looked_at(source):
            types = {**self.types(source, folder), **types}
        return types

    def pieces(self, source: FilesT) -> list[Piece]:
        """See `Source.pieces`: one, because the rows of all folders are sorted together."""
        stamps = {
            url_of(folder.first, name): stamp_of(folder.path / name)
            for folder in self.looked_at(source)
            for name in (*folder.names, *folder.found.folder_links)
        }
        stamps |= {str(path): stamp_of(path) for path in self.reads(source)}

        def read(columns: Sequence[str]) -> "Iterator[pl.DataFrame]":
            types = self._types(source) if columns else {}
            yield _frame(self.listing(source).rows, {name: types[name] for name in columns})

        return [Piece("", stamps, read, pictures="urls")]

    def tell_the_log(self, source: FilesT, folder: Path) -> None:
        """How many files are neither pictures nor captions, and how many links there are."""
        del folder
        num_others = self.listing(source).num_others
        found = [looked.found for looked in self.looked_at(source)]
        if num_others:
            _log.info("urls: %d files are neither pictures nor captions, and are left out", num_others)
        if num_followed := sum(one.num_followed for one in found):
            _log.info("urls: %d links were followed (source.follow_links)", num_followed)
        if num_blocked := sum(len(one.folder_links) + len(one.outside) for one in found):
            _log.info("urls: %d links are not followed (source.follow_links)", num_blocked)

    def download(self, source: FilesT, part: Part) -> Counts:
        """Read the part's pictures from the folders."""
        from darkroom.download.local_files import download_local_part

        folders = self.folders(source)

        def read(row: Mapping[str, Any], max_bytes: int) -> bytes:
            return _read_row(row, *path_of(row["url"], folders), source, max_bytes)

        files = part.urls, part.first_row, part.num_rows, part.settings, part.tar, part.table
        return download_local_part(*files, read, rows_sha256=part.rows, num_decoders=part.num_decoders)


def _frame(rows: Sequence[Row], types: "Mapping[str, pl.DataType]") -> "pl.DataFrame":
    """Rows as a piece of a source gives them."""
    import polars as pl

    captions = [list(row.captions) for row in rows]
    columns: dict[str, tuple[list[Any], Any]] = {
        "url": ([row.url for row in rows], pl.String),
        "caption": ([several[0] if several else None for several in captions], pl.String),
        "captions": ([several if len(several) > 1 else None for several in captions], pl.List(pl.String)),
        **{name: ([(row.values or {}).get(name) for row in rows], kind) for name, kind in types.items()},
    }
    return pl.DataFrame([pl.Series(name, values, dtype=kind) for name, (values, kind) in columns.items()])


def url_of(first: str, name: str) -> str:
    """The URL of a file in the folder `first`; `path_of` is its inverse."""
    # A name need not be UTF-8.
    return SCHEME + quote((f"{first}/{name}" if first else name).encode("utf-8", "surrogateescape"))


def path_of(url: str, folders: Mapping[str, Path]) -> tuple[Path, Path]:
    """(folder, file) of a row's URL, from `Folders.folders`; the file is not looked at."""
    name = posixpath.normpath(unquote(url.removeprefix(SCHEME), errors="surrogateescape"))
    if "" in folders:
        return folders[""], folders[""] / name
    first, _, rest = name.partition("/")
    return folders[first], folders[first] / rest


def ending(name: str) -> str:
    """The ending of a file's name, in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def _read_row(row: Mapping[str, Any], root: Path, path: Path, source: FilesSection, max_bytes: int) -> bytes:
    """The bytes of a row's picture.

    Raises:
        Refused: no_picture, no_caption, blocked_path, unreadable_file or too_many_bytes.
    """
    from darkroom.download import status as words
    from darkroom.download.status import Refused

    beside = [path.with_suffix(ending) for ending in CAPTION_ENDINGS]
    if "\0" in str(path):
        raise Refused(words.NO_PICTURE, "no file can have this name")
    # As it is written: what a list names may lead out of the folder without any link.
    if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(root)):
        raise Refused(words.BLOCKED_PATH, "the file lies outside the source's folder")
    if path.suffix.lower() in CAPTION_ENDINGS:
        raise Refused(words.NO_PICTURE, "no picture stands beside this caption")
    if os.path.isdir(path):
        raise Refused(words.BLOCKED_PATH, "a link to a folder, which is not followed (source.follow_links)")
    if not source.follow_links:
        if is_outside(root, path):
            raise Refused(words.BLOCKED_PATH, "the file lies outside the source's folder")
        if row["caption"] is None and any(is_outside(root, caption) for caption in beside):
            raise Refused(words.BLOCKED_PATH, "its caption lies outside the source's folder")
    if row["caption"] is None and source.drops_uncaptioned:
        names = " or ".join(caption.name for caption in beside)
        raise Refused(words.NO_CAPTION, f"no {names} with words in UTF-8 stands beside it")
    return read_file(path, max_bytes)


def is_outside(root: Path, path: Path) -> bool:
    """Whether a path, or what it leads to, lies outside a folder."""
    # Not Path.resolve, which fails for a link that leads to itself.
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def read_file(path: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file; neither a named pipe nor a device can make the job wait.

    Raises:
        Refused: no_picture, unreadable_file or too_many_bytes.
    """
    from darkroom.download import status as words
    from darkroom.download.status import Refused

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Refused(words.UNREADABLE_FILE, "it is no regular file")
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        if not path.is_symlink():
            raise Refused(words.NO_PICTURE, "there is no such file") from None
        raise Refused(words.UNREADABLE_FILE, "a link that leads nowhere") from None
    except OSError as error:
        raise Refused(words.UNREADABLE_FILE, f"the file cannot be read ({error.strerror})") from error
    if len(content) > max_bytes:
        raise Refused(words.TOO_MANY_BYTES, f"the file is larger than max_bytes = {max_bytes}")
    return content
