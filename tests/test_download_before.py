"""A part whose rows changed takes over what it had: nothing is fetched again that the web may have lost since."""

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from conftest import TinyProject
from test_download_journal import HOST, bytes_of, listed, make
from test_download_server import Server, serving

from darkroom.download import before
from darkroom.store import read_table, write_part_manifest

NAMES = [f"/{i}.jpg" for i in range(8)]
TAR = "part-00000.tar"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        for name in NAMES:
            running.routes[name] = running.routes["/good.jpg"]
        running.routes["/3.jpg"] = running.routes["/404.jpg"]
        running.routes["/4.jpg"] = running.routes["/busy.jpg"]
        yield running


def finished(folder: Path, server: Server, rows: Path) -> None:
    """A part that was made, as its job leaves it."""
    make(rows, folder, server)
    files = [folder / TAR, folder / "part-00000.parquet"]
    write_part_manifest(folder / "part-00000.json", files, {}, "these settings")


def without(path: Path, name: str) -> Path:
    """The list with that row left empty."""
    rows = pl.read_parquet(path)
    gone = pl.col("url") == HOST + name
    kept = [pl.when(gone).then(None).otherwise(pl.col(column)).alias(column) for column in ("url", "caption")]
    rows.with_columns(kept).write_parquet(path.with_name("without.parquet"))
    return path.with_name("without.parquet")


def test_rows_that_stay_are_not_fetched_again_and_the_bytes_are_those_of_a_part_made_anew(
    server: Server, tmp_path: Path
) -> None:
    urls = listed(tmp_path / "urls.parquet", NAMES)
    finished(tmp_path / "old", server, urls)
    gone = without(urls, "/5.jpg")
    make(gone, tmp_path / "anew", server)
    server.requests.clear()
    assert before.set_aside(tmp_path / "old" / TAR, "these settings")
    # As Snakemake does when the job begins.
    for path in (tmp_path / "old").glob("part-*"):
        path.unlink()
    make(gone, tmp_path / "old", server)
    assert set(server.requests) == set()
    assert bytes_of(tmp_path / "old") == bytes_of(tmp_path / "anew")
    assert list((tmp_path / "old").glob(".*")) == []
    assert HOST.encode() + b"/5.jpg" not in b"".join(bytes_of(tmp_path / "old"))


def test_a_killed_job_leaves_it_for_the_next_one(server: Server, tmp_path: Path) -> None:
    urls = listed(tmp_path / "urls.parquet", NAMES)
    finished(tmp_path / "old", server, urls)
    assert before.set_aside(tmp_path / "old" / TAR, "these settings")
    found = dict(before.ended_before(tmp_path / "old" / TAR, {0: HOST + NAMES[3], 9: HOST + NAMES[0]}))
    assert found[0].status == "http_404" and found[9].jpeg[:2] == b"\xff\xd8"  # type: ignore[union-attr]
    assert before.before_folder(tmp_path / "old" / TAR).is_dir()


@pytest.mark.parametrize("what", ["other settings", "no manifest", "no tar"])
def test_a_part_that_is_not_whole_or_was_made_otherwise_is_not_set_aside(
    server: Server, tmp_path: Path, what: str
) -> None:
    finished(tmp_path / "old", server, listed(tmp_path / "urls.parquet", NAMES))
    name = {"no manifest": "part-00000.json", "no tar": TAR}.get(what)
    if name:
        (tmp_path / "old" / name).unlink()
    made_with = "these settings" if name else "others"
    assert not before.set_aside(tmp_path / "old" / TAR, made_with)
    assert not before.before_folder(tmp_path / "old" / TAR).exists()


@pytest.mark.parametrize("ending", ["tar", "parquet", "json"])
def test_a_damaged_one_is_not_used(server: Server, tmp_path: Path, ending: str) -> None:
    urls = listed(tmp_path / "urls.parquet", NAMES)
    finished(tmp_path / "old", server, urls)
    expected = bytes_of(tmp_path / "old")
    assert before.set_aside(tmp_path / "old" / TAR, "these settings")
    for path in (tmp_path / "old").glob("part-*"):
        path.unlink()
    path = before.before_folder(tmp_path / "old" / TAR) / f"part-00000.{ending}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    make(urls, tmp_path / "old", server)
    assert (
        bytes_of(tmp_path / "old") == expected and not before.before_folder(tmp_path / "old" / TAR).exists()
    )


@pytest.mark.slow
def test_a_list_that_changes_fetches_only_what_is_new_and_a_forced_part_all(
    make_tiny_project: Callable[[str], TinyProject], server: Server
) -> None:
    project = make_tiny_project("kept")
    values = project.read("config/datasets/demo.yaml")
    values |= {"source": {"kind": "list", "path": "list.csv"}, "rows_per_part": 4, "keep": []}
    # The server has none, and counts what it is asked for.
    values["download"] = {**values["download"], "obey_robots_txt": False}
    project.write("config/datasets/demo.yaml", values)

    def write(names: list[str]) -> None:
        rows = [f"http://127.0.0.1:{server.server_port}{name},{name}" for name in names]
        (project.folder / "list.csv").write_text("\n".join(["URL,TEXT", *rows]) + "\n")

    def asked(*arguments: str) -> set[str]:
        server.requests.clear()
        project.run("snakemake", "download", "--quiet", "all", *arguments)
        return set(server.requests)

    server.routes["/4.jpg"] = server.routes["/good.jpg"]
    write(NAMES[:6])
    assert asked() == set(NAMES[:6])
    write(NAMES)
    assert asked() == set(NAMES[6:8])
    url = f"http://127.0.0.1:{server.server_port}{NAMES[5]}"
    assert "to be made again: part-00001" in project.run("darkroom", "withdraw", url)
    assert asked() == set()
    folder = project.results("download")
    statuses = [read_table(folder / f"part-0000{i}.parquet").sort("row")["status"].to_list() for i in (0, 1)]
    assert statuses == [["ok", "ok", "ok", "http_404"], ["ok", "no_url", "ok", "ok"]]
    assert asked("-R", "download_part") == set(NAMES) - {NAMES[5]}
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
