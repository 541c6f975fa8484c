"""Sources of several kinds in one dataset: each row is what its own source would have made of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image
from test_download_server import Server, serving, settings
from test_tables_of_pictures import table_of
from test_tars import samples

from darkroom.config.dataset import parse_source
from darkroom.sources.base import Part
from darkroom.sources.table import SOURCES, download_from, is_fetched, list_columns, look_at, write_urls
from darkroom.store import TarReader, read_table, sha256_file, write_tar


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def folder_at(path: Path, num: int = 3) -> dict[str, Any]:
    path.mkdir()
    for number in range(num):
        Image.new("RGB", (30 + number, 20), "red").save(path / f"{number}.png")
        (path / f"{number}.txt").write_text(f"in {path.name}, {number}")
    return {"kind": "pictures", "folder": str(path)}


def list_at(path: Path, server: Server, names: list[str]) -> dict[str, Any]:
    rows = [{"URL": server.base + name, "TEXT": name, "width_seen": 7, "nsfw": False} for name in names]
    pl.DataFrame(rows).write_parquet(path)
    return {"kind": "list", "path": str(path)}


def tars_at(path: Path, num: int = 2) -> dict[str, Any]:
    write_tar(path, samples(num))
    return {"kind": "webdataset", "path": str(path)}


def tables_at(path: Path, num: int = 2) -> dict[str, Any]:
    pl.DataFrame(table_of(num)).write_parquet(path)
    return {"kind": "tables_of_pictures", "path": str(path)}


def several(**of: dict[str, Any]) -> Any:
    named = [{"name": name, "source": source} for name, source in of.items()]
    return parse_source({"kind": "several", "of": named}).with_captioner(True)


def parts_of(source: Any, out: Path, rows_per_part: int) -> list[Part]:
    out.mkdir(exist_ok=True)
    look = look_at(source, rows_per_part, "some", out / "kept")
    write_urls(source, out / "urls.parquet", list(list_columns(source)), look.path)
    return [
        Part(out / "urls.parquet", number * rows_per_part, rows_per_part, settings(), out / f"{number}.tar",
             out / f"{number}.parquet", rows=state.rows)
        for number, state in enumerate(look.parts)
    ]  # fmt: skip


def made(source: Any, out: Path, rows_per_part: int = 100) -> pl.DataFrame:
    """The tables of all parts, by row, with the digest of each stored JPEG."""
    tables = []
    for part in parts_of(source, out, rows_per_part):
        counts = download_from(source, part)
        table = read_table(part.table)
        assert counts["rows"] == len(table)
        with TarReader(part.tar) as tar:
            jpegs = [
                tar.read(row["offset"], row["size"]) if row["status"] == "ok" else None
                for row in table.iter_rows(named=True)
            ]
        tables.append(table.with_columns(jpeg=pl.Series(jpegs, dtype=pl.Binary)))
    return pl.concat(tables).sort("row")


def all_kinds(root: Path, server: Server) -> dict[str, dict[str, Any]]:
    return {
        "cats": folder_at(root / "cats"),
        "web": list_at(root / "list.parquet", server, ["/good.jpg", "/404.jpg", "/copy.jpg", "/good.jpg"]),
        "dogs": folder_at(root / "dogs"),
        "tars": tars_at(root / "a.tar"),
        "tables": tables_at(root / "a.parquet"),
    }


@pytest.mark.parametrize("rows_per_part", [2, 5, 100])
def test_every_row_is_what_its_own_source_makes_of_it(
    tmp_path: Path, server: Server, rows_per_part: int
) -> None:
    kinds = all_kinds(tmp_path, server)
    table = made(several(**kinds), tmp_path / "several", rows_per_part)
    assert table["row"].to_list() == list(range(14)) and table["uid"].is_duplicated().sum() == 0
    assert dict(table["source_name"].value_counts(sort=True).iter_rows()) == {
        "cats": 3, "web": 4, "dogs": 3, "tars": 2, "tables": 2,
    }  # fmt: skip
    for name, values in kinds.items():
        own = made(parse_source(values).with_captioner(True), tmp_path / name)
        rows = table.filter(source_name=name)
        same = ["status", "caption", "captions", "sha256", "width", "height", "opt_outs", "jpeg"]
        assert rows.select(same).equals(own.select(same)), name
        if name in ("web", "tars"):
            # Known by an address that others have too.
            there = pl.col("status") == "ok"
            assert rows.filter(there)["uid"].to_list() == own.filter(there)["uid"].to_list()
    assert table.filter(source_name="web")["status"].to_list() == ["ok", "http_404", "ok", "duplicate_url"]
    urls = table.filter(pl.col("source_name").is_in(["cats", "dogs"]))["url"].to_list()
    assert urls == [f"local:{name}/{number}.png" for name in ("cats", "dogs") for number in range(3)]


def test_columns_are_those_of_all_and_null_where_a_source_lacks_one(tmp_path: Path, server: Server) -> None:
    source = several(**all_kinds(tmp_path, server))
    assert list_columns(source) == {
        "source_name": "text", "width_seen": "number", "nsfw": "boolean", "similarity": "number",
        "label": "number",
    }  # fmt: skip
    table = made(source, tmp_path / "out", 4)
    lists = {name: table.filter(source_name=name) for name in ("web", "tars", "cats")}
    assert lists["web"]["width_seen"].to_list() == [7.0] * 4 and lists["web"]["nsfw"].to_list() == [False] * 4
    assert lists["tars"]["similarity"].to_list() == [0, 0.125]
    assert lists["cats"].select("width_seen", "nsfw", "similarity", "label").null_count().row(0) == (3,) * 4


def test_a_killed_part_of_several_asks_the_web_for_nothing_twice(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = several(
        web=list_at(tmp_path / "list.parquet", server, ["/good.jpg", "/copy.jpg"]),
        tars=tars_at(tmp_path / "a.tar"),
    )
    (part,) = parts_of(source, tmp_path / "out", 100)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("darkroom.download.local_files.download_local_part", dies)
        with pytest.raises(KeyboardInterrupt):
            download_from(source, part)
    assert not Path(part.tar).exists() and not Path(part.table).exists()
    download_from(source, part)
    assert server.requests["/good.jpg"] == server.requests["/copy.jpg"] == 1
    assert sorted(path.name for path in (tmp_path / "out").glob("[.0-9]*")) == ["0.parquet", "0.tar"]
    (again,) = parts_of(source, tmp_path / "again", 100)
    download_from(source, again)
    assert sha256_file(again.tar) == sha256_file(part.tar)
    assert sha256_file(again.table) == sha256_file(part.table)


def test_a_source_that_grows_at_the_end_leaves_the_parts_before_it(tmp_path: Path, server: Server) -> None:
    kinds = {"cats": folder_at(tmp_path / "cats"), "tars": tars_at(tmp_path / "a.tar", 2)}
    before = look_at(several(**kinds), 2, "some", tmp_path / "kept")
    tars_at(tmp_path / "a.tar", 4)
    after = look_at(several(**kinds), 2, "some", tmp_path / "kept")
    assert after.num_rows == 7 and after.parts[0] == before.parts[0] and after.parts[1:] != before.parts[1:]
    Image.new("RGB", (33, 20), "blue").save(tmp_path / "cats/0.png")
    changed = look_at(several(**kinds), 2, "some", tmp_path / "kept")
    assert changed.parts[0] != after.parts[0] and changed.parts[2:] == after.parts[2:]


def test_what_cannot_be_one_dataset_is_refused(tmp_path: Path, server: Server) -> None:
    cats, web = folder_at(tmp_path / "cats"), list_at(tmp_path / "list.parquet", server, ["/good.jpg"])
    assert is_fetched(several(cats=cats, web=web)) and not is_fetched(several(cats=cats))
    named = {"name": "cats", "source": cats}
    for of, message in (
        ([named, named], "two sources are called cats"),
        ([], "at least 1 item"),
        ([{"name": "a/b", "source": cats}], "should match pattern"),
        ([{"name": "a", "source": {"kind": "several", "of": [named]}}], "'several' found"),
        (
            [{"name": "me", "source": {
                "kind": "dreambooth", "instance_folder": "a", "instance_prompt": "a",
                "class_folder": "b", "class_prompt": "b",
            }}],
            "me has class pictures",
        ),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            parse_source({"kind": "several", "of": of})
    pl.DataFrame({"URL": ["http://a.example"], "TEXT": ["a"], "nsfw": ["NSFW"]}).write_csv(tmp_path / "b.csv")
    other = {"kind": "list", "path": str(tmp_path / "b.csv")}
    with pytest.raises(ValueError, match=r"source.of: column 'nsfw' is text in more, and boolean in web"):
        look_at(several(web=web, more=other), 5, "some", tmp_path / "kept")
    with pytest.raises(ValueError, match=r"source.of: gone: source.folder: no folder .*nowhere"):
        look_at(several(gone={"kind": "pictures", "folder": "nowhere"}), 5, "some", tmp_path / "kept")


def test_any_kind_may_be_one_of_several() -> None:
    union = SOURCES["several"].section.model_json_schema()["$defs"]
    titles = {spec.section.__name__ for name, spec in SOURCES.items() if name != "several"}
    assert titles <= union.keys()
