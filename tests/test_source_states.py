"""What a plan looks at of a source: the state of each part, so that only changed ones are made again."""

import csv
import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from darkroom.config.dataset import Download, parse_source
from darkroom.sources import listing, readers
from darkroom.sources.base import Part
from darkroom.sources.listing import Listing, PartState
from darkroom.sources.table import download_from, list_columns, look_at, write_urls
from darkroom.store import parts_of, sha256_rows

# Long enough ago to be believed.
HOUR_AGO_NS = time.time_ns() - 3_600_000_000_000


def rows(num: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"URL": f"http://a.example/{i}.jpg", "TEXT": f"picture {i}", "score": i / 7, **more}
        for i in range(num)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A list in the format that its name says."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
        return path
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        if ".jsonl" in path.name:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            out = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ".tsv" in path.name else ",")
            out.writeheader()
            out.writerows(rows)
    return path


Look = Callable[..., Listing]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """`look(path)`: a look at the list there."""

    def at(path: Path, rows_per_part: int = 4) -> Listing:
        source = parse_source({"kind": "list", "path": str(path)})
        return look_at(source, rows_per_part, "mine", tmp_path / "kept")

    return at


@pytest.fixture
def look_in(tmp_path: Path) -> Look:
    """The same at another source."""
    return lambda source, rows_per_part: look_at(source, rows_per_part, "mine", tmp_path / "kept")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the lists that were read, where files count as old that were written just now."""
    names: list[str] = []
    read_rows = readers.read_rows

    def noted(path: Path, *more: Any) -> Any:
        names.append(path.name)
        return read_rows(path, *more)

    monkeypatch.setattr(readers, "read_rows", noted)
    monkeypatch.setattr(listing, "_COARSEST_NS", -HOUR_AGO_NS)
    return names


def changed(before: Listing, now: Listing) -> set[int]:
    """The parts that a plan makes: those that were not there, or in another state."""
    known = dict(enumerate(before.parts))
    return {part for part, state in enumerate(now.parts) if known.get(part) != state}


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv.gz", "jsonl", "jsonl.gz"])
def test_a_list_that_grows_changes_the_part_that_was_not_full_and_has_new_ones(
    tmp_path: Path, ending: str, look: Look
) -> None:
    path = write(tmp_path / f"list.{ending}", rows(10))
    before = look(path)
    assert before.num_rows == 10 and len(before.parts) == 3
    assert changed(before, look(write(path, rows(11)))) == {2}
    assert changed(before, look(write(path, rows(12)))) == {2}
    assert changed(before, look(write(path, rows(13)))) == {2, 3}
    full = look(write(path, rows(12)))
    assert changed(full, look(write(path, rows(13)))) == {3}


@pytest.mark.parametrize("column", ["URL", "TEXT", "score"])
def test_a_value_that_is_changed_changes_its_part_alone(tmp_path: Path, column: str, look: Look) -> None:
    path, told = tmp_path / "list.parquet", rows(12)
    before = look(write(path, told))
    for value in ("other" if column != "score" else 2.5, None):
        told[5] = {**told[5], column: value}
        assert changed(before, look(write(path, told))) == {1}


def test_a_row_that_is_inserted_or_removed_changes_its_part_and_all_after_it(
    tmp_path: Path, look: Look
) -> None:
    path, told = tmp_path / "list.csv", rows(12)
    before = look(write(path, told))
    assert changed(before, look(write(path, [*told[:5], *told[6:]]))) == {1, 2}
    new = {"URL": "http://b.example", "TEXT": "new", "score": 1}
    assert changed(before, look(write(path, [*told[:9], new, *told[9:]]))) == {2, 3}
    # So many that rows lie where others like them lay: their numbers are others.
    same = [new] * 12
    assert changed(look(write(path, same)), look(write(path, [*same, new]))) == {3}


def test_a_list_is_the_same_whatever_format_files_and_batches_it_came_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Look
) -> None:
    whole = look(write(tmp_path / "list.parquet", rows(30)), rows_per_part=7)
    write(tmp_path / "lists/a.csv", rows(30)[:13])
    write(tmp_path / "lists/b.jsonl", rows(30)[13:])
    monkeypatch.setattr(readers, "_BATCH_ROWS", 5)
    assert look(tmp_path / "lists", rows_per_part=7) == whole
    assert changed(whole, look(tmp_path / "lists/a.csv", 7)) == {1}
    write(tmp_path / "lists/c.csv", rows(1))
    assert changed(whole, look(tmp_path / "lists", rows_per_part=7)) == {4}


def test_a_list_written_again_as_it_was_changes_nothing(tmp_path: Path, look: Look) -> None:
    path = write(tmp_path / "list.csv", rows(5))
    before = look(path)
    os.utime(path, ns=(HOUR_AGO_NS, HOUR_AGO_NS))
    assert look(path) == before


def test_the_digest_is_that_of_the_parts_rows_in_the_list_that_is_downloaded(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", [*rows(5), {"URL": "", "TEXT": "ü", "score": "nan"}])
    source = parse_source({"kind": "list", "path": str(path)})
    seen = look_at(source, 4, "mine", tmp_path)
    write_urls(source, tmp_path / "urls.parquet", list(list_columns(source)))
    urls = pl.read_parquet(tmp_path / "urls.parquet")
    assert [PartState(sha256_rows(part), None) for part in parts_of([urls], 4)] == seen.parts


def test_a_part_whose_rows_were_changed_while_the_run_went_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", [{"URL": "file:///a", "TEXT": str(i)} for i in range(6)])
    source, out = parse_source({"kind": "list", "path": str(path)}), tmp_path / "urls.parquet"
    write_urls(source, out, [])
    with path.open("a") as file:
        file.write("file:///b,new\n")
    states = look_at(source, 4, "mine", tmp_path).parts

    def part(index: int) -> Part:
        files = tmp_path / f"{index}.tar", tmp_path / f"{index}.parquet"
        return Part(out, index * 4, 4, Download(), *files, rows=states[index].rows)

    assert download_from(source, part(0))["rows"] == 4
    with pytest.raises(
        ValueError, match=r"urls.parquet: rows 4 to 5 are not those that the source has now; .*"
    ):
        download_from(source, part(1))


TELLING = [
    pl.Series([None, None, 1.0]), pl.Series([None, 0.0, 1.0]), pl.Series([0.0, None, 1.0]),
    pl.Series([0, None, 1]), pl.Series([False, None, True]), pl.Series([0, None, 1], dtype=pl.UInt8),
    pl.Series(["ab", "", None]), pl.Series(["a", "b", None]), pl.Series(["ab", None, ""]),
    pl.Series([["a"], ["b"], None]), pl.Series([["a", "b"], [], None]), pl.Series([["ab"], [], None]),
    pl.Series([["a", None], ["b"], None]), pl.Series([0.0, None, float("nan")]),
]  # fmt: skip


def test_digests_of_rows_tell_values_types_names_and_nulls_apart() -> None:
    digests = [sha256_rows(pl.DataFrame({"x": values})) for values in TELLING]
    digests += [
        sha256_rows(pl.DataFrame({"y": TELLING[0]})),
        sha256_rows(pl.DataFrame({"x": TELLING[0][:2]})),
    ]
    assert len(set(digests)) == len(TELLING) + 2
    # Results that lie for years are judged by it.
    told = pl.DataFrame({"row": [0, 1], "url": ["a", None], "is": [True, None], "of": [["b"], None]})
    assert sha256_rows(told) == "f4f227b34c03334a7bfa53064c19fd73daa8c7fbb0fa654e570d0e15eaac9a25"


# What is kept of a look.


def test_a_list_is_read_once_while_its_size_and_time_stay(
    tmp_path: Path, look: Look, read: list[str]
) -> None:
    path = write(tmp_path / "list.csv", rows(9))
    before = look(path)
    assert look(path) == before and read == ["list.csv"]
    # Other parts are cut without reading it.
    assert len(look(path, rows_per_part=5).parts) == 2 and read == ["list.csv"]
    write(path, rows(10))
    assert changed(before, look(path)) == {2} and read == ["list.csv"] * 2
    # As long as before, and with its time put back: what `rsync -t` of another file leaves.
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b"picture 3", b"Picture 3"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert changed(before, look(path)) == {0, 2} and read == ["list.csv"] * 3


def test_a_list_that_was_written_just_now_is_read_again(
    tmp_path: Path, look: Look, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_COARSEST_NS", 60_000_000_000)
    path = write(tmp_path / "list.csv", rows(3))
    assert look(path) == look(path) and read == ["list.csv"] * 2


def test_of_many_lists_only_those_are_read_that_are_new_or_changed(
    tmp_path: Path, look: Look, read: list[str]
) -> None:
    for number in range(4):
        write(tmp_path / f"lists/{number}.csv", rows(10)[number * 2 : number * 2 + 2])
    folder = tmp_path / "lists"
    before = look(folder, rows_per_part=3)
    assert read == ["0.csv", "1.csv", "2.csv", "3.csv"]
    write(folder / "1.csv", rows(12)[-2:])
    write(folder / "4.csv", rows(10)[8:9])
    now = look(folder, rows_per_part=3)
    assert read[4:] == ["1.csv", "4.csv"] and changed(before, now) == {0, 1, 2}
    (folder / "0.csv").unlink()
    last = look(folder, rows_per_part=3)
    assert len(read) == 6
    # The same as if nothing had been kept.
    last.path.unlink()
    assert look(folder, rows_per_part=3) == last


@pytest.mark.parametrize("damage", ["nothing", "no footer", "other options", "another version"])
def test_what_is_damaged_or_was_kept_of_something_else_is_read_again(
    tmp_path: Path, look: Look, read: list[str], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "list.csv", rows(3))
    before = look(path)
    if damage == "nothing":
        before.path.write_bytes(b"")
    elif damage == "no footer":
        pl.read_parquet(before.path).write_parquet(before.path)
    elif damage == "another version":
        monkeypatch.setattr(listing, "_VERSION", 0)
    else:
        look_at(
            parse_source({"kind": "list", "path": str(path), "caption_column": "URL"}),
            4,
            "mine",
            tmp_path / "kept",
        )
        read.pop()
    assert look(path) == before and read == ["list.csv"] * 2
    assert not list((tmp_path / "kept").glob(".*"))


def test_a_look_that_fails_leaves_what_was_kept(tmp_path: Path, look: Look) -> None:
    path = write(tmp_path / "list.csv", rows(3))
    kept = look(path).path.read_bytes()
    path.write_text("URL,TEXT,score\na,b,1\nc\n")
    with pytest.raises(ValueError, match=r"list.csv: line 3 has 1 fields where the header has 3"):
        look(path)
    assert look(write(path, rows(3))).path.read_bytes() != b"" and kept
    assert not list((tmp_path / "kept").glob(".*"))


# Folders.


def folder_of(path: Path, num: int) -> Path:
    for i in range(num):
        (path / f"{i}").parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path / f"{i}.png")
        (path / f"{i}.txt").write_text(f"picture {i}")
    return path


def test_of_a_folder_each_files_size_and_time_and_each_caption_reach_their_part(
    tmp_path: Path, look_in: Look
) -> None:
    folder = folder_of(tmp_path / "mine", 8)
    source = parse_source({"kind": "pictures", "folder": str(folder)})

    def now() -> Listing:
        return look_in(source, 3)

    first = now()
    assert first.num_rows == 8 and now() == first
    Image.new("RGB", (8, 8), "blue").save(folder / "4.png")
    second = now()
    assert changed(first, second) == {1}
    # The list is the same: what it says of the pictures has not changed.
    assert [state.rows for state in first.parts] == [state.rows for state in second.parts]
    (folder / "6.txt").write_text("other words")
    third = now()
    assert changed(second, third) == {2}
    (folder / "7.txt").unlink()
    fourth = now()
    assert changed(third, fourth) == {2}
    Image.new("RGB", (8, 8)).save(folder / "9.png")
    fifth = now()
    assert changed(fourth, fifth) == {2}
    (folder / "notes.md").write_text("neither picture nor caption")
    assert now() == fifth


def test_the_prompts_of_classes_reach_the_parts_of_their_pictures(tmp_path: Path, look_in: Look) -> None:
    for name in ("a", "b"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"mine/{name}/1.png")
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"a": "an a", "b": "a b"}')
    source = parse_source({"kind": "classes", "folder": str(tmp_path / "mine"), "prompts": str(prompts)})
    before = look_in(source, 1)
    prompts.write_text('{"a": "an a", "b": "letter b"}')
    assert changed(before, look_in(source, 1)) == {1}


def test_an_empty_list_is_one_part_without_rows(tmp_path: Path, look: Look) -> None:
    (tmp_path / "list.csv").write_text("URL,TEXT\n")
    seen = look(tmp_path / "list.csv")
    assert seen.num_rows == 0 and len(seen.parts) == 1
