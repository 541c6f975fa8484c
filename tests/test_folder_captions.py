"""Captions of folders of pictures as people keep them: lists of Hugging Face, files of several kinds, or none."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image
from test_folders import captioned, picture, read_in, source_of

from darkroom.config import ConfigError, load_dataset
from darkroom.config.dataset import parse_source
from darkroom.sources.table import count_rows, list_columns, write_urls
from darkroom.store import read_table

METADATA = [
    {"file_name": "one.png", "text": "a red thing", "score": 0.5, "split": "train"},
    {"file_name": "deep/two.png", "text": "deeper", "score": None, "split": "test"},
    {"file_name": "gone.png", "text": "not here", "score": 1.0, "split": "test"},
]


def write_metadata(path: Path, rows: list[dict[str, Any]] = METADATA) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            out = csv.DictWriter(file, list(rows[0]))
            out.writeheader()
            out.writerows(rows)


def ends(table: pl.DataFrame) -> dict[str, str]:
    return dict(zip(table["url"].str.strip_prefix("local:"), table["status"], strict=True))


def captions(table: pl.DataFrame) -> dict[str, str | None]:
    return dict(zip(table["url"].str.strip_prefix("local:"), table["caption"], strict=True))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_an_image_folder_of_hugging_face_has_its_captions_and_its_columns(
    tmp_path: Path, ending: str
) -> None:
    folder = tmp_path / "mine"
    for name in ("one.png", "deep/two.png", "untold.png"):
        picture(folder / name)
    write_metadata(folder / f"metadata.{ending}")
    source = source_of(folder)
    assert list_columns(source) == {"score": "number", "split": "text"}
    table, counts = read_in(source, tmp_path / "out", columns=["score", "split"])
    assert captions(table) == {
        "one.png": "a red thing",
        "deep/two.png": "deeper",
        "untold.png": None,
        "gone.png": "not here",
    }
    assert ends(table) == {
        "one.png": "ok", "deep/two.png": "ok", "untold.png": "no_caption", "gone.png": "no_picture"
    }  # fmt: skip
    assert counts["rows"] == 4
    told = dict(zip(table["url"], zip(table["score"], table["split"], strict=True), strict=True))
    assert told["local:one.png"] == (0.5, "train") and told["local:untold.png"] == (None, None)


def test_a_list_in_a_subfolder_tells_of_that_and_before_the_outer_one(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for name in ("one.png", "train/one.png", "train/two.png"):
        picture(folder / name)
    write_metadata(
        folder / "metadata.jsonl", [{"file_name": n, "text": "outer"} for n in ("one.png", "train/one.png")]
    )
    inner = [{"file_name": "one.png", "caption": "inner"}, {"file_name": "./two.png", "caption": "inner too"}]
    write_metadata(folder / "train/metadata.csv", inner)
    table, _ = read_in(source_of(folder), tmp_path / "out")
    assert captions(table) == {"one.png": "outer", "train/one.png": "inner", "train/two.png": "inner too"}


def test_a_picture_may_have_several_captions_in_a_list_a_text_or_json(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png"):
        picture(folder / name)
    told = [("a.png", ["one", "two"]), ("e.png", "x"), ("./e.png", "y"), ("e.png", "x")]
    write_metadata(folder / "metadata.jsonl", [{"file_name": name, "text": text} for name, text in told])
    (folder / "b.txt").write_text("first line\n\n  second   line \n")
    (folder / "c.json").write_text(json.dumps({"url": "http://x", "captions": ["x", "", 3, "y"]}))
    (folder / "d.json").write_text(json.dumps({"description": "alone"}))
    lines, _ = read_in(source_of(folder, one_caption_a_line=True), tmp_path / "out")
    assert lines["captions"].to_list() == [
        ["one", "two"], ["first line", "second line"], ["x", "y"], None, ["x", "y"]
    ]  # fmt: skip
    firsts = {"a.png": "one", "b.png": "first line", "c.png": "x", "d.png": "alone", "e.png": "x"}
    assert captions(lines) == firsts
    whole, _ = read_in(source_of(folder), tmp_path / "out2")
    assert captions(whole)["b.png"] == "first line second line" and whole["captions"][1] is None


def test_the_name_of_captions_may_be_said(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    picture(folder / "one.png")
    picture(folder / "two.png")
    write_metadata(folder / "metadata.csv", [{"file_name": "one.png", "text": "no", "blip": "yes"}])
    (folder / "two.json").write_text('{"text": "no", "blip": "yes too"}')
    table, _ = read_in(source_of(folder, caption_key="blip"), tmp_path / "out")
    assert set(captions(table).values()) == {"yes", "yes too"}
    with pytest.raises(
        ValueError, match=r"metadata.csv: no captions: none of its keys is wrong; .*caption_key"
    ):
        count_rows(source_of(folder, caption_key="wrong"))


def test_what_img2dataset_writes_as_files_is_read_by_its_texts(tmp_path: Path) -> None:
    captioned(tmp_path / "mine", "000000000.png", "as listed")
    (tmp_path / "mine/000000000.json").write_text('{"caption": "in the json", "url": "http://x"}')
    (tmp_path / "mine/00000_stats.json").write_text("{}")
    source = source_of(tmp_path / "mine")
    table, counts = read_in(source, tmp_path / "out")
    assert table["caption"].to_list() == ["as listed"] and counts["rows"] == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            '{"file_name": "one.png"}',
            r"metadata.jsonl: no captions: none of its keys is caption or captions or",
        ),
        ('{"text": "a"}', r"metadata.jsonl: no column 'file_name' \(which names the pictures\); it has text"),
        ('{"file_name": "one.png", "text"', r"metadata.jsonl: line 1 is no JSON"),
        ('{"file_name": null, "text": "a"}', r"metadata.jsonl: a row has no file_name"),
        ("", r"metadata.jsonl: is empty"),
    ],
)
def test_a_list_that_is_wrong_is_refused_by_its_name(tmp_path: Path, content: str, told: str) -> None:
    picture(tmp_path / "one.png")
    (tmp_path / "metadata.jsonl").write_text(content)
    with pytest.raises(ValueError, match=told):
        list_columns(source_of(tmp_path))
        count_rows(source_of(tmp_path))


def test_two_lists_in_one_folder_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "one.png")
    write_metadata(tmp_path / "metadata.jsonl")
    write_metadata(tmp_path / "metadata.csv")
    with pytest.raises(
        ValueError, match=r"metadata.csv and metadata.jsonl both tell of one folder's pictures"
    ):
        count_rows(source_of(tmp_path))


@pytest.mark.parametrize("follow_links", [False, True])
def test_a_list_leads_to_no_file_outside_its_folder(tmp_path: Path, follow_links: bool) -> None:
    secret, folder = picture(tmp_path / "secret.png"), tmp_path / "mine"
    picture(folder / "one.png")
    names = ["one.png", "../secret.png", str(secret), "deep/../../other.png", "metadata.jsonl", "a\nb.png"]
    write_metadata(folder / "metadata.jsonl", [{"file_name": name, "text": "t"} for name in names])
    table, counts = read_in(source_of(folder, follow_links=follow_links), tmp_path / "out")
    assert counts["status"] == {"ok": 1, "blocked_path": 3, "no_picture": 1, "not_an_image": 1}
    assert table.filter(status="ok")["url"].to_list() == ["local:one.png"]


# Without captions.


def write_dataset(folder: Path, recaption: str) -> None:
    (folder / "config/datasets").mkdir(parents=True, exist_ok=True)
    (folder / "config/datasets/mine.yaml").write_text(
        f"description: d\nsource: {{kind: pictures, folder: {folder / 'mine'}}}\nrecaption: {recaption}\n"
    )


def test_pictures_without_captions_are_welcome_where_a_captioner_is_set(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"mine/{number}.png")
    write_dataset(tmp_path, "{captioner: c, captions: {long: {prompt: l}}}")
    dataset = load_dataset("mine", tmp_path)
    assert count_rows(dataset.source) == 3
    table, counts = read_in(dataset.source, tmp_path / "out")
    assert counts["status"] == {"ok": 3} and table["caption"].is_null().all()
    # Jobs read the source as the dataset has it.
    assert parse_source(dataset.source.model_dump(mode="json")) == dataset.source
    write_dataset(tmp_path, "null")
    with pytest.raises(
        ValueError, match=r"no picture has a caption; .* in 0.txt. `source.uncaptioned: keep`"
    ):
        count_rows(load_dataset("mine", tmp_path).source)
    (tmp_path / "mine/1.txt").write_text("one of them")
    _, counts = read_in(load_dataset("mine", tmp_path).source, tmp_path / "out")
    assert counts["status"] == {"ok": 1, "no_caption": 2}


@pytest.mark.parametrize(
    ("uncaptioned", "status"), [("keep", {"ok": 2}), ("drop", {"ok": 1, "no_caption": 1})]
)
def test_whether_they_are_kept_may_be_said(tmp_path: Path, uncaptioned: str, status: dict[str, int]) -> None:
    captioned(tmp_path / "mine", "one.png", "a caption")
    picture(tmp_path / "mine/two.png")
    source = source_of(tmp_path / "mine", uncaptioned=uncaptioned)
    for has_captioner in (True, False):
        _, counts = read_in(source.with_captioner(has_captioner), tmp_path / "out")
        assert counts["status"] == status
    with pytest.raises(ConfigError, match=r"source.uncaptioned"):
        write_dataset(tmp_path, "null")
        path = tmp_path / "config/datasets/mine.yaml"
        path.write_text(path.read_text().replace("}", ", uncaptioned: maybe}"))
        load_dataset("mine", tmp_path)


# Links.


def snapshot(root: Path, num: int = 3) -> Path:
    """As huggingface_hub lays a data set out: links in snapshots/COMMIT to what lies in blobs."""
    folder = root / "snapshots/0a1b"
    folder.mkdir(parents=True)
    (root / "blobs").mkdir()
    for number in range(num):
        for ending, blob in (("png", f"p{number}"), ("txt", f"t{number}")):
            path = root / "blobs" / blob
            if ending == "png":
                Image.new("RGB", (20, 10), (number, 0, 0)).save(path, format="PNG")
            else:
                path.write_text(f"caption {number}")
            (folder / f"{number}.{ending}").symlink_to(f"../../blobs/{blob}")
    return folder


def test_a_snapshot_of_hugging_face_is_read_where_links_are_followed_and_else_refused(tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "hub")
    with pytest.raises(
        ValueError, match=r"all of its 3 pictures are links, .*; write source.follow_links: true"
    ):
        count_rows(source_of(folder))
    table, counts = read_in(source_of(folder, follow_links=True), tmp_path / "out")
    assert counts["status"] == {"ok": 3}
    assert captions(table) == {f"{number}.png": f"caption {number}" for number in range(3)}


def test_links_are_followed_or_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, other = tmp_path / "mine", tmp_path / "other"
    captioned(folder, "own.png", "own")
    captioned(other, "one.png", "elsewhere")
    captioned(other, "deep/two.png", "elsewhere too")
    (folder / "away").symlink_to(other)
    (folder / "home").symlink_to(folder)
    captioned(folder, "caption.png", "not this")
    (folder / "caption.txt").unlink()
    (folder / "caption.txt").symlink_to(other / "one.txt")
    caplog.set_level("INFO")
    table, _ = read_in(source_of(folder), tmp_path / "out")
    blocked = dict.fromkeys(("away", "home", "caption.png"), "blocked_path")
    assert ends(table) == {"own.png": "ok", **blocked}
    assert captions(table)["caption.png"] is None
    assert "urls: 3 links are not followed (source.follow_links)" in caplog.text
    caplog.clear()
    table, _ = read_in(source_of(folder, follow_links=True), tmp_path / "out")
    # A link to a folder that it lies in is never followed.
    assert ends(table) == {
        **dict.fromkeys(("own.png", "away/one.png", "away/deep/two.png", "caption.png"), "ok"),
        "home": "blocked_path",
    }
    assert captions(table)["caption.png"] == "elsewhere"
    assert "urls: 2 links were followed" in caplog.text and "1 links are not followed" in caplog.text


def test_a_folder_that_is_a_link_itself_is_one_like_any_other(tmp_path: Path) -> None:
    captioned(tmp_path / "real", "one.png", "one")
    (tmp_path / "mine").symlink_to(tmp_path / "real")
    _, counts = read_in(source_of(tmp_path / "mine"), tmp_path / "out")
    assert counts["status"] == {"ok": 1}


def test_a_folder_of_links_to_folders_is_refused_where_they_are_not_followed(tmp_path: Path) -> None:
    captioned(tmp_path / "real", "one.png", "one")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/link").symlink_to(tmp_path / "real")
    with pytest.raises(ValueError, match=r"all of its 1 folders are links, which are not followed"):
        count_rows(source_of(tmp_path / "mine"))


def test_a_caption_that_is_no_regular_file_is_none_and_nobody_waits(tmp_path: Path) -> None:
    captioned(tmp_path / "mine", "good.png", "good")
    for name in ("pipe", "folder", "huge", "latin"):
        picture(tmp_path / f"mine/{name}.png")
    os.mkfifo(tmp_path / "mine/pipe.txt")
    (tmp_path / "mine/folder.txt").mkdir()
    (tmp_path / "mine/huge.txt").write_text("x" * 70_000)
    (tmp_path / "mine/latin.txt").write_bytes(b"gr\xfcn")
    table, _ = read_in(source_of(tmp_path / "mine"), tmp_path / "out")
    assert ends(table) == {
        "good.png": "ok", **dict.fromkeys(("pipe.png", "folder.png", "huge.png", "latin.png"), "no_caption")
    }  # fmt: skip


def test_a_source_without_its_columns_lists_none(tmp_path: Path) -> None:
    picture(tmp_path / "mine/one.png")
    write_metadata(tmp_path / "mine/metadata.csv")
    write_urls(source_of(tmp_path / "mine"), tmp_path / "urls.parquet", [])
    assert read_table(tmp_path / "urls.parquet").columns == ["row", "url", "caption", "captions", "repeat_of"]
