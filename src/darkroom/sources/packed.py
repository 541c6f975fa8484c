"""What sources share whose files hold pictures and their rows together: tars, and tables of pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.sources.base import Piece
from darkroom.sources.listing import stamp_of

if TYPE_CHECKING:
    import polars as pl

    from darkroom.settings.columns import Kind

    Types = Mapping[str, pl.DataType]


def packed_pieces(
    files: Mapping[str, Path],
    types: "Callable[[], Types]",
    read: "Callable[[str, Path, Types], Iterator[pl.DataFrame]]",
) -> list[Piece]:
    """A piece a file, see `Source.pieces`.

    Args:
        files: name -> file.
        types: column -> type of all files; asked once, when the first of them is read.
        read: name, file and the types of the columns that are carried -> batches of rows.
    """
    types = cache(types)

    def read_file(name: str, path: Path, columns: Sequence[str]) -> "Iterator[pl.DataFrame]":
        yield from read(name, path, {column: types()[column] for column in columns})

    return [
        Piece(name, {name: stamp_of(path)}, partial(read_file, name, path), pictures="files")
        for name, path in files.items()
    ]


def kinds_of(types: "Types") -> "dict[str, Kind]":
    """Column -> kind, of those that a criterion can name; see `Source.columns`."""
    from darkroom.sources.columns import kind_of

    kinds = {name: kind_of(dtype) for name, dtype in types.items()}
    return {name: kind for name, kind in kinds.items() if kind is not None}
