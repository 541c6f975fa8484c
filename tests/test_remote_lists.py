"""Lists that lie elsewhere: read through fsspec, and read again only when their store says that they changed."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest

from darkroom.config.dataset import parse_source
from darkroom.sources import readers
from darkroom.sources.table import count_rows, list_columns, look_at, write_urls
from darkroom.store import read_table

ROWS = [{"URL": f"http://a.example/{i}", "TEXT": f"picture {i}", "score": i / 8} for i in range(10)]


class Store(ThreadingHTTPServer):
    """A web server with files; counts how often each was read. `tells`: whether it names their versions."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.reads: list[str] = []
        self.tells = True

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Store

    def do_HEAD(self) -> None:
        self.answer(is_read=False)

    def do_GET(self) -> None:
        self.answer(is_read=True)

    def answer(self, is_read: bool) -> None:
        name = self.path.partition("?")[0].lstrip("/")
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        first, _, last = wanted.partition("-")
        part = content[int(first or 0) : int(last) + 1 if last else None] if wanted else content
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        if self.server.tells:
            self.send_header("ETag", f'"{hash(content)}"')
        self.end_headers()
        if is_read:
            self.server.reads.append(name)
            self.wfile.write(part)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def content_of(name: str, rows: list[dict[str, Any]] = ROWS) -> bytes:
    frame = pl.DataFrame(rows)
    if name.endswith(".parquet"):
        import io

        out = io.BytesIO()
        frame.write_parquet(out)
        return out.getvalue()
    text = (frame.write_csv() if "csv" in name else frame.write_ndjson()).encode()
    return gzip.compress(text) if name.endswith(".gz") else text


def source_of(path: str) -> Any:
    return parse_source({"kind": "list", "path": path})


def listed(source: Any, folder: Path) -> pl.DataFrame:
    write_urls(source, folder / "urls.parquet", list(list_columns(source)))
    return read_table(folder / "urls.parquet")


@pytest.mark.parametrize("name", ["list.parquet", "list.csv", "list.csv.gz", "list.jsonl", "list.jsonl.gz"])
def test_a_list_of_a_web_server_is_that_of_a_file(store: Store, tmp_path: Path, name: str) -> None:
    store.files[name] = content_of(name)
    (tmp_path / name).write_bytes(content_of(name))
    found = listed(source_of(store.address(name)), tmp_path)
    assert found.equals(listed(source_of(str(tmp_path / name)), tmp_path)) and len(found) == 10
    assert listed(source_of(store.address(name) + "?download=true"), tmp_path).equals(found)


@pytest.mark.parametrize("tells", [True, False])
def test_it_is_read_again_when_its_version_is_another_or_nobody_knows(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells: bool
) -> None:
    store.files["list.csv"], store.tells = content_of("list.csv"), tells
    source, read, read_rows = source_of(store.address("list.csv")), [], readers.read_rows
    monkeypatch.setattr(
        readers, "read_rows", lambda path, *more: read.append(path.name) or read_rows(path, *more)
    )
    first = look_at(source, 4, "mine", tmp_path).parts
    assert len(first) == 3 and look_at(source, 4, "mine", tmp_path).parts == first
    assert len(read) == (1 if tells else 2)
    store.files["list.csv"] = content_of("list.csv", [*ROWS, ROWS[0] | {"URL": "http://new.example"}])
    now = look_at(source, 4, "mine", tmp_path).parts
    assert now[:2] == first[:2] and now[2] != first[2] and len(read) == (2 if tells else 3)


def test_folders_and_patterns_of_a_store_are_read(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name, rows in (("a.csv", ROWS[:3]), ("b/c.jsonl", ROWS[3:]), ("notes.md", ROWS)):
        memory.pipe(f"/lists/{name}", content_of(name if name != "notes.md" else "x.csv", rows))
    try:
        assert listed(source_of("memory://lists"), tmp_path)["url"].to_list() == [row["URL"] for row in ROWS]
        assert count_rows(source_of("memory://lists/*.csv")) == 3
        assert count_rows(source_of("memory://lists/{a.csv,b/c.jsonl}")) == 10
    finally:
        memory.rm("/lists", recursive=True)


def test_an_address_may_be_named_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    store.files["list.csv"] = content_of("list.csv")
    monkeypatch.setenv("LISTS", store.address("").rstrip("/"))
    assert count_rows(source_of("$LISTS/list.csv")) == 10


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (
            "{base}/absent.csv",
            r"source.path: http://127.0.0.1:\d+/absent.csv leads to no list \(.parquet, .csv",
        ),
        ("{base}/damaged.parquet", r"source.path: .*damaged.parquet: cannot be read \("),
        ("http://127.0.0.1:1/list.csv", r"source.path: http://127.0.0.1:1/list.csv"),
        (
            "nosuch://bucket/list.csv",
            r"source.path: nosuch://bucket/list.csv: cannot be listed \(ValueError: P",
        ),
        ("memory://absent/*.csv", r"source.path: memory://absent/\*.csv leads to no list"),
    ],
)
def test_an_address_that_leads_to_no_list_is_refused_by_its_name(store: Store, path: str, told: str) -> None:
    store.files["damaged.parquet"] = b"PAR1" + b"x" * 100 + b"PAR1"
    with pytest.raises(ValueError, match=told):
        source = source_of(path.format(base=store.address("").rstrip("/")))
        list_columns(source)
        count_rows(source)


def test_pictures_are_not_read_from_elsewhere() -> None:
    for kind, what in (("webdataset", "tar"), ("tables_of_pictures", "table")):
        with pytest.raises(ValueError, match=rf"source.path: s3://b/a.x: a {what} is read from this machine"):
            count_rows(parse_source({"kind": kind, "path": "s3://b/a.x"}))


def test_a_store_whose_package_is_not_here_is_told() -> None:
    with pytest.raises(
        ValueError, match=r"source.path: gs://bucket/list.csv: needs another package \(.*gcsfs"
    ):
        count_rows(source_of("gs://bucket/list.csv"))
