"""Lists that have hashes of their files: what arrives is compared, and the answer is a column."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from test_download_server import GOOD, Server, serving, settings

from darkroom.config.dataset import Dataset, parse_source
from darkroom.download import journal
from darkroom.download.before import set_aside
from darkroom.filter import check_criteria
from darkroom.sources.base import Part
from darkroom.sources.table import download_from, list_columns, write_urls
from darkroom.store import read_table, sha256_file, write_part_manifest

SHA256, MD5 = hashlib.sha256(GOOD).hexdigest(), hashlib.md5(GOOD).hexdigest()
HASHES = [SHA256, f" {SHA256.upper()}\n", MD5, "0" * 64, "0" * 32, "no hash", None, SHA256, SHA256]
SAME = [True, True, True, False, False, None, None, None, False]
KEPT = [SHA256, SHA256, MD5, "0" * 64, "0" * 32, None, None, SHA256, SHA256]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        for number in range(7):
            running.routes[f"/{number}.jpg"] = running.routes["/good.jpg"]
        yield running


def listed(folder: Path, server: Server, ending: str = ".parquet") -> Any:
    paths = [*(f"/{number}.jpg" for number in range(7)), "/404.jpg", "/page.jpg"]
    rows = pl.DataFrame(
        {"URL": [server.base + path for path in paths], "TEXT": paths, "Digest": HASHES, "n": range(9)}
    )
    path = folder / f"list{ending}"
    rows.write_parquet(path) if ending == ".parquet" else rows.write_csv(path)
    return parse_source({"kind": "list", "path": str(path), "hash_column": "Digest"})


def part_of(source: Any, folder: Path, **more: Any) -> Part:
    folder.mkdir(exist_ok=True)
    num = write_urls(source, folder / "urls.parquet", list(list_columns(source)))
    place = folder / "part-00000.tar", folder / "part-00000.parquet"
    return Part(folder / "urls.parquet", 0, num, settings(), *place, **more)


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_what_arrives_is_compared_with_the_hash_of_the_list(
    tmp_path: Path, server: Server, ending: str
) -> None:
    source = listed(tmp_path, server, ending)
    part = part_of(source, tmp_path / "out")
    download_from(source, part)
    table = read_table(part.table).sort("row")
    assert table["same_bytes"].to_list() == SAME and table["listed_hash"].to_list() == KEPT
    assert table["n"].to_list() == list(range(9)) and "Digest" not in table.columns


def test_a_list_without_hashes_has_neither_column(tmp_path: Path, server: Server) -> None:
    source = listed(tmp_path, server).model_copy(update={"hash_column": None})
    assert source.model_dump(mode="json").keys() == {"kind", "path", "url_column", "caption_column"}
    part = part_of(source, tmp_path / "out")
    download_from(source, part)
    columns = read_table(part.table).columns
    assert "Digest" in columns and not {"listed_hash", "same_bytes"} & {*columns}


def test_the_answer_outlives_kills_changes_of_the_list_and_rounds_of_retries(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = listed(tmp_path, server)
    part = part_of(source, tmp_path / "out")

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("darkroom.download.stage.write_part", dies)
        with pytest.raises(KeyboardInterrupt):
            download_from(source, part)
    before = dict(server.requests)
    download_from(source, part)
    assert server.requests == before, "all was in the journal"
    table = read_table(part.table).sort("row")
    assert table["same_bytes"].to_list() == SAME
    # The list changes elsewhere: what the part has is taken over.
    manifest = tmp_path / "out/part-00000.json"
    write_part_manifest(manifest, [part.tar, part.table], {"rows": 9}, "settings")
    first = sha256_file(part.table)
    assert set_aside(part.tar, "settings")
    for path in (part.tar, part.table, manifest):
        Path(path).unlink()
    journal.forget(part.tar)
    download_from(source, part)
    assert server.requests == before and sha256_file(part.table) == first
    # A row that failed for a while is compared when it is fetched again.
    server.routes["/0.jpg"] = server.routes["/reset.jpg"]
    broken = part_of(source, tmp_path / "broken")
    download_from(source, broken)
    assert read_table(broken.table).filter(row=0)["same_bytes"].to_list() == [None]
    server.routes["/0.jpg"] = server.routes["/good.jpg"]
    place = tmp_path / "broken/part-r01-00000"
    again = Part(
        broken.urls, 0, 9, settings(), place.with_suffix(".tar"), place.with_suffix(".parquet"), round=1,
        retry_of=[broken.table],
    )  # fmt: skip
    download_from(source, again)
    assert read_table(again.table).filter(row=0)["same_bytes"].to_list() == [True]


def test_a_criterion_may_ask_for_the_same_bytes_where_the_list_has_hashes(
    tmp_path: Path, server: Server
) -> None:
    values = {"description": "d", "recaption": None, "keep": [{"column": "same_bytes", "equals": True}]}
    source = listed(tmp_path, server)
    check_criteria(Dataset(source=source.model_dump(), **values), list_columns(source))
    without = source.model_copy(update={"hash_column": None})
    with pytest.raises(ValueError, match="no column 'same_bytes'"):
        check_criteria(Dataset(source=without.model_dump(), **values), list_columns(without))
    with pytest.raises(
        ValueError, match=r"no column 'md5' \(source.hash_column\); it has URL, TEXT, Digest, n"
    ):
        part_of(source.model_copy(update={"hash_column": "md5"}), tmp_path / "out")


def test_one_of_several_sources_may_have_hashes(tmp_path: Path, server: Server) -> None:
    own = listed(tmp_path, server)
    other = {"kind": "list", "path": own.path, "caption_column": "URL"}
    source = parse_source({"kind": "several", "of": [
        {"name": "hashed", "source": own.model_dump()}, {"name": "plain", "source": other},
    ]})  # fmt: skip
    part = part_of(source, tmp_path / "out")
    download_from(source, part)
    table = read_table(part.table).sort("row")
    assert table.filter(source_name="hashed")["same_bytes"].to_list() == SAME
    assert table.filter(source_name="plain")["same_bytes"].to_list() == [None] * 9
