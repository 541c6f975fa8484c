"""Folders of pictures as datasets: what enters, what is counted, what is refused."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from darkroom.config.dataset import Download, parse_source
from darkroom.recaption.original import keep_captions
from darkroom.sources import classes
from darkroom.sources import folder as pictures
from darkroom.sources.base import Part
from darkroom.sources.priors import prior_uids
from darkroom.sources.table import count_rows, download_from, write_urls
from darkroom.store import read_table, sha256_file, write_table
from darkroom_demo.folder import write_folders

ROOT = Path(__file__).parents[1]


def picture(path: Path, color: str = "red", size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def captioned(folder: Path, name: str, caption: str, color: str = "red") -> None:
    picture(folder / name, color)
    (folder / name).with_suffix(".txt").write_text(caption, encoding="utf-8")


def source_of(folder: Path, **values: Any) -> Any:
    return parse_source({"kind": "pictures", "folder": str(folder), **values})


def read_in(
    source: Any, out: Path, columns: Sequence[str] = (), **options: Any
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The download table of a source's only part, by row, and its counts."""
    out.mkdir(exist_ok=True)
    num = write_urls(source, out / "urls.parquet", columns)
    part = out / "part.tar", out / "part.parquet"
    counts = download_from(source, Part(out / "urls.parquet", 0, num, Download(**options), *part))
    return read_table(part[1]).sort("row"), counts


def test_every_picture_and_every_caption_is_one_row_with_a_status(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    captioned(folder, "one.png", " a red\n thing \n")
    captioned(folder, "deep/er/two words.JPG", "grün", "green")
    picture(folder / "bare.png", "blue")
    captioned(folder, "blank.png", "  \n", "black")
    captioned(folder, "latin.png", "", "white")
    (folder / "latin.txt").write_bytes("grün".encode("latin-1"))
    (folder / "widow.txt").write_text("no picture", encoding="utf-8")
    captioned(folder, "cut.png", "cut short", "grey")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:60])
    captioned(folder, "print.tiff", "a format of one's own", "pink")
    captioned(folder, "phone.png", "a format that is not decoded", "pink")
    (folder / "phone.png").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (folder / "notes.md").write_text("neither")
    picture(folder / ".hidden.png")
    source = source_of(folder)
    assert count_rows(source) == 9
    assert pictures.FOLDERS.listing(source).num_others == 1
    table, counts = read_in(source, tmp_path / "out")
    ends = dict(zip(table["url"], table["status"], strict=True))
    assert ends == {
        "local:one.png": "ok",
        "local:deep/er/two%20words.JPG": "ok",
        "local:bare.png": "no_caption",
        "local:blank.png": "no_caption",
        "local:latin.png": "no_caption",
        "local:widow.txt": "no_picture",
        "local:cut.png": "truncated_image",
        "local:print.tiff": "ok",
        "local:phone.png": "unsupported_image",
    }
    assert sum(counts["status"].values()) == 9
    told = dict(zip(table["url"], table["caption"], strict=True))
    assert told["local:one.png"] == "a red thing" and told["local:deep/er/two%20words.JPG"] == "grün"
    assert table.filter(status="truncated_image")["sha256"][0] == sha256_file(folder / "cut.png")


def test_a_caption_may_end_in_caption_too_and_two_for_one_picture_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    captioned(folder, "one.png", "in a .txt")
    picture(folder / "two.png", "blue")
    (folder / "two.caption").write_text("in a .caption")
    (folder / "widow.caption").write_text("no picture")
    table, _ = read_in(source_of(folder), tmp_path / "out")
    assert table.select("url", "caption", "status").rows() == [
        ("local:one.png", "in a .txt", "ok"),
        ("local:two.png", "in a .caption", "ok"),
        ("local:widow.caption", None, "no_picture"),
    ]
    (folder / "two.txt").write_text("another")
    with pytest.raises(ValueError, match=r"two.caption and two.txt are both the caption of two; keep one"):
        count_rows(source_of(folder))


def test_the_same_files_give_the_same_bytes_wherever_the_folder_lies(tmp_path: Path) -> None:
    made = []
    for name in ("here", "there"):
        for number, color in enumerate(("red", "green", "blue")):
            captioned(tmp_path / name, f"{number}.png", color, color)
        read_in(source_of(tmp_path / name), tmp_path / f"{name}-out")
        made.append([sha256_file(tmp_path / f"{name}-out" / f"part.{end}") for end in ("tar", "parquet")])
    assert made[0] == made[1]


def test_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    outside = picture(tmp_path / "secret.png", "black")
    folder = tmp_path / "pictures"
    captioned(folder, "good.png", "good")
    captioned(folder, "link.png", "evil", "white")
    (folder / "link.png").unlink()
    (folder / "link.png").symlink_to(outside)
    captioned(folder, "inside.png", "a link that stays")
    (folder / "inside.png").unlink()
    (folder / "inside.png").symlink_to(folder / "good.png")
    captioned(folder, "gone.png", "nothing there")
    (folder / "gone.png").unlink()
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    captioned(folder, "pipe.png", "waits for ever")
    (folder / "pipe.png").unlink()
    os.mkfifo(folder / "pipe.png")
    table, _ = read_in(source_of(folder), tmp_path / "out")
    ends = dict(zip(table["url"], table["status"], strict=True))
    assert ends == {
        "local:good.png": "ok",
        "local:inside.png": "ok",
        "local:link.png": "blocked_path",
        "local:gone.png": "unreadable_file",
        "local:pipe.png": "unreadable_file",
    }


def test_a_url_with_dots_does_not_leave_the_folder(tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    folder = tmp_path / "pictures"
    captioned(folder, "good.png", "good")
    source = source_of(folder)
    write_urls(source, tmp_path / "urls.parquet", [])
    forged = read_table(tmp_path / "urls.parquet").with_columns(url=pl.lit("local:../secret.png"))
    write_table(tmp_path / "urls.parquet", forged, sort_by="row")
    out = tmp_path / "part.tar", tmp_path / "part.parquet"
    counts = download_from(source, Part(tmp_path / "urls.parquet", 0, 1, Download(), *out))
    assert counts["status"] == {"blocked_path": 1}


def test_bounds_of_the_download_hold_for_files(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    captioned(folder, "wide.png", "too many pixels")
    picture(folder / "wide.png", size=(300, 200))
    captioned(folder, "good.png", "fits")
    table, _ = read_in(source_of(folder), tmp_path / "out", max_pixels=10_000)
    assert sorted(table["status"]) == ["ok", "too_many_pixels"]
    large = (folder / "wide.png").stat().st_size
    table, _ = read_in(source_of(folder), tmp_path / "out2", max_bytes=large - 1)
    assert sorted(table["status"]) == ["ok", "too_many_bytes"]


def test_folders_that_cannot_be_a_dataset_are_refused_with_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"source.folder: no folder .*absent; it should hold pictures"):
        count_rows(source_of(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds no picture"):
        count_rows(source_of(tmp_path / "empty"))
    picture(tmp_path / "bare/one.png")
    with pytest.raises(
        ValueError, match=r"no picture has a caption; the one of one.png should be in one.txt"
    ):
        count_rows(source_of(tmp_path / "bare"))
    captioned(tmp_path / "twice", "one.png", "a")
    picture(tmp_path / "twice/one.jpg")
    with pytest.raises(ValueError, match=r"one.jpg and one.png share the caption one.txt"):
        count_rows(source_of(tmp_path / "twice"))
    picture(tmp_path / "flat/one.png")
    with pytest.raises(ValueError, match=r"one.png lies in no class"):
        count_rows(parse_source({"kind": "classes", "folder": str(tmp_path / "flat")}))


def test_a_folder_may_be_named_by_a_variable_that_no_result_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioned(tmp_path / "mine", "one.png", "a")
    source = source_of(Path("$MY_PICTURES/mine"))
    monkeypatch.delenv("MY_PICTURES", raising=False)
    with pytest.raises(
        ValueError, match=r"source.folder: \$MY_PICTURES/mine: the environment variable MY_PIC"
    ):
        count_rows(source)
    monkeypatch.setenv("MY_PICTURES", str(tmp_path))
    table, _ = read_in(source, tmp_path / "out")
    assert table["status"].to_list() == ["ok"]
    assert str(tmp_path) not in (tmp_path / "out/part.tar").read_bytes().decode("latin-1")


def test_a_class_has_its_prompt_or_its_folders_name(tmp_path: Path) -> None:
    for name in ("n01440764", "n01443537"):
        picture(tmp_path / name / "one.png", "red" if name.endswith("4") else "green")
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"n01440764": "a photo of a tench"}))
    values = {"kind": "classes", "folder": str(tmp_path), "prompts": str(prompts)}
    with pytest.raises(ValueError, match=r"prompts.json has no prompt for the class n01443537"):
        count_rows(parse_source(values))
    prompts.write_text(json.dumps({"n01440764": "a photo of a tench", "n01443537": "a goldfish"}))
    assert [row.captions[0] for row in classes.FOLDERS.listing(parse_source(values)).rows] == [
        "a photo of a tench",
        "a goldfish",
    ]
    named = parse_source({"kind": "classes", "folder": str(ROOT / "src/darkroom_demo/pictures/shapes")})
    assert {row.captions[0] for row in classes.FOLDERS.listing(named).rows} == {
        "red circle", "blue square", "green cross", "purple triangle",
    }  # fmt: skip


def test_dreambooths_class_pictures_are_known_by_their_uids(tmp_path: Path) -> None:
    picture(tmp_path / "mine/1.png", "red")
    picture(tmp_path / "others/1.png", "green")
    picture(tmp_path / "others/2.png", "blue")
    values = {"kind": "dreambooth", "instance_folder": str(tmp_path / "mine"), "instance_prompt": "my cat"}
    alone = parse_source(values)
    assert count_rows(alone) == 1
    both = parse_source({**values, "class_folder": str(tmp_path / "others"), "class_prompt": "a cat"})
    table, _ = read_in(both, tmp_path / "out")
    assert table["caption"].to_list() == ["a cat", "a cat", "my cat"]
    assert prior_uids([tmp_path / "out/part.parquet"]) == sorted(table["uid"][:2])
    with pytest.raises(
        ValueError, match="class_prompt is missing; give class_folder and class_prompt together"
    ):
        parse_source({**values, "class_folder": "x"})


def test_captions_are_kept_and_counted_and_of_several_those_that_are_asked_for(tmp_path: Path) -> None:
    several = [None, None, None, ["some words", "a few more words", "two words", "of it"]]
    columns = {
        "uid": ["a", "b", "c", "d"],
        "row": [0, 1, 2, 3],
        "caption": ["one", None, "three", "some words"],
    }
    table = pl.DataFrame({**columns, "captions": several}, schema_overrides={"captions": pl.List(pl.String)})
    write_table(tmp_path / "table.parquet", table)
    kept = pl.DataFrame({"uid": columns["uid"], "row": [0, 1, 2, 3], "kept": [True, True, False, True]})
    write_table(tmp_path / "kept.parquet", kept)
    tables = tmp_path / "table.parquet", tmp_path / "kept.parquet", tmp_path / "out.parquet"
    counts = keep_captions(*tables, ["longest", "shortest"])
    assert counts == {"captioned": 0, "kept_original": 3, "empty": 1}
    made = read_table(tmp_path / "out.parquet")
    assert made["caption_original"].to_list() == ["one", "", "some words"]
    assert made["caption_longest"].to_list() == ["one", "", "a few more words"]
    assert made["caption_shortest"].to_list() == ["one", "", "of it"]
    assert keep_captions(*tables) == counts
    assert read_table(tmp_path / "out.parquet").equals(made.select("uid", "row", "caption_original"))


def test_the_twins_pictures_are_those_that_the_module_draws(tmp_path: Path) -> None:
    write_folders(tmp_path)
    committed = ROOT / "src/darkroom_demo/pictures"
    assert {p.relative_to(tmp_path) for p in tmp_path.rglob("*")} == {
        p.relative_to(committed) for p in committed.rglob("*")
    }
    for path in sorted((*tmp_path.rglob("*.txt"), *tmp_path.rglob("*.jsonl"))):
        assert path.read_text() == (committed / path.relative_to(tmp_path)).read_text()
    for path in sorted(tmp_path.rglob("*.png")):
        with Image.open(path) as new, Image.open(committed / path.relative_to(tmp_path)) as old:
            assert new.size == old.size
