"""img2dataset's downloader, with our opener and decoders in the place of its own.

It calls `urlopen` in its fetch threads and a resizer in one thread after them. What stands under `urlopen` here
fetches and decodes, so that bodies are gone before anything waits; the resizer only hands on what was decoded.
"""

import importlib
import importlib.util
import io
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from darkroom.download.decoders import Decoders, Picture, compared, with_opt_outs
from darkroom.download.fetch import Body, PictureOpener, installed
from darkroom.download.journal import Journal
from darkroom.download.manners.queue import RowQueue
from darkroom.download.status import Failure, FetchError
from darkroom.download.writer import Collector
from darkroom.settings.download import Download

_ROW, _ENDS = "row:", "\n"


@dataclass(frozen=True)
class Fetching:
    """What gets pictures, and where they go.

    Args:
        settings: the `download` section.
        opener: closed when img2dataset is done with it.
        journal: told when a row's fetch begins, and when its bytes are there, by any thread.
        collector: gets every outcome, one at a time.
        hashes: position of a row -> the list's hash of its file, of rows that have one.
    """

    settings: Download
    opener: PictureOpener
    decoders: Decoders
    journal: Journal
    collector: Collector
    hashes: Mapping[int, str] = field(default_factory=dict)

    def get(self, place: int, url: str) -> Picture | Failure:
        """A row's picture, or why there is none. Raises DecoderError."""
        self.journal.begin(place)
        try:
            with self.opener.open(url) as body:
                self.journal.arrive(place)
                found = compared(self.decoders.decode(body.pieces), body.pieces, self.hashes.get(place))
                return with_opt_outs(found, (*body.opt_outs, *found.opt_outs))
        except FetchError as error:
            return error.failure

    def failed(self) -> None:
        """Raise what ends a part, if it happened: OSError, where a picture could not be kept; DecoderError."""
        for failure in (self.collector.failure, self.decoders.failure):
            if failure is not None:
                raise failure


def fetch_alone(urls: Mapping[int, str], fetching: Fetching) -> None:
    """Fetch and decode rows one at a time; raises as `fetch_and_decode`."""
    for place, url in urls.items():
        found = fetching.get(place, url)
        fetching.failed()
        fetching.collector.keep(place, found)
    fetching.failed()


def fetch_and_decode(urls: Mapping[int, str], fetching: Fetching, folder: Path) -> None:
    """Have rows fetched and decoded, many at a time.

    Args:
        urls: position of a row -> its URL.
        folder: for files of img2dataset's own.

    Raises:
        OSError: the collector could not keep a picture.
        DecoderError: no process that decodes can be started.
    """
    # img2dataset sees names of rows in the place of URLs. Whichever it asks for, its thread gets the row that the
    # queue has next, and what comes back names that row.
    places, settings = list(urls), fetching.settings
    shard = folder / "urls.arrow"
    with pa.OSFile(str(shard), "wb") as file:
        content = pa.table({"url": pa.array([f"{_ROW}{place}" for place in places], pa.string())})
        with pa.ipc.new_file(file, content.schema) as sink:
            sink.write_table(content)
    pictures = _Pictures(urls, fetching)
    downloader = _downloader_class()(
        sample_writer_class=lambda *_: _SampleWriter(fetching.collector),
        resizer=pictures.resize,
        thread_count=settings.num_threads,
        save_caption=False,
        extract_exif=False,
        output_folder=str(folder),
        column_list=["url"],
        timeout=settings.timeout_s,
        number_sample_per_shard=max(len(places), 2),
        oom_shard_count=1,
        compute_hash=None,
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,  # the opener tries transient failures again, and only those
        user_agent_token=None,  # the opener sends its own headers
        disallowed_header_directives=None,  # the opener looks at them before it reads the body
    )
    with installed(pictures):
        downloader.download_shard((0, str(shard)))
    fetching.failed()


class _SampleWriter:
    """What img2dataset hands its samples to."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def write(self, found: "_Found | None", key: str, caption: str | None, meta: Mapping[str, Any]) -> None:
        """Called once a row; `key` is the number of another one. What tells no row is a fault of img2dataset's."""
        place, _, message = str(meta["error_message"]).partition(_ENDS)
        if found is not None:
            self._collector.keep(*found)
        elif place.isdecimal():
            self._collector.keep(int(place), Failure.from_message(message))

    def close(self) -> None:
        """Called after the last picture."""


class RowFailed(Exception):
    """A row without a picture; its text is the row's position and what `Failure.from_message` reads."""

    def __init__(self, place: int, failure: Failure) -> None:
        super().__init__(f"{place}{_ENDS}{failure.to_message()}")


class _Found(NamedTuple):
    """A row's picture."""

    place: int
    picture: Picture


class _Pictures:
    """Stands under `urlopen`, and is the resizer that gets what it returned.

    What is read from an answer is only a ticket: img2dataset copies it once more and carries it to one thread.
    """

    def __init__(self, urls: Mapping[int, str], fetching: Fetching) -> None:
        self._urls = urls
        self._fetching = fetching
        self._decoded: dict[bytes, _Found] = {}
        self._queue = RowQueue(urls, fetching.opener.hosts, fetching.settings.total_timeout_s)

    def open(self, request: urllib.request.Request | str, data: Any = None, timeout: Any = None) -> Body:
        """What `urlopen` calls. Raises RowFailed."""
        place, host, failure = self._queue.next()
        if host is not None:
            self._fetching.opener.turns.hold(host)
        found = failure or self._fetching.get(place, self._urls[place])
        if isinstance(found, Failure):
            raise RowFailed(place, found)
        ticket = str(place).encode()
        self._decoded[ticket] = _Found(place, found)
        return Body([ticket], Message())

    def resize(self, stream: io.BytesIO, bbox_list: Any = None) -> tuple[_Found, int, int, int, int, None]:
        """What was decoded, its size, its original size, and no error message."""
        found = self._decoded.pop(stream.getvalue())
        return found, *found.picture[1:5], None

    def close(self) -> None:
        """Close the opener."""
        self._fetching.opener.close()


def _downloader_class() -> Any:
    """`img2dataset.downloader.Downloader`, without running img2dataset/__init__.py.

    That file imports every back-end it has: 5 s and 660 MB instead of 1 s and 90 MB, and one of
    them asks a package index for updates. The module we need imports none of that.
    """
    if "img2dataset" in sys.modules or "img2dataset.downloader" in sys.modules:
        return importlib.import_module("img2dataset.downloader").Downloader
    spec = importlib.util.find_spec("img2dataset")
    assert spec is not None, "img2dataset is a declared dependency"
    sys.modules["img2dataset"] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module("img2dataset.downloader").Downloader
    finally:
        del sys.modules["img2dataset"]  # another importer gets the whole package
