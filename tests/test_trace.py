"""Rows are found by uid, URL or picture, and URLs are withdrawn from every dataset that lists them."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

from darkroom.cli import app
from darkroom.config.dataset import Download, parse_source
from darkroom.sources.base import Part
from darkroom.sources.table import download_from, write_urls
from darkroom.sources.withdrawn import digest_of, read_withdrawn
from darkroom.store import num_parts, part_name, read_table
from darkroom.trace.rows import find, find_urls
from darkroom.trace.withdraw import withdraw

ROOT = Path(__file__).parents[1]


def make_dataset(root: Path, name: str, pictures: Path, withdrawn: frozenset[str] = frozenset()) -> Path:
    """The first two stages' files of a dataset of a folder with pictures, in parts of two rows."""
    here = root / "results/datasets" / name
    (here / "download").mkdir(parents=True)
    source = parse_source({"kind": "pictures", "folder": str(pictures), "uncaptioned": "keep"})
    write_urls(source, here / "urls.parquet", [], withdrawn=withdrawn)
    for index in range(num_parts(len(read_table(here / "urls.parquet")), 2)):
        files = (here / "download" / f"{part_name(index)}.{ending}" for ending in ("tar", "parquet"))
        download_from(source, Part(here / "urls.parquet", 2 * index, 2, Download(), *files))
    return here


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two datasets; `second.png` of `cats` has the bytes of `other.png` of `dogs`."""
    for folder, names in (("cats", ("first", "second", "third")), ("dogs", ("other", "third"))):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(names):
            Image.new("RGB", (50 + number, 40), (0, 20 * len(folder + name), 9)).save(
                tmp_path / folder / f"{name}.png"
            )
    shutil.copy(tmp_path / "cats/second.png", tmp_path / "dogs/other.png")
    for name in ("cats", "dogs"):
        make_dataset(tmp_path, name, tmp_path / name)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def darkroom(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def urls(found: list) -> list[tuple[str, str]]:  # type: ignore[type-arg]
    return [(one.dataset, one.row["url"]) for one in found]


def test_a_row_is_found_by_its_uid_its_url_and_its_picture_in_every_dataset(project: Path) -> None:
    rows = read_table(project / "results/datasets/cats/download/part-00000.parquet").sort("row")
    (first, second) = rows.to_dicts()
    assert urls(find(first["uid"])) == urls(find(first["url"])) == [("cats", "local:first.png")]
    assert urls(find("local:third.png")) == [("cats", "local:third.png"), ("dogs", "local:third.png")]
    fetched = find("cats/second.png")
    assert urls(fetched) == [("cats", "local:second.png"), ("dogs", "local:other.png")]
    assert all("its bytes are those that were downloaded" in one.how for one in fetched)
    tar = (project / "results/datasets/cats/download/part-00000.tar").read_bytes()
    Path("stored.jpg").write_bytes(tar[second["offset"] :][: second["size"]])
    stored = find("stored.jpg")
    assert urls(stored) == urls(fetched) and all("re-encoded" in one.how for one in stored)
    Image.open("cats/second.png").resize((20, 20)).save("smaller.png")
    assert find("smaller.png") == []
    assert darkroom("trace", "smaller.png")[0] == 1
    code, told = darkroom("trace", "nothing")
    assert code == 2 and "is no file here, no uid" in told


def test_a_dataset_whose_tars_are_gone_is_still_traced(project: Path) -> None:
    (project / "results/datasets/cats/download/part-00000.tar").unlink()
    code, told = darkroom("trace", "local:first.png")
    assert code == 0 and "dataset cats, part-00000, row 0" in told and "status: ok, 50x40" in told


def test_a_url_is_withdrawn_from_all_datasets_that_list_it_and_copies_of_its_bytes_are_told(
    project: Path,
) -> None:
    code, told = darkroom("withdraw", "local:third.png")
    assert code == 0 and "cats: 1 withdrawn now (config/withdrawn/cats.txt)" in told and "dogs: 1" in told
    assert read_withdrawn("cats") == read_withdrawn("dogs") == {digest_of("local:third.png")}
    code, told = darkroom("withdraw", "local:second.png")
    assert "cats: 1 withdrawn now" in told and "dogs: " in told.partition("under 1 other URLs")[2]
    assert digest_of("local:other.png") not in read_withdrawn("dogs")
    assert len(read_withdrawn("cats")) == 2
    found = darkroom("trace", "local:second.png")[1]
    assert found.startswith("withdrawn from cats (config/withdrawn/cats.txt)\n")


def test_urls_are_named_by_a_file_and_by_uids_and_one_dataset_alone_may_be_named(project: Path) -> None:
    Path("urls.txt").write_text("local:first.png\n\nlocal:third.png\n")
    uid = find("local:second.png")[0].row["uid"]
    code, told = darkroom("withdraw", "--file", "urls.txt", "--uid", uid)
    assert code == 0 and "cats: 3 withdrawn now" in told and "dogs: 1 withdrawn now" in told
    code, told = darkroom("withdraw", "--dataset", "demo", "http://a.example/1.jpg")
    assert code == 0 and read_withdrawn("demo") == {digest_of("http://a.example/1.jpg")}
    assert len(read_withdrawn("cats")) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give URLs, --file or --uid"),
        (("http://a.example/1.jpg",), "http://a.example/1.jpg: no list in results/datasets has this URL"),
        (("--uid", "0" * 32), f"--uid {'0' * 32}: no row of results/datasets has this uid"),
        (("--dataset", "absent", "local:first.png"), "no dataset 'absent'"),
        (("--file", "absent.txt"), "absent.txt"),
    ],
)
def test_what_cannot_be_withdrawn_is_told_and_nothing_is_recorded(
    project: Path, arguments: tuple[str, ...], told: str
) -> None:
    code, said = (
        darkroom("withdraw", "local:first.png", *arguments)
        if "--uid" in arguments
        else darkroom("withdraw", *arguments)
    )
    assert code == 2 and told in said
    assert not Path("config/withdrawn").exists()


def test_a_record_that_is_damaged_is_refused_and_left_as_it_is(project: Path) -> None:
    path = Path("config/withdrawn/cats.txt")
    path.parent.mkdir()
    path.write_text("nothing of the kind\n")
    code, said = darkroom("withdraw", "local:first.png")
    assert code == 2 and "config/withdrawn/cats.txt: line 1 should be the SHA-256" in said
    assert path.read_text() == "nothing of the kind\n"


def test_a_picture_of_a_folder_that_was_withdrawn_is_not_opened(project: Path) -> None:
    made = withdraw(["local:first.png"], "cats")
    assert made["cats"].parts == ["part-00000"]
    shutil.rmtree("results/datasets/cats")
    here = make_dataset(project, "cats", project / "cats", read_withdrawn("cats"))
    row = read_table(here / "download/part-00000.parquet").filter(pl.col("row") == 0).to_dicts()[0]
    assert row["status"] == "no_url" and row["url"] is None and row["sha256"] is None
    assert urls(find_urls({digest_of("local:first.png")})) == []
    content = b"".join(path.read_bytes() for path in here.rglob("*") if path.is_file())
    assert b"first.png" not in content
