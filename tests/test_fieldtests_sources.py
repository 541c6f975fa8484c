"""Lists and pictures as people have them, beside those of the other tests: what enters, what is told."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_folder_captions import captions, ends
from test_folders import captioned, picture, read_in, source_of
from test_lists import listed, write_list
from test_lists import source_of as list_of

from darkroom.benchmarks.file import read_prompts
from darkroom.benchmarks.geneval import read_records
from darkroom.config.dataset import parse_source
from darkroom.sources.table import count_rows, list_columns, write_urls
from darkroom.store import write_tar

OWN_FORMATS = ("tif", "tiff", "bmp", "avif", "webp", "gif", "BMP")


def encoded(ending: str) -> bytes:
    out = io.BytesIO()
    kind = "TIFF" if ending.startswith("tif") else ending.upper()
    Image.new("RGB", (40, 30), "red").save(out, kind)
    return out.getvalue()


# Formats of one's own, whatever the pictures lie in.


def in_folder(path: Path) -> Any:
    for number, ending in enumerate(OWN_FORMATS):
        captioned(path / "mine", f"{number}.png", f"picture {number}")
        (path / f"mine/{number}.png").unlink()
        (path / f"mine/{number}.{ending}").write_bytes(encoded(ending))
    return source_of(path / "mine")


def in_tar(path: Path) -> Any:
    members = [(f"{number}.{ending}", encoded(ending)) for number, ending in enumerate(OWN_FORMATS)]
    texts = [(f"{number}.txt", f"picture {number}".encode()) for number in range(len(OWN_FORMATS))]
    write_tar(path / "mine.tar", sorted([*members, *texts]))
    return parse_source({"kind": "webdataset", "path": str(path / "mine.tar")})


def in_table(path: Path) -> Any:
    told = [f"picture {number}" for number in range(len(OWN_FORMATS))]
    pq.write_table(pa.table({"image": list(map(encoded, OWN_FORMATS)), "text": told}), path / "mine.parquet")
    return parse_source({"kind": "tables_of_pictures", "path": str(path / "mine.parquet")})


@pytest.mark.parametrize("source_in", [in_folder, in_tar, in_table])
def test_formats_of_ones_own_are_decoded_wherever_they_lie(tmp_path: Path, source_in: Any) -> None:
    table, counts = read_in(source_in(tmp_path), tmp_path / "out")
    assert counts["status"] == {"ok": len(OWN_FORMATS)}
    assert sorted(table["caption"]) == [f"picture {number}" for number in range(len(OWN_FORMATS))]


# Numbers that are none.


def folder_with(path: Path, value: str) -> Any:
    for name in ("a.png", "b.png"):
        picture(path / "mine" / name)
    rows = [
        f'{{"file_name": "{name}.png", "text": "x", "score": {v}}}' for name, v in (("a", value), ("b", 2.5))
    ]
    (path / "mine/metadata.jsonl").write_text("\n".join(rows))
    return source_of(path / "mine")


def tar_with(path: Path, value: str) -> Any:
    told = [f'{{"caption": "x", "score": {v}}}'.encode() for v in (value, 2.5)]
    members = [
        (f"{i}.{end}", content)
        for i in (0, 1)
        for end, content in (("json", told[i]), ("png", encoded("png")))
    ]
    write_tar(path / "mine.tar", members)
    return parse_source({"kind": "webdataset", "path": str(path / "mine.tar")})


def table_with(path: Path, value: str) -> Any:
    columns = {"image": [encoded("png")] * 2, "text": ["x"] * 2, "score": [json.loads(value), 2.5]}
    pq.write_table(pa.table(columns), path / "mine.parquet")
    return parse_source({"kind": "tables_of_pictures", "path": str(path / "mine.parquet")})


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN", "1e999"])
@pytest.mark.parametrize("source_with", [folder_with, tar_with, table_with])
def test_a_score_that_is_no_finite_number_is_null_and_counted_and_its_picture_stays(
    tmp_path: Path, source_with: Any, value: str
) -> None:
    table, counts = read_in(source_with(tmp_path, value), tmp_path / "out", columns=["score"])
    assert counts == {"rows": 2, "status": {"ok": 2}, "not_finite": {"score": 1}}
    assert table["score"].to_list() == [None, 2.5]


# Texts that other programs write.


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", "\ufeffURL,TEXT\r\nhttp://a,grün\r\n\r\n".encode()),
        ("LIST.CSV", "URL,TEXT\nhttp://a,grün".encode()),
        ("List.Tsv.GZ", gzip.compress("URL\tTEXT\nhttp://a\tgrün\n".encode(), mtime=0)),
        ("list.jsonl", '\ufeff{"URL": "http://a", "TEXT": "grün"}\r\n\r\n'.encode()),
        (
            "list.ndjson.gz",
            gzip.compress(b'{"TEXT": "gr\\u00fcn", "more": {"a": 1}, "URL": "http://a"}', mtime=0),
        ),
    ],
)
def test_a_list_is_read_as_spreadsheets_and_other_systems_write_it(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    found = listed(list_of(tmp_path / name), tmp_path / "urls.parquet")
    assert found.select("url", "caption").rows() == [("http://a", "grün")]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "list.csv",
            b"URL;TEXT\nhttp://a;x\n",
            r"list.csv: no column 'URL' \(source.url_column\); it has URL;TEXT",
        ),
        ("list.csv", "URL,TEXT\nhttp://a,x\n".encode("utf-16"), r"list.csv: is no text in UTF-8"),
        ("list.tsv", b'URL\tTEXT\nhttp://a\t"a" b\n', r"source.path: .*list.tsv: line 2: "),
        ("list.json", b"[]", r"source.path: .*list.json is no list; its name should end in .parquet, .csv, "),
        ("list.csv.zst", b"", r"source.path: .*list.csv.zst is no list; its name should end in"),
        ("list.parquet", b"URL,TEXT\nhttp://a,x\n", r"source.path: .*list.parquet: cannot be read"),
    ],
)
def test_a_list_that_is_not_read_is_refused_with_its_file_and_key(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        list_columns(list_of(tmp_path / name))
        count_rows(list_of(tmp_path / name))


def test_a_named_pipe_is_no_list_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(ValueError, match=r"source.path: no file .*list.csv"):
        count_rows(list_of(tmp_path / "list.csv"))
    with pytest.raises(ValueError, match=r"source.path: .* holds no list"):
        count_rows(list_of(tmp_path))


# Captions.


def test_of_thirteen_pictures_one_has_a_caption_and_all_are_kept_where_a_captioner_is_set(
    tmp_path: Path,
) -> None:
    for number in range(13):
        picture(tmp_path / f"mine/{number}.png")
    (tmp_path / "mine/4.txt").write_text("the fourth")
    table, counts = read_in(source_of(tmp_path / "mine").with_captioner(True), tmp_path / "out")
    assert counts["status"] == {"ok": 13}
    assert [text for text in captions(table).values() if text] == ["the fourth"]


@pytest.mark.parametrize("name", ["a.txt", "a.caption", "a.json"])
@pytest.mark.parametrize("has_captioner", [False, True])
def test_words_from_outside_the_folder_are_no_captions_whatever_they_lie_in(
    tmp_path: Path, name: str, has_captioner: bool
) -> None:
    (tmp_path / "secret").write_text('{"caption": "secret words"}')
    captioned(tmp_path / "mine", "b.png", "b")
    picture(tmp_path / "mine/a.png")
    (tmp_path / "mine" / name).symlink_to(tmp_path / "secret")
    table, _ = read_in(source_of(tmp_path / "mine").with_captioner(has_captioner), tmp_path / "out")
    assert captions(table) == {"a.png": None, "b.png": "b"}
    if name != "a.json":
        assert ends(table)["a.png"] == "blocked_path"


@pytest.mark.parametrize("name", ["metadata.jsonl", "deep/metadata.csv", "metadata.parquet"])
def test_a_list_of_captions_that_leads_out_of_the_folder_is_refused_or_followed(
    tmp_path: Path, name: str
) -> None:
    captioned(tmp_path / "mine", "own.png", "own")
    captioned(tmp_path / "mine", "deep/b.png", "b")
    secret = tmp_path / name
    secret.parent.mkdir(exist_ok=True)
    rows = pl.DataFrame({"file_name": ["b.png"], "text": ["secret words"], "score": [1.5]})
    if name.endswith("parquet"):
        rows.write_parquet(secret)
    elif name.endswith("csv"):
        rows.write_csv(secret)
    else:
        rows.write_ndjson(secret)
    (tmp_path / "mine" / name).symlink_to(secret)
    for look in (list_columns, count_rows):
        with pytest.raises(
            ValueError, match=rf"{name}: is a link that leads out of .*; copy .*follow_links: true"
        ):
            look(source_of(tmp_path / "mine"))
    followed, _ = read_in(source_of(tmp_path / "mine", follow_links=True), tmp_path / "out")
    assert "secret words" in followed["caption"].to_list()


def test_a_list_of_captions_that_is_a_named_pipe_is_refused_and_nobody_waits(tmp_path: Path) -> None:
    captioned(tmp_path / "mine", "own.png", "own")
    os.mkfifo(tmp_path / "mine/metadata.jsonl")
    for look in (list_columns, count_rows):
        with pytest.raises(ValueError, match=r"metadata.jsonl: is no regular file"):
            look(source_of(tmp_path / "mine"))


def test_prompts_of_classes_that_are_a_named_pipe_are_refused_and_nobody_waits(tmp_path: Path) -> None:
    picture(tmp_path / "mine/cat/1.png")
    os.mkfifo(tmp_path / "prompts.json")
    source = {"kind": "classes", "folder": str(tmp_path / "mine"), "prompts": str(tmp_path / "prompts.json")}
    with pytest.raises(
        ValueError, match=r"source.prompts: .*prompts.json cannot be read as JSON \(it is no regular"
    ):
        count_rows(parse_source(source))


# Names and words that no text in UTF-8 holds, or that would forge a line.

FORGED = "e\x1b[31m\n2026-01-01 forged: all is well"


def test_a_file_whose_name_is_no_utf_8_is_a_picture_as_any_other(tmp_path: Path) -> None:
    captioned(tmp_path / "mine", "a.png", "a")
    latin = os.fsencode(tmp_path / "mine") + b"/gr\xfcn"
    for ending in (b".png", b".txt"):
        os.rename(os.fsencode(tmp_path / "mine/a") + ending, latin + ending)
    captioned(tmp_path / "mine", "grün.png", "b")
    table, _ = read_in(source_of(tmp_path / "mine"), tmp_path / "out")
    told = [("local:gr%C3%BCn.png", "b", "ok"), ("local:gr%FCn.png", "a", "ok")]
    assert table.select("url", "caption", "status").rows() == told
    members = [("gr\udcfcn.png", encoded("png")), ("gr\udcfcn.txt", b"a")]
    with tarfile.open(tmp_path / "mine.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    source = parse_source({"kind": "webdataset", "path": str(tmp_path / "mine.tar")})
    table, _ = read_in(source, tmp_path / "out")
    assert table.select("url", "caption", "status").rows() == [("local:mine.tar/gr%FCn.png", "a", "ok")]


HALF = '{"url": "http://a/\\ud800", "caption": "half \\udc00, whole \\ud83d\\ude00", "file_name": "a.png"}'


def test_half_a_surrogate_pair_in_json_costs_no_row(tmp_path: Path) -> None:
    told = "half \ufffd, whole \U0001f600"
    (tmp_path / "list.jsonl").write_text(HALF.replace("url", "URL").replace("caption", "TEXT") + "\n")
    rows = listed(list_of(tmp_path / "list.jsonl"), tmp_path / "urls.parquet")
    assert rows.select("url", "caption").rows() == [("http://a/\ufffd", told)]
    picture(tmp_path / "beside/a.png")
    (tmp_path / "beside/a.json").write_text(HALF)
    picture(tmp_path / "listed/a.png")
    (tmp_path / "listed/metadata.jsonl").write_text(HALF)
    write_tar(tmp_path / "mine.tar", [("a.json", HALF.encode()), ("a.png", encoded("png"))])
    tar = parse_source({"kind": "webdataset", "path": str(tmp_path / "mine.tar")})
    for source in (source_of(tmp_path / "beside"), source_of(tmp_path / "listed"), tar):
        table, counts = read_in(source, tmp_path / "out")
        assert counts["status"] == {"ok": 1} and table["caption"].to_list() == [told]


def test_json_that_is_nested_without_end_is_a_mistake_in_its_line(tmp_path: Path) -> None:
    deep = '{"URL": ' + "[" * 200_000
    (tmp_path / "list.jsonl").write_text('{"URL": "http://a", "TEXT": "x"}\n' + deep)
    with pytest.raises(ValueError, match=r"list.jsonl: line 2 is no JSON \(it is nested too deeply\)"):
        list_columns(list_of(tmp_path / "list.jsonl"))
    picture(tmp_path / "mine/cat/a.png")
    (tmp_path / "mine/metadata.jsonl").write_text(deep)
    with pytest.raises(ValueError, match=r"metadata.jsonl: line 1 is no JSON"):
        count_rows(source_of(tmp_path / "mine"))
    classes = {"kind": "classes", "folder": str(tmp_path / "mine"), "prompts": str(tmp_path / "list.jsonl")}
    (tmp_path / "list.jsonl").write_text(deep)
    with pytest.raises(
        ValueError, match=r"source.prompts: .* cannot be read as JSON \(it is nested too deeply"
    ):
        count_rows(parse_source(classes))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a cat"}\n' + deep)
    for read in (read_prompts, read_records):
        with pytest.raises(ValueError, match=r"prompts.jsonl, (line|row) \d: "):
            read(tmp_path / "prompts.jsonl")


def test_a_name_can_forge_no_line_of_a_message(tmp_path: Path) -> None:
    picture(tmp_path / f"mine/{FORGED}.png")
    (tmp_path / "list.csv").write_text(f'"{FORGED}"\nx\n')
    no_class = parse_source({"kind": "classes", "folder": str(tmp_path / "mine")})
    for source in (source_of(tmp_path / "mine"), no_class, list_of(tmp_path / "list.csv")):
        with pytest.raises(ValueError, match=r"\\x1b\[31m\\n2026-01-01 forged") as refused:
            count_rows(source)
        assert str(refused.value).isprintable()


# Links.


def test_links_to_folders_of_lists_and_tars_are_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("mine", "other"):
        write_list(tmp_path / folder / "list.csv")
        write_tar(tmp_path / folder / "mine.tar", [("a.png", encoded("png")), ("a.txt", b"a")])
    (tmp_path / "mine/away").symlink_to(tmp_path / "other")
    (tmp_path / "mine/gone.csv").symlink_to(tmp_path / "nowhere")
    # A link to a file is one like any other, as in a snapshot of Hugging Face.
    (tmp_path / "mine/more.csv").symlink_to(tmp_path / "other/list.csv")
    for kind, num_rows in (("list", 6), ("webdataset", 1)):
        source = parse_source({"kind": kind, "path": str(tmp_path / "mine")})
        caplog.clear()
        assert write_urls(source, tmp_path / "urls.parquet", []) == num_rows
        assert (
            f"2 links in {tmp_path / 'mine'} lead to folders, or nowhere, and are not followed" in caplog.text
        )
    (tmp_path / "links").mkdir()
    (tmp_path / "links/away").symlink_to(tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"holds no list .*; its 1 links to folders are not followed: name those"
    ):
        count_rows(list_of(tmp_path / "links"))


@pytest.mark.parametrize("kind", ["classes", "dreambooth"])
def test_a_class_that_is_a_link_is_followed_or_counted(tmp_path: Path, kind: str) -> None:
    picture(tmp_path / "mine/cat/1.png")
    picture(tmp_path / "other/1.png")
    (tmp_path / "mine/dog").symlink_to(tmp_path / "other")
    of_kind = {
        "classes": {"folder": str(tmp_path / "mine")},
        "dreambooth": {"instance_folder": str(tmp_path / "mine"), "instance_prompt": "a sks cat"},
    }
    source = {"kind": kind, **of_kind[kind]}
    _, counts = read_in(parse_source(source), tmp_path / "out")
    assert counts["status"] == {"ok": 1, "blocked_path": 1}
    _, counts = read_in(parse_source({**source, "follow_links": True}), tmp_path / "out")
    assert counts["status"] == {"ok": 2}


@pytest.mark.parametrize("follow_links", [False, True])
def test_a_link_that_leads_to_itself_is_a_row_with_a_word(tmp_path: Path, follow_links: bool) -> None:
    captioned(tmp_path / "mine", "own.png", "own")
    picture(tmp_path / "mine/b.png")
    (tmp_path / "mine/a.txt").write_text("a")
    for name, target in (("a.png", "a.png"), ("b.txt", "b.txt"), ("x", "y"), ("y", "x")):
        (tmp_path / "mine" / name).symlink_to(target)
    table, _ = read_in(source_of(tmp_path / "mine", follow_links=follow_links), tmp_path / "out")
    assert ends(table) == {"a.png": "unreadable_file", "b.png": "no_caption", "own.png": "ok"}


def test_a_name_that_no_file_can_have_costs_its_own_row(tmp_path: Path) -> None:
    captioned(tmp_path / "mine", "own.png", "own")
    names = ["own.png", "nul\0.png", "x" * 5_000 + ".png", "a/" * 3_000 + "a.png", ".", "", "own.png/a.png"]
    told = "".join(json.dumps({"file_name": name, "text": "t"}) + "\n" for name in names)
    (tmp_path / "mine/metadata.jsonl").write_text(told)
    table, counts = read_in(source_of(tmp_path / "mine"), tmp_path / "out")
    assert table.filter(status="ok")["url"].to_list() == ["local:own.png"]
    assert counts["rows"] == 6 and set(table["status"]) <= {
        "ok",
        "no_picture",
        "unreadable_file",
        "blocked_path",
    }
