"""`kind: demo`: the demo world's list, and the web server that its pictures are fetched from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.sources.base import Counts, Part, Piece, Source, Truth
from darkroom.sources.listing import stamp_of
from darkroom_demo.section import DemoSource

if TYPE_CHECKING:
    import polars as pl

    from darkroom.settings.columns import Kind

_CODE = Path(__file__).parent
# As LAION calls them.
_NAMES = {"width": "WIDTH", "height": "HEIGHT"}


def _pieces(source: DemoSource) -> list[Piece]:
    def read(columns: Sequence[str]) -> "Iterator[pl.DataFrame]":
        from darkroom_demo.world import DemoWorld, list_of

        yield list_of(DemoWorld(source)).rename(_NAMES).select("url", "caption", *columns)

    # The rows follow from the code: where that changes, they are listed again.
    return [Piece("", {path.name: stamp_of(path) for path in sorted(_CODE.glob("*.py"))}, read)]


def _write_beside(source: DemoSource, folder: Path) -> None:
    """The list as LAION's are (list.parquet) and the truth about it (truth.parquet)."""
    import polars as pl

    from darkroom.store import write_table
    from darkroom_demo.judge import TRUTH
    from darkroom_demo.world import DemoWorld, write_urls

    path = folder / "list.parquet"
    write_urls(DemoWorld(source), path, folder / TRUTH)
    names = {"url": "URL", "caption": "TEXT", **_NAMES}
    write_table(path, pl.read_parquet(path).drop("row").rename(names), sort_by=None)


def _columns(source: DemoSource) -> "dict[str, Kind]":
    return dict.fromkeys(("similarity", "pwatermark", "punsafe", "WIDTH", "HEIGHT"), "number")


def _download(source: DemoSource, part: Part) -> Counts:
    """Fetch from the demo's own web server, which ends with the part."""
    from darkroom.sources.base import fetch
    from darkroom_demo.server import running_server

    with running_server(source, part.settings) as web:
        return fetch(source, part, connect_to=web)


def _judge(folder: Path, captions: "pl.DataFrame") -> "pl.DataFrame | None":
    from darkroom_demo.judge import judge_captions

    return judge_captions(folder, captions)


SPEC = Source(
    "demo",
    DemoSource,
    _pieces,
    _download,
    _columns,
    write_beside=_write_beside,
    truth=Truth(
        "it names exactly the shapes there are, with their colours and number; the short one may leave colours"
        " out",
        _judge,
    ),
)
