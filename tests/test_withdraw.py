"""Withdrawn URLs: what is recorded, which parts change, and that no trace is left in what is made from then on."""

import csv
import io
import random
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import TinyProject
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from darkroom.config.dataset import parse_source
from darkroom.download.policy import parse_url
from darkroom.download.status import FetchError
from darkroom.sources.table import list_columns, look_at, write_urls
from darkroom.sources.withdrawn import (
    canonical,
    digest_of,
    emptied,
    read_withdrawn,
    withdrawn_path,
    write_withdrawn,
)
from darkroom.store import read_table, sha256_file

# The record


@given(st.sets(st.text(min_size=1), max_size=20))
def test_what_is_recorded_is_read_again_and_stands_sorted(urls: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        digests = {digest_of(url) for url in urls}
        path = write_withdrawn("mine", digests, folder)
        assert path == withdrawn_path("mine", folder) and read_withdrawn("mine", folder) == digests
        lines = path.read_text().splitlines()
        assert lines[0].startswith("#") and lines[1:] == sorted(digests)
        assert not any(url in line for url in urls if len(url) > 9 for line in lines[1:])


def test_no_file_is_none_withdrawn_and_a_line_that_is_no_digest_is_refused_by_its_number(
    tmp_path: Path,
) -> None:
    assert read_withdrawn("mine", tmp_path) == frozenset()
    path = withdrawn_path("mine", tmp_path)
    path.parent.mkdir()
    path.write_text(f"# words\n\n{digest_of('a')}\nhttp://a.example/1.jpg\n")
    with pytest.raises(ValueError, match=r"withdrawn/mine.txt: line 4 should be the SHA-256 of a URL"):
        read_withdrawn("mine", tmp_path)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"withdrawn/mine.txt: is no text in UTF-8"):
        read_withdrawn("mine", tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "HTTP://A.example/a%20b.jpg?x=1",
        "http://a.example:80/a b.jpg?x=1",
        "  http://a.example/a b.jpg?x=1#top",
    ],
)
def test_urls_that_ask_for_the_same_are_the_same(url: str) -> None:
    assert canonical(url) == "http://a.example/a%20b.jpg?x=1"
    assert digest_of(url) == digest_of("http://a.example/a%20b.jpg?x=1")


@given(st.from_regex(r"https?://[a-z0-9][a-z0-9.-]{0,9}[a-z0-9]/[ -~]{0,12}", fullmatch=True))
def test_what_is_the_same_is_what_is_asked_for(url: str) -> None:
    try:
        target = parse_url(url)
    except FetchError:
        assert canonical(url) in (url, url.strip())
        return
    assert canonical(url) == f"{target.scheme}://{target.host_header}{target.path}"
    assert canonical(canonical(url)) == canonical(url)


def test_urls_that_ask_for_something_else_are_others() -> None:
    urls = [
        "http://a.example/A",
        "http://a.example/a",
        "https://a.example/a",
        "http://a.example/a?b",
        "local:a#b",
    ]
    assert len({digest_of(url) for url in urls}) == len(urls)


# The list

ROWS = [(f"http://a.example/{i}.jpg", f"picture {i}", i / 8) for i in range(12)]


def write_csv(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["URL", "TEXT", "score"][: len(rows[0])])
        out.writerows(rows)
    return path


def test_a_withdrawn_row_is_one_that_the_list_leaves_empty_and_only_its_part_changes(tmp_path: Path) -> None:
    source = parse_source({"kind": "list", "path": str(write_csv(tmp_path / "list.csv", ROWS))})
    columns, gone = list(list_columns(source)), {digest_of("http://A.EXAMPLE/6.jpg")}
    before = look_at(source, 5, "mine", tmp_path / "a").parts
    now = look_at(source, 5, "mine", tmp_path / "a", gone)
    assert [a == b for a, b in zip(now.parts, before, strict=True)] == [True, False, True]
    write_urls(source, tmp_path / "urls.parquet", columns, now.path)
    write_urls(source, tmp_path / "alone.parquet", columns, withdrawn=gone)
    # A list that never had it.
    write_csv(tmp_path / "list.csv", [row if row[0] != ROWS[6][0] else ("", "", "") for row in ROWS])
    never = look_at(source, 5, "mine", tmp_path / "b")
    assert never.parts == now.parts
    write_urls(source, tmp_path / "never.parquet", columns, never.path)
    digests = {sha256_file(tmp_path / f"{name}.parquet") for name in ("urls", "alone", "never")}
    assert len(digests) == 1
    row = read_table(tmp_path / "urls.parquet").row(6, named=True)
    assert row.pop("row") == 6 and set(row.values()) == {None}


def test_what_is_withdrawn_no_longer_is_there_again(tmp_path: Path) -> None:
    source = parse_source({"kind": "list", "path": str(write_csv(tmp_path / "list.csv", ROWS))})
    before = look_at(source, 5, "mine", tmp_path / "a").parts
    assert look_at(source, 5, "mine", tmp_path / "a", {digest_of(ROWS[0][0])}).parts != before
    assert look_at(source, 5, "mine", tmp_path / "a").parts == before


def test_rows_that_share_a_withdrawn_url_are_all_empty(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[1], (ROWS[0][0], "another caption", 1), (f"{ROWS[0][0]}#x", "a third one", 2)]
    source = parse_source({"kind": "list", "path": str(write_csv(tmp_path / "list.csv", rows))})
    write_urls(source, tmp_path / "urls.parquet", ["score"], withdrawn={digest_of(ROWS[0][0])})
    found = read_table(tmp_path / "urls.parquet")
    assert found["url"].to_list() == [None, ROWS[1][0], None, None]
    assert found.drop("row", "url").filter(found["url"].is_null()).null_count().row(0) == (3,) * 4


def test_nothing_is_copied_where_nothing_is_withdrawn() -> None:
    rows = pl.DataFrame({"url": ["http://a.example/1", None], "caption": ["a", "b"]})
    assert emptied(rows, frozenset()) is rows and emptied(rows, {digest_of("http://b.example")}) is rows


# The whole chain

# The last stage that is made of pictures: what follows is made of its numbers.
STAGE = "measure"
NUM, PER_PART, SECRET = 36, 12, "the-one-that-is-withdrawn"
COLOURS = ("red", "green", "blue", "purple", "orange", "black")


def picture(number: int) -> bytes:
    """A shape on a background with noise, so that no two pictures are alike."""
    rng = random.Random(number)
    image = Image.new("RGB", (96, 80), (rng.randrange(200, 255),) * 3)
    draw = ImageDraw.Draw(image)
    left, top = rng.randrange(4, 40), rng.randrange(4, 30)
    draw.ellipse((left, top, left + 40, top + 40), fill=COLOURS[number % len(COLOURS)])
    for _ in range(60):
        draw.point((rng.randrange(96), rng.randrange(80)), fill=(rng.randrange(256), 0, number))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


class Web(ThreadingHTTPServer):
    """The web: pictures, and how often each was asked for."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pictures = {f"/{name_of(i)}.png": picture(i) for i in range(NUM) if i != 5}
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        content = self.server.pictures.get(self.path)
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def name_of(number: int) -> str:
    return SECRET if number == 17 else f"picture-{number}"


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def listed(web: Web) -> list[tuple[Any, ...]]:
    return [
        (
            f"http://127.0.0.1:{web.server_port}/{name_of(i)}.png",
            f"a photo of a {COLOURS[i % 6]} circle, {name_of(i)}",
        )
        for i in range(NUM)
    ]


def with_list(project: TinyProject, rows: list[tuple[Any, ...]]) -> TinyProject:
    """A tiny project whose dataset is a list of these pictures."""
    values = project.read("config/datasets/demo.yaml")
    values |= {"source": {"kind": "list", "path": "list.csv"}, "rows_per_part": PER_PART}
    values["keep"] = [{"column": "min_side_px", "min": 64}, {"column": "duplicate", "equals": False}]
    project.write("config/datasets/demo.yaml", values)
    project.edit("config/runs/demo.yaml", {"evaluate": {"num_bootstrap": 10}})
    write_csv(project.folder / "list.csv", rows)
    return project


def files_of(project: TinyProject, *folders: str) -> dict[str, Path]:
    return {
        path.relative_to(project.folder).as_posix(): path
        for folder in folders
        for path in sorted((project.folder / folder).rglob("*"))
        # Drivers count their locks.
        if path.is_file() and not path.is_symlink() and ".driver" not in path.parts
    }


@pytest.fixture(scope="module")
def made(make_tiny_project: Callable[[str], TinyProject], web: Web) -> TinyProject:
    """A project after a whole run, with the picture in it."""
    project = with_list(make_tiny_project("with"), listed(web))
    project.run("snakemake", STAGE, "--quiet", "all")
    return project


def jpeg_of(project: TinyProject, row: dict[str, Any], part: str) -> bytes:
    tar = (project.results("download") / f"{part}.tar").read_bytes()
    return tar[row["offset"] : row["offset"] + row["size"]]


@pytest.mark.slow
def test_a_picture_is_traced_by_its_url_its_uid_and_its_bytes_as_fetched_and_as_stored(
    made: TinyProject, web: Web, tmp_path: Path
) -> None:
    url = listed(web)[17][0]
    by_url = made.run("darkroom", "trace", url)
    rows = read_table(made.results("download") / "part-00001.parquet").filter(pl.col("url") == url)
    (row,) = rows.to_dicts()
    for told in (
        f"dataset demo, part-00001, row 17, uid {row['uid']}",
        "status: ok, 96x80",
        "scores: clip_duplicate False, ",
        "kept by the filter",
        "caption, long: ",
        "bucket ",
        "part-00001.safetensors",
        "run demo: trained on it: results/runs/demo/train/model, checkpoints/demo",
        "run demo: among the real pictures of ",
        "frechet_clip_distance",
    ):
        assert told in by_url, by_url
    assert made.run("darkroom", "trace", row["uid"]) == by_url
    (tmp_path / "fetched.png").write_bytes(picture(17))
    (tmp_path / "stored.jpg").write_bytes(jpeg_of(made, row, "part-00001"))
    fetched, stored = (
        made.run("darkroom", "trace", str(tmp_path / name)) for name in ("fetched.png", "stored.jpg")
    )
    assert "its bytes are those that were downloaded (stored re-encoded as a JPEG of 96x80)" in fetched
    assert "it is the JPEG that was stored" in stored and row["uid"] in stored and row["uid"] in fetched
    failed = made.run("darkroom", "trace", listed(web)[5][0])
    assert "status: http_404" in failed and "dropped by the filter: download" in failed
    assert "trained" not in failed and "cache" not in failed
    (tmp_path / "other.png").write_bytes(picture(99))
    for what in (str(tmp_path / "other.png"), "http://127.0.0.1/nowhere.jpg"):
        assert re.search(
            r"nothing here was downloaded|no row of", made.run("darkroom", "trace", what, check=False)
        )
    assert "is no file here, no uid" in made.run("darkroom", "trace", "nothing", check=False)


@pytest.mark.slow
def test_a_run_after_a_withdrawal_is_byte_for_byte_one_that_never_had_the_url(
    made: TinyProject, make_tiny_project: Callable[[str], TinyProject], web: Web
) -> None:
    url, other = listed(web)[17][0], "http://127.0.0.1/not-in-the-list.png"
    refused = made.run("darkroom", "withdraw", url, other, check=False)
    assert "no list in results/datasets has this URL" in refused
    assert not (made.folder / "config/withdrawn").exists()
    told = made.run("darkroom", "withdraw", url)
    assert "demo: 1 withdrawn now (config/withdrawn/demo.txt)" in told
    assert "to be made again: part-00001, and what follows" in told
    commands = "snakemake filter --config run=demo; snakemake --config run=demo"
    assert f"run demo was trained on them: {commands}" in told
    assert "rm -r checkpoints/demo" in told
    assert "1 before" in made.run("darkroom", "withdraw", url)
    assert url not in (made.folder / "config/withdrawn/demo.txt").read_text()

    planned = made.run("snakemake", "-n", STAGE)
    parts = re.findall(r"rule download_part:.*?part=(part-\d+)", planned, re.DOTALL)
    assert parts == ["part-00001"] and {"train_run", "measure_metric"} <= made.planned(STAGE)
    tars = [made.results("download") / f"part-{number:05d}.tar" for number in (0, 2)]
    kept = [tar.stat().st_mtime_ns for tar in tars]
    made.run("snakemake", "filter", "--quiet", "all")
    # The costly stages are for that part alone.
    planned = made.run("snakemake", "-n", STAGE)
    costly = re.findall(r"rule (?:recaption|cache)_part:.*?part=(part-\d+)", planned, re.DOTALL)
    assert costly == ["part-00001"] * 2
    made.run("snakemake", STAGE, "--quiet", "all")
    made.run("rm", "-r", "checkpoints/demo")
    assert made.planned(STAGE) == set()
    assert "urls.parquet" not in made.run("darkroom", "verify", "demo", check=False)
    assert [tar.stat().st_mtime_ns for tar in tars] == kept

    rows = [row if row[0] != url else ("", "") for row in listed(web)]
    never = with_list(make_tiny_project("never"), rows)
    never.run("snakemake", STAGE, "--quiet", "all")
    ours, theirs = files_of(made, "results"), files_of(never, "results")
    assert set(ours) == set(theirs) and len(ours) > 60
    assert [name for name in ours if sha256_file(ours[name]) != sha256_file(theirs[name])] == []
    statuses = read_table(made.results("download") / "part-00001.parquet")["status"].to_list()
    assert sorted(statuses) == ["no_url", *["ok"] * (PER_PART - 1)]

    # Nothing names it any more, wherever this project wrote.
    for name, path in files_of(made, "results", "checkpoints", "logs", ".snakemake", "config").items():
        assert SECRET.encode() not in path.read_bytes(), name
    again = made.run("darkroom", "trace", url, check=False)
    assert "withdrawn from demo (config/withdrawn/demo.txt)" in again and "no row of" in again
