"""What a scorer is: one spec with its options, the columns that it makes, and how it makes them.

A scorer judges every picture of the list by numbers, text or booleans, which `keep` may then name. Its file holds
all of it. A scorer's options alone decide when it scores again, not what `keep` says of its columns.

The tables of scorers are read with the configuration: what imports polars or more does so inside functions.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from darkroom.components.base import Component
from darkroom.scorers.shared import Shared
from darkroom.settings.base import Section
from darkroom.settings.extras import Extra

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

# The type of a column, by its name in polars.
Type = Literal["Int32", "Int64", "Float32", "Float64", "String", "Boolean"]
# `table`: the part's download table. `pixels`: its stored pictures too. `dataset`: the tables of all parts; what
# it says of a row is for the rows up to the end of its part to decide: where a list grows, what was made stays.
Reads = Literal["table", "pixels", "dataset"]


@dataclass(frozen=True)
class Part:
    """What a scorer is given: the rows of one part, or of all of them, sorted by uid within a part.

    rows: uid, row, status and the columns that the scorer `needs`.
    tar: the part's pictures, for a scorer that reads pixels.
    components: name -> pretrained component, of those that the scorer's options name.
    references: name of a set of pictures that the options name -> their hashes (`score.references`).
    lengths: for a scorer that reads the dataset, how many of the rows each part has, in order.
    judges: what the scorer tells of the models that it asked, see `tell_of`.
    shared: with the other scorers that look at the part in the same pass.
    passes: of such a pass, the decoded pictures, for the first who asks for `images`.
    """

    rows: "pl.DataFrame"
    tar: Path | None = None
    components: Mapping[str, Component] = field(default_factory=dict)
    references: Mapping[str, Path] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    judges: dict[str, dict[str, Any]] = field(default_factory=dict)
    shared: Shared = field(default_factory=Shared)
    passes: "list[Iterator[tuple[int, np.ndarray]]]" = field(default_factory=list)

    def tell_of(self, model: str, **said: Any) -> None:
        """Note for the manifest how a model is asked: its classes in their order, how pictures come to it.

        Args:
            model: the name of the component, whose digest the stage adds; or of the package that holds it.
            said: plain values, as JSON has them.
        """
        self.judges[model] = said

    def pictures(self) -> Iterator[tuple[int, bytes]]:
        """(place in `rows`, JPEG) of every stored picture, in the order of the tar."""
        from darkroom.store import TarReader

        assert self.tar is not None, "only for a scorer that reads pixels"
        columns = ("status", "offset", "size")
        with TarReader(self.tar) as tar:
            for place, (status, offset, size) in enumerate(self.rows.select(columns).iter_rows()):
                if status == "ok":
                    yield place, tar.read(offset, size)

    def images(self) -> Iterator[tuple[int, "np.ndarray"]]:
        """(place in `rows`, uint8 RGB (height, width, 3)) of every stored picture, as `pictures` does.

        Scorers that look at the part in one pass share them, and change none.
        """
        if self.passes:
            yield from self.passes.pop()
            return
        import numpy as np
        from PIL import Image

        for place, jpeg in self.pictures():
            with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
                yield place, np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class Scorer:
    """One kind of scorer.

    Args:
        name: its key under `scorers`.
        section: its options.
        columns: the columns that it makes, with their types.
        reads: what it looks at.
        needs: columns of the download table that it wants besides uid, row and status.
        score: options and part -> a table with the columns, one row a row of the part, in their order. A row
            that has no value, as one without a picture, is null. A scorer that asks a model tells of it by
            `Part.tell_of`.
        extra: packages that it needs beyond darkroom's own; where they are missing no job starts.
        version: raised by whoever changes what it writes; its columns are then made again.
        after: scorers of parts whose columns its rows have too, for a scorer that reads the dataset; they have to
            be listed with it, and it scores again where they do.
        copy_of: the column that names, by its row, the picture that a row is a copy of, null for all others; the
            report shows such pictures together.
        references: options -> the sets of pictures that it compares with, by name, as the configuration says where
            they lie; for a scorer of parts, which finds them hashed.
    """

    name: str
    section: type[Section]
    columns: Mapping[str, Type]
    reads: Reads
    needs: tuple[str, ...]
    score: Callable[[Any, Part], "pl.DataFrame"]
    extra: Extra | None = None
    version: int = 1
    after: tuple[str, ...] = ()
    copy_of: str | None = None
    references: Callable[[Any], Mapping[str, str]] | None = None
