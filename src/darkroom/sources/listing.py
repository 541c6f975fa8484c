"""A source's rows as one file, and what tells that those of a part have changed.

A plan needs a digest of every part's rows, and so every row. They are kept with the sizes and times of the files
that they were read from, and only what was written since is read again.
"""

import json
import os
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, chain, pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from darkroom.sources.base import Piece, Stamp
from darkroom.sources.remote import RemoteFile
from darkroom.sources.withdrawn import emptied

if TYPE_CHECKING:
    import polars as pl

# Raised by whoever changes what is kept.
_VERSION = 1
_KEY = b"darkroom"
# Any two writings of a file that are further apart have unlike times, also where clocks are coarse.
_COARSEST_NS = 2_500_000_000
_ABANDONED_S = 86_400.0
_BATCH_ROWS = 65_536


class PartState(NamedTuple):
    """What changes when a part has to be made again, though the configuration does not change.

    Args:
        rows: digest of the part's rows in the list, `store.sha256_rows`.
        pictures: digest of what the part's pictures are read from; None where they are fetched from the web.
    """

    rows: str
    pictures: str | None


@dataclass(frozen=True)
class Listing:
    """A look at a source: its rows in the columns of `urls.parquet`, how many, and the state of each part."""

    path: Path
    num_rows: int
    parts: list[PartState]


def stamp_of(path: "str | Path | RemoteFile") -> Stamp:
    """What changes when a file is written again; of a link that leads nowhere, what changes with the link.

    Raises:
        OSError: the store of a remote file does not answer.
    """
    if isinstance(path, RemoteFile):
        return path.stamp()
    try:
        found = os.stat(path)
    except OSError:
        try:
            found = os.lstat(path)
        except OSError:
            return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Ask(NamedTuple):
    """What is asked of a source's rows: in which parts, whether rows with one URL are one picture, and which URLs
    were withdrawn (`sources.withdrawn`)."""

    rows_per_part: int
    one_picture_a_url: bool = True
    withdrawn: Collection[str] = frozenset()


def list_rows(pieces: Sequence[Piece], columns: Sequence[str], ask: Ask, path: Path, asked: str) -> Listing:
    """List the rows of `pieces` in the file `path`, at least one part of them.

    Args:
        columns: those that are carried.
        path: what is there already is not read again where it is still true.
        asked: what the rows depend on beside the files; what was listed for another is not true.

    Raises:
        ValueError: as `Piece.read`.
        OSError: the file cannot be written.
    """
    known = _Known.read(path, f"{_VERSION} {asked}")
    looks = [_Look.at(piece) for piece in pieces]
    true = [look.name for look in looks if known.is_true_of(look)]
    if true != list(known.pieces) or len(true) < len(looks) or known.rows_per_part != ask.rows_per_part:
        known = _write(pieces, looks, columns, ask, path, known)
    pictures = _pictures(pieces, known, path)
    return Listing(path, known.num_rows, list(map(PartState, known.parts, pictures)))


def numbered(batches: Iterable["pl.DataFrame"]) -> Iterator["pl.DataFrame"]:
    """The columns of `urls.parquet`: the row's number, then what the batches have.

    Raises:
        ValueError: a batch has other columns or types than the first.
    """
    import polars as pl

    first_row, schema = 0, None
    for batch in batches:
        schema = schema or batch.schema
        assert batch.schema == schema, f"{batch.schema} after {schema}"
        row = pl.int_range(first_row, first_row + len(batch), dtype=pl.Int64, eager=True).alias("row")
        yield batch.select(row, pl.all())
        first_row += len(batch)


class _Look(NamedTuple):
    """A look at a piece's files: the digest of their sizes and times, and the newest of these, ns."""

    name: str
    digest: str
    newest_ns: int

    @classmethod
    def at(cls, piece: Piece) -> "_Look":
        from darkroom.store import sha256_json

        stamps = {name: stamp and list(stamp) for name, stamp in piece.stamps.items()}
        times = (time_ns for stamp in stamps.values() if stamp for time_ns in stamp[1:3])
        newest = max((time_ns for time_ns in times if isinstance(time_ns, int)), default=0)
        return cls(piece.name, sha256_json(stamps), newest)


class _Kept(NamedTuple):
    """Rows of a piece that were listed: of which state of its files, when these were read, and how many."""

    digest: str
    read_ns: int
    num_rows: int


@dataclass(frozen=True)
class _Known:
    """What a file of rows says of itself."""

    asked: str
    rows_per_part: int
    pieces: dict[str, _Kept]
    parts: list[str]
    num_shared: int

    @classmethod
    def read(cls, path: Path, asked: str) -> "_Known":
        """Of a file that is not there, is damaged, or was made for something else: that nothing is known."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            told = json.loads((pq.read_metadata(path).metadata or {})[_KEY])
            pieces = {name: _Kept(*kept) for name, kept in told["pieces"].items()}
            found = cls(told["asked"], told["rows_per_part"], pieces, told["parts"], told["num_shared"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
            return cls(asked, 0, {}, [], 0)
        return found if found.asked == asked else cls(asked, 0, {}, [], 0)

    @property
    def num_rows(self) -> int:
        return sum(kept.num_rows for kept in self.pieces.values())

    def is_true_of(self, look: _Look) -> bool:
        """Whether the rows of a piece are still those of its files, for all that sizes and times can tell."""
        kept = self.pieces.get(look.name)
        return (
            kept is not None and kept.digest == look.digest and look.newest_ns < kept.read_ns - _COARSEST_NS
        )

    def places(self) -> dict[str, tuple[int, int]]:
        """Piece -> its first row, and the row after its last."""
        ends = [0, *accumulate(kept.num_rows for kept in self.pieces.values())]
        return dict(zip(self.pieces, pairwise(ends), strict=True))


def _write(
    pieces: Sequence[Piece],
    looks: Sequence[_Look],
    columns: Sequence[str],
    ask: Ask,
    path: Path,
    known: _Known,
) -> _Known:
    """Write the file anew; rows that are still true are taken from what it was."""
    from darkroom.sources.repeats import SharedUrls, whole, with_shared

    now = _Known(known.asked, ask.rows_per_part, {}, [], 0)
    places = known.places()

    def batches() -> Iterator["pl.DataFrame"]:
        for piece, look in zip(pieces, looks, strict=True):
            taken, num_rows = known.is_true_of(look) and not known.num_shared, 0
            read_ns = known.pieces[piece.name].read_ns if taken else time.time_ns()
            for batch in listed_rows(path, *places[piece.name]) if taken else piece.read(columns):
                num_rows += len(batch)
                yield emptied(batch.drop("row", strict=False), ask.withdrawn)
            now.pieces[piece.name] = _Kept(look.digest, read_ns, num_rows)

    rows, urls = numbered(map(whole, batches())), SharedUrls()
    with _beside(path) as first, _beside(path) as second:
        _write_parts(first, urls.watch(rows) if ask.one_picture_a_url else rows, now)
        shared = urls.find(lambda: listed_rows(first))
        if len(shared):
            now = replace(now, parts=[], num_shared=len(shared))
            _write_parts(second, with_shared(listed_rows(first), shared), now)
        os.replace(second if len(shared) else first, path)
    return now


def _write_parts(path: Path, rows: Iterator["pl.DataFrame"], now: _Known) -> None:
    """Write rows, what their parts' digests are, and of which files."""
    from darkroom.store import parts_of, sha256_rows, write_batches

    def parts() -> Iterator["pl.DataFrame"]:
        first = next(rows)
        yield first.clear()
        for part in parts_of(chain([first], rows), now.rows_per_part):
            now.parts.append(sha256_rows(part))
            yield part
        if not now.parts:
            now.parts.append(sha256_rows(first))

    write_batches(path, parts(), lambda: {_KEY: json.dumps(asdict(now))})


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A file of this process alone, also where several machines look at the same time, to become `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(".*.tmp"):
        # By a process that was killed.
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def listed_rows(path: Path, begin: int = 0, end: int | None = None) -> Iterator["pl.DataFrame"]:
    """Rows [begin, end) that were listed, in batches, of which the first is empty."""
    import polars as pl
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        num_rows, place = file.metadata.num_rows if end is None else end, 0
        schema = pl.DataFrame(file.schema_arrow.empty_table())
        yield schema
        for group in range(file.num_row_groups):
            after = place + file.metadata.row_group(group).num_rows
            if after > begin and place < num_rows:
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
                    rows = pl.DataFrame(batch, schema=schema.schema)
                    yield rows[max(begin - place, 0) : max(num_rows - place, 0)]
                    place += len(rows)
            place = after


def _pictures(pieces: Sequence[Piece], known: _Known, path: Path) -> Iterator[str | None]:
    """What tells that the pictures of each part have changed; without the time of the entry, which a new link to a
    file changes too."""
    import polars as pl

    from darkroom.store import sha256_json

    if all(piece.pictures == "web" for piece in pieces):
        yield from repeat(None, len(known.parts))
        return
    places = known.places()
    urls = pl.read_parquet(path, columns=["url"])["url"]
    for first in range(0, max(known.num_rows, 1), known.rows_per_part):
        end, told = min(first + known.rows_per_part, known.num_rows), []
        for piece in pieces:
            own = range(max(first, places[piece.name][0]), min(end, places[piece.name][1]))
            if len(own) and piece.pictures != "web":
                all_names = piece.pictures == "files"
                names = piece.stamps if all_names else urls[own.start : own.stop].to_list()
                told.append([piece.name, [list(piece.stamps.get(name) or [])[:2] for name in names]])
        yield sha256_json(told)
