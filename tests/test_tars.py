"""Tars of samples as others write them: what enters, with which identity, and what is refused."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import webdataset
from PIL import Image
from test_download_server import GOOD, serving, settings

from darkroom.config.dataset import parse_source
from darkroom.download.stage import download_part
from darkroom.settings.download import Download
from darkroom.sources.base import Part
from darkroom.sources.table import count_rows, download_from, list_columns, look_at, write_urls
from darkroom.store import read_table, sample_uid, sha256_file, write_tar

Members = Iterable[tuple[str, bytes]]


def png(color: str = "red", size: tuple[int, int] = (20, 10)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, format="PNG")
    return out.getvalue()


def samples(num: int, first: int = 0, **more: Any) -> Members:
    for i in range(first, first + num):
        told = {"url": f"http://a.example/{i}.png", "caption": f"in json {i}", "similarity": i / 8, **more}
        yield f"{i:05d}.png", png(size=(20 + i, 10))
        yield f"{i:05d}.txt", f"picture {i}".encode()
        yield f"{i:05d}.json", json.dumps(told).encode()


def source_of(path: Path, **values: Any) -> Any:
    return parse_source({"kind": "webdataset", "path": str(path), **values})


def read_in(source: Any, out: Path, **options: Any) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The download table of a source's only part, by row, and its counts."""
    out.mkdir(exist_ok=True)
    num = write_urls(source, out / "urls.parquet", list(list_columns(source)))
    part = out / "part.tar", out / "part.parquet"
    counts = download_from(source, Part(out / "urls.parquet", 0, num, Download(**options), *part))
    return read_table(part[1]).sort("row"), counts


def test_samples_have_their_texts_the_urls_and_columns_of_their_json_and_our_identity(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(3))
    source = source_of(tmp_path / "a.tar")
    assert list_columns(source) == {"similarity": "number"}
    table, counts = read_in(source, tmp_path / "out")
    assert counts == {"rows": 3, "status": {"ok": 3}}
    assert table["url"].to_list() == [f"http://a.example/{i}.png" for i in range(3)]
    assert table["caption"].to_list() == ["picture 0", "picture 1", "picture 2"]
    assert table["similarity"].to_list() == [0, 1 / 8, 2 / 8] and table["original_width"].to_list() == [
        20,
        21,
        22,
    ]
    for row in table.iter_rows(named=True):
        assert row["uid"] == sample_uid(row["url"], row["sha256"])
    assert "_place" not in table.columns


def test_members_of_a_tar_may_have_no_json_folders_and_any_case(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar",
        [
            ("x/1.PNG", png()),
            ("x/1.Txt", b"one"),
            ("y/1.webp", b"RIFF"),
            ("y/1.caption", b"y"),
            ("z.jpeg", png()),
        ],
    )
    table, counts = read_in(source_of(tmp_path / "a.tar"), tmp_path / "out")
    assert table["url"].to_list() == ["local:a.tar/x/1.PNG", "local:a.tar/y/1.webp", "local:a.tar/z.jpeg"]
    assert table["caption"].to_list() == ["one", "y", None]
    assert counts["status"] == {"not_an_image": 1, "no_caption": 1, "ok": 1}
    _, counts = read_in(source_of(tmp_path / "a.tar", uncaptioned="keep"), tmp_path / "out2")
    assert counts["status"] == {"not_an_image": 1, "ok": 2}


def test_a_sample_without_a_picture_and_members_that_are_none_are_told_or_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, content: bytes = b"", **attributes: Any) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))

        add("__meta__/x.png", png())
        add("folder", type=tarfile.DIRTYPE)
        add("link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("device.png", type=tarfile.CHRTYPE)
        add("alone.txt", b"no picture")
        add("../../out.png", png())
        add("../../out.txt", b"its name is no path")
        add("/etc/abs.png", png("blue"))
        add("/etc/abs.txt", b"neither")
        add("ü" * 200 + ".png", png("green"))
        add("ü" * 200 + ".txt", b"a long name")
        add("no-ending", b"x")
    table, counts = read_in(source_of(tmp_path / "a.tar"), tmp_path / "out")
    assert counts["status"] == {"ok": 3, "no_picture": 1}
    assert table["caption"].to_list() == ["no picture", "its name is no path", "neither", "a long name"]
    assert not (tmp_path.parent / "out.png").exists()


def test_members_that_do_not_stand_together_are_two_samples_and_both_are_counted(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar", [("1.png", png()), ("2.png", png("blue")), ("1.txt", b"one"), ("2.txt", b"two")]
    )
    _, counts = read_in(source_of(tmp_path / "a.tar"), tmp_path / "out")
    assert counts["status"] == {"no_caption": 2, "no_picture": 2}


def test_captions_come_from_texts_and_else_from_json_one_or_several(tmp_path: Path) -> None:
    told = {"text": ["a", "b"], "blip": "c"}
    write_tar(
        tmp_path / "a.tar",
        [
            ("1.png", png()), ("1.json", json.dumps(told).encode()),
            ("2.png", png("blue")), ("2.txt", b"x\ny"), ("2.json", json.dumps(told).encode()),
            ("3.png", png("green")), ("3.txt", b" \n"), ("3.json", json.dumps(told).encode()),
            ("4.png", png("white")), ("4.json", b"{no json"),
            ("5.png", png("black")), ("5.txt", b"\xff"), ("5.json", b"[1]"),
        ],
    )  # fmt: skip
    table, _ = read_in(source_of(tmp_path / "a.tar"), tmp_path / "out")
    assert table["caption"].to_list() == ["a", "x y", "a", None, None]
    assert table["captions"].to_list() == [["a", "b"], None, ["a", "b"], None, None]
    table, _ = read_in(
        source_of(tmp_path / "a.tar", caption_key="blip", one_caption_a_line=True), tmp_path / "b"
    )
    assert table["caption"].to_list() == ["c", "x", "c", None, None]
    assert table["captions"].to_list() == [None, ["x", "y"], None, None, None]


def test_of_several_pictures_in_a_sample_the_configuration_says_which(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("1.jpg", png()), ("1.mask.png", png("blue")), ("1.txt", b"one")])
    with pytest.raises(ValueError, match=r"a.tar: 1 has the pictures jpg and mask.png; .* source.picture"):
        count_rows(source_of(tmp_path / "a.tar"))
    table, _ = read_in(source_of(tmp_path / "a.tar", picture="mask.png"), tmp_path / "out")
    assert table["url"].to_list() == ["local:a.tar/1.mask.png"] and table["status"].to_list() == ["ok"]


def test_the_same_url_and_bytes_are_one_picture_with_all_captions_and_other_bytes_another(
    tmp_path: Path,
) -> None:
    told = json.dumps({"url": "http://a.example/x"}).encode()
    names = [("red", "one"), ("red", "two"), ("blue", "three"), ("red", "one")]
    members = [
        member
        for i, (color, text) in enumerate(names)
        for member in ((f"{i}.png", png(color)), (f"{i}.txt", text.encode()), (f"{i}.json", told))
    ]
    # Of no picture there is nothing to tell them apart but their rows.
    members += [
        (f"{i}.{ending}", content) for i in (7, 8) for ending, content in (("png", b""), ("json", told))
    ]
    write_tar(tmp_path / "a.tar", members)
    table, counts = read_in(source_of(tmp_path / "a.tar", uncaptioned="keep"), tmp_path / "out")
    assert table["status"].to_list()[:4] == ["ok", "duplicate_url", "ok", "duplicate_url"]
    assert table["captions"].to_list()[:4] == [["one", "two"], None, None, None]
    assert counts["status"] == {"ok": 2, "duplicate_url": 2, "empty_body": 2}
    assert table["uid"].n_unique() == 6


def test_bounds_of_the_download_hold_for_members(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(2))
    large = len(png(size=(21, 10)))
    table, _ = read_in(source_of(tmp_path / "a.tar"), tmp_path / "out", max_bytes=large - 1, max_pixels=200)
    assert sorted(table["status"]) in (["ok", "too_many_bytes"], ["too_many_bytes", "too_many_bytes"])
    _, counts = read_in(source_of(tmp_path / "a.tar"), tmp_path / "out2", max_pixels=200)
    assert counts["status"] == {"ok": 1, "too_many_pixels": 1}


def whole(path: Path) -> bytes:
    write_tar(path, samples(2))
    return path.read_bytes()


def pax_bomb(content: bytes) -> bytes:
    """A header of attributes that says it is 200 MB long."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 200_000_000
    return info.tobuf(tarfile.USTAR_FORMAT) + content


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            lambda content: content[:1500],
            r"a.tar: cannot be read as a tar \(damaged or cut short at byte 1,024\)",
        ),
        (lambda content: content[:800], r"a.tar: cannot be read as a tar \(unexpected end of data\)"),
        (lambda content: b"<html>" + content[6:], r"a.tar: cannot be read as a tar"),
        (lambda content: b"", r"a.tar: cannot be read as a tar \(empty file\)"),
        (
            lambda content: content[:1024] + b"\7" * 512 + content[1536:],
            r"damaged or cut short at byte 1,024",
        ),
        (lambda content: b"\x1f\x8b" + content, r"a.tar: is compressed \(gzip\); unpack it"),
        (pax_bomb, r"a.tar: cannot be read as a tar \(a header of 200,000,"),
    ],
)
def test_a_tar_that_is_damaged_is_refused_by_its_name(tmp_path: Path, damage: Any, told: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(damage(whole(path)))
    with pytest.raises(ValueError, match=rf"source.path: .*{told}"):
        count_rows(source_of(path))


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("1.png", png()), ("1.PNG", png())])
    with pytest.raises(ValueError, match=r"source.path: .*a.tar: 1.PNG: duplicate file name in tar file png"):
        count_rows(source_of(tmp_path / "a.tar"))


def test_a_tar_without_an_end_mark_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.tar"
    content = whole(path).rstrip(b"\0")
    path.write_bytes(content + b"\0" * (-len(content) % 512))
    assert count_rows(source_of(path)) == 2
    assert "a.tar: has no end mark; it may have been cut short" in caplog.text


def test_a_tar_that_changes_under_way_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(2))
    source, out = source_of(tmp_path / "a.tar"), tmp_path / "urls.parquet"
    write_urls(source, out, [])
    write_tar(tmp_path / "a.tar", [("new.png", png("blue", (300, 300))), *samples(2)])
    with pytest.raises(ValueError, match=r"a.tar: was changed since it was listed. Start snakemake again"):
        download_from(source, Part(out, 0, 2, Download(), tmp_path / "x.tar", tmp_path / "x.parquet"))
    (tmp_path / "a.tar").unlink()
    with pytest.raises(
        ValueError, match=r"source.path: no file .*a.tar; it should be a tar \(.tar\), a folder"
    ):
        download_from(source, Part(out, 0, 2, Download(), tmp_path / "x.tar", tmp_path / "x.parquet"))


def test_many_tars_are_one_list_and_a_new_one_makes_new_parts_and_is_all_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "tars/deep").mkdir(parents=True)
    write_tar(tmp_path / "tars/00000.tar", samples(4))
    write_tar(tmp_path / "tars/deep/00001.tar", samples(4, 4))
    (tmp_path / "tars/00000_stats.json").write_text("{}")
    for path in (tmp_path / "tars").rglob("*.tar"):
        os.utime(path, (1, 1))

    def look(path: Path) -> list[Any]:
        return look_at(source_of(path), 4, "mine", tmp_path).parts

    before = look(tmp_path / "tars")
    assert len(before) == 2 and all(state.pictures for state in before)
    write_tar(tmp_path / "tars/zz.tar", samples(2, 8))
    assert look(tmp_path / "tars")[:2] == before and len(look(tmp_path / "tars")) == 3
    # Its size and time reach its own parts alone.
    write_tar(tmp_path / "tars/deep/00001.tar", samples(4, 4))
    now = look(tmp_path / "tars")
    assert [a.rows == b.rows for a, b in zip(before, now, strict=False)] == [True, True]
    assert [a == b for a, b in zip(before, now, strict=False)] == [True, False]
    assert len(look(tmp_path / "tars/{00000,zz}.tar")) == 2
    with pytest.raises(ValueError, match=r"source.path: no file .*00002.tar, which .*\{zz,00002\}.tar names"):
        look(tmp_path / "tars/{zz,00002}.tar")


IMG2DATASET = """
import sys
from img2dataset import download

download(
    url_list=sys.argv[1], input_format="parquet", url_col="URL", caption_col="TEXT", output_folder=sys.argv[2],
    output_format="webdataset", processes_count=1, thread_count=2, number_sample_per_shard=3, timeout=5,
    disable_all_reencoding=True, save_additional_columns=["similarity"], enable_wandb=False,
)
"""


@pytest.mark.slow
def test_what_img2dataset_fetched_has_the_uids_of_what_we_fetch(tmp_path: Path) -> None:
    names = ["/good.jpg", "/large.png", "/copy.jpg", "/404.jpg"]
    with serving() as server:
        urls = [server.base + name for name in names]
        rows = {"URL": urls, "TEXT": [f"caption {i}" for i in range(4)], "similarity": [0.5] * 4}
        pl.DataFrame(rows).write_parquet(tmp_path / "list.parquet")
        command = [
            sys.executable,
            "-c",
            IMG2DATASET,
            str(tmp_path / "list.parquet"),
            str(tmp_path / "theirs"),
        ]
        environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        listed = parse_source({"kind": "list", "path": str(tmp_path / "list.parquet")})
        write_urls(listed, tmp_path / "urls.parquet", ["similarity"])
        out = tmp_path / "ours.tar", tmp_path / "ours.parquet"
        to_itself = settings(allow_networks=["127.0.0.0/8"], num_retries=0)
        download_part(tmp_path / "urls.parquet", 0, 4, to_itself, *out)
    theirs, counts = read_in(source_of(tmp_path / "theirs"), tmp_path / "out")
    assert counts == {"rows": 3, "status": {"ok": 3}}
    ours = read_table(out[1]).filter(status="ok")
    same = ["uid", "url", "caption", "similarity", "sha256", "num_bytes"]
    assert theirs.select(same).sort("uid").equals(ours.select(same).sort("uid"))
    assert len(ours) == 3 and GOOD


def test_our_tars_are_read_by_stock_webdataset_and_by_this_source_again(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(3))
    first, _ = read_in(source_of(tmp_path / "a.tar"), tmp_path / "out")
    stock = list(webdataset.WebDataset(str(tmp_path / "out/part.tar"), shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in stock] == sorted(first["uid"])
    assert {sample["txt"] for sample in stock} == {f"picture {i}" for i in range(3)}
    assert all(sample["json"]["uid"] == sample["__key__"] and sample["jpg"].size[1] == 10 for sample in stock)
    again, _ = read_in(source_of(tmp_path / "out/part.tar"), tmp_path / "again")
    assert sorted(again["url"]) == sorted(first["url"]) and again["status"].to_list() == ["ok"] * 3
    assert sha256_file(tmp_path / "again/part.tar") != sha256_file(tmp_path / "out/part.tar")
