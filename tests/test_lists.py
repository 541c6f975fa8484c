"""Lists as people have them: formats, folders, patterns, mistakes; read as a stream."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from darkroom.config.dataset import parse_source
from darkroom.sources.table import count_rows, list_columns, write_urls
from darkroom.store import read_table, sha256_file, write_batches, write_table

TEXT = 'grün, with "quotes",\na tab\t and a second line'
ROWS: list[dict[str, Any]] = [
    {"URL": "http://a.example/1.jpg", "TEXT": TEXT, "pwatermark": 0.25, "WIDTH": 640, "other": "x"},
    {"URL": "http://a.example/2.jpg", "TEXT": None, "pwatermark": None, "WIDTH": 480, "other": "y"},
    {"URL": None, "TEXT": "no address", "pwatermark": 1.0, "WIDTH": None, "other": "z"},
]
FORMATS = ("parquet", "csv", "tsv", "jsonl", "ndjson", "csv.gz", "tsv.gz", "jsonl.gz")


def write_list(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".parquet"):
        write_table(path, pl.DataFrame(rows), sort_by=None)
        return path
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if "json" in path.name:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            out = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ".tsv" in path.name else ",")
            out.writeheader()
            out.writerows(rows)
    return path


def source_of(path: Path | str, **values: Any) -> Any:
    return parse_source({"kind": "list", "path": str(path), **values})


def listed(source: Any, out: Path) -> pl.DataFrame:
    assert write_urls(source, out, list(list_columns(source))) == count_rows(source)
    return read_table(out)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_list_gives_the_same_urls_in_every_format(tmp_path: Path, ending: str) -> None:
    expected = listed(source_of(write_list(tmp_path / "list.parquet")), tmp_path / "expected.parquet")
    assert expected["caption"][0] == TEXT and expected["WIDTH"].to_list() == [640, 480, None]
    assert expected.columns[:5] == ["row", "url", "caption", "captions", "repeat_of"]
    assert expected.columns[5:] == ["pwatermark", "WIDTH", "other"]
    found = listed(source_of(write_list(tmp_path / f"mine.{ending}")), tmp_path / "urls.parquet")
    assert found.equals(expected) and found.schema == expected.schema
    assert sha256_file(tmp_path / "urls.parquet") == sha256_file(tmp_path / "expected.parquet")


def test_a_folder_and_a_pattern_are_all_their_lists_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    write_list(folder / "b/2.csv", ROWS[1:2])
    write_list(folder / "a.parquet", ROWS[:1])
    write_list(folder / "c.jsonl.gz", ROWS[2:])
    for name in ("README.md", "_SUCCESS", ".hidden.csv", "_temporary/0.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("neither")
    whole = listed(source_of(write_list(tmp_path / "whole.parquet")), tmp_path / "expected.parquet")
    assert listed(source_of(folder), tmp_path / "urls.parquet").equals(whole)
    deep = listed(source_of(folder / "**/2.*"), tmp_path / "urls.parquet")
    assert deep["url"].to_list() == [ROWS[1]["URL"]]


def test_carried_columns_are_the_first_files_and_null_where_another_lacks_them(tmp_path: Path) -> None:
    write_list(tmp_path / "lists/1.csv", [{"URL": "http://a.example", "TEXT": "a", "Similarity": "0.5"}])
    write_list(tmp_path / "lists/2.jsonl", [{"URL": "http://b.example", "TEXT": "b", "similarity": "?"}])
    write_list(tmp_path / "lists/3.parquet", [{"URL": "http://c.example", "TEXT": "c"}])
    found = listed(source_of(tmp_path / "lists"), tmp_path / "urls.parquet")
    assert found["Similarity"].to_list() == [0.5, None, None]
    assert found["row"].to_list() == [0, 1, 2]


HEAD = "URL,TEXT\n"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("list.xlsx", b"PK", r"source.path: .*list.xlsx is no list; its name should end in .parquet, .csv, "),
        ("list.csv", b"", r"source.path: .*list.csv: is empty; its first line should name the columns"),
        ("list.csv", b"url,TEXT\n", r"list.csv: no column 'URL' \(source.url_column\); it has url, TEXT"),
        (
            "list.csv",
            HEAD.encode() + b"a,b\nc\n",
            r"source.path: .*: line 3 has 1 fields where the header has 2",
        ),
        ("list.csv", HEAD.encode() + b'"a"b,c\n', r"source.path: .*: line 2: "),
        ("list.csv", HEAD.encode() + b"a,gr\xfcn\n", r"source.path: .*list.csv: is no text in UTF-8"),
        ("list.csv.gz", HEAD.encode(), r"source.path: .*list.csv.gz: cannot be read"),
        ("list.jsonl", b'{"URL": 1, "TEXT": 2}\n{"URL"\n', r"source.path: .*: line 2 is no JSON"),
        ("list.jsonl", b"[1]\n", r"source.path: .*: line 1 should be an object with a row's columns"),
        ("list.jsonl", b'{"url": "a"}\n', r"list.jsonl: no column 'URL' \(source.url_column\); it has url"),
        ("list.parquet", b"PAR1 and no more", r"source.path: .*list.parquet: cannot be read"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_by_file_option_and_line(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        source = source_of(tmp_path / name)
        count_rows(source)
        write_urls(source, tmp_path / "urls.parquet", [])
    assert not (tmp_path / "urls.parquet").exists()


def test_a_path_that_leads_to_no_list_is_refused(tmp_path: Path) -> None:
    for path in ("absent.parquet", "absent/*.csv"):
        with pytest.raises(
            ValueError, match=r"source.path: no file .*absent.*; it should be a list \(.parquet, "
        ):
            count_rows(source_of(tmp_path / path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"source.path: .*empty holds no list \(.parquet, .csv"):
        count_rows(source_of(tmp_path / "empty"))


def test_how_a_table_is_cut_into_batches_does_not_show_in_its_bytes(tmp_path: Path) -> None:
    table = pl.DataFrame({"row": range(300_000), "text": [f"row {i}" for i in range(300_000)]})
    for number, size in enumerate((1_000, 70_001, 300_000)):
        batches = (table[i : i + size] for i in range(0, len(table), size))
        assert write_batches(tmp_path / f"{number}.parquet", batches) == 300_000
    assert len({sha256_file(tmp_path / f"{i}.parquet") for i in range(3)}) == 1
    assert read_table(tmp_path / "0.parquet").equals(table)
    write_table(tmp_path / "small.parquet", table[:1000], sort_by=None)
    write_batches(tmp_path / "again.parquet", [table[:400], table[400:1000]])
    assert sha256_file(tmp_path / "small.parquet") == sha256_file(tmp_path / "again.parquet")


PEAK = """
import sys
from pathlib import Path
from darkroom.config.dataset import parse_source
from darkroom.sources.table import count_rows, list_columns, write_urls

source = parse_source({"kind": "list", "path": sys.argv[1]})
count_rows(source)
write_urls(source, sys.argv[2], list(list_columns(source)))
print(int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) // 1024)
"""


@pytest.mark.parametrize(
    ("ending", "sizes"), [("parquet", (300_000, 1_200_000)), ("csv", (300_000, 900_000))]
)
def test_memory_does_not_grow_with_the_list(tmp_path: Path, ending: str, sizes: tuple[int, int]) -> None:
    peaks_mb = []
    for num in sizes:
        rows = pl.DataFrame({"URL": pl.int_range(num, eager=True)}).select(
            URL=pl.format("http://pictures.example/a/longer/path/{}.jpg", "URL"),
            TEXT=pl.format("{} a caption of some words, as long as those of LAION are about", "URL"),
            unused=pl.format("{}" + "x" * 40, "URL"),
        )
        path = tmp_path / f"{num}.{ending}"
        rows.write_parquet(path) if ending == "parquet" else rows.write_csv(path)
        command = [sys.executable, "-c", PEAK, str(path), str(tmp_path / "urls.parquet")]
        peaks_mb.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    # Read whole, as lists once were, 600,000 rows took 400 MB; allocators keep some tens of MB.
    assert peaks_mb[1] < peaks_mb[0] + 120, peaks_mb
