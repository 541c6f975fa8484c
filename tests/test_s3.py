"""Lists on S3: read through s3fs from a server on loopback (moto's), as from a bucket of Amazon or of MinIO."""

import gzip
import io
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
import s3fs
from s3_server import REMOVED, environment_of, running_server
from test_remote_lists import ROWS, content_of, listed, source_of

from darkroom.config.dataset import parse_source
from darkroom.sources import readers
from darkroom.sources.table import count_rows, look_at

BUCKET = "lists"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server of S3 on this machine."""
    with running_server() as address:
        yield address


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket, and the environment that leads s3fs to it as a user's does."""
    urllib.request.urlopen(f"{server}/moto-api/reset", data=b"").close()
    for name in REMOVED:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment_of(server).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    s3fs.S3FileSystem.clear_instance_cache()


def put(client: Any, name: str, content: bytes) -> None:
    """Write an object as another process does: what this one has seen of the bucket does not know."""
    client.put_object(Bucket=BUCKET, Key=name, Body=content)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("name", ["list.parquet", "list.csv", "list.tsv.gz", "list.jsonl.gz"])
def test_a_list_on_s3_is_that_of_a_file(bucket: Any, tmp_path: Path, name: str) -> None:
    content = content_of(name)
    if "tsv" in name:
        content = content_of("list.csv")
        content = gzip.compress(content.replace(b",", b"\t"))
    put(bucket, f"2026/{name}", content)
    (tmp_path / name).write_bytes(content)
    found = listed(source_of(f"s3://{BUCKET}/2026/{name}"), tmp_path)
    assert found.equals(listed(source_of(str(tmp_path / name)), tmp_path)) and len(found) == 10


def test_a_folder_and_a_pattern_are_all_their_lists_and_hidden_names_are_passed_over(
    bucket: Any, tmp_path: Path
) -> None:
    # As Spark leaves a folder, and as consoles make one: an empty object whose name ends with a slash.
    put(bucket, "mine/", b"")
    put(bucket, "mine/b/part-1.jsonl", content_of("x.jsonl", ROWS[6:]))
    put(bucket, "mine/a/part-0.parquet", content_of("x.parquet", ROWS[:6]))
    put(bucket, "mine/_SUCCESS", b"")
    put(bucket, "mine/_temporary/0/part-0.csv", content_of("x.csv"))
    put(bucket, "mine/.part-0.csv", content_of("x.csv"))
    put(bucket, "mine/notes.md", b"# no list")
    found = listed(source_of(f"s3://{BUCKET}/mine"), tmp_path)
    assert found["url"].to_list() == [row["URL"] for row in ROWS]
    assert listed(source_of(f"s3://{BUCKET}/mine/"), tmp_path).equals(found)
    assert count_rows(source_of(f"s3://{BUCKET}/mine/*/*.jsonl")) == 4
    assert count_rows(source_of(f"s3://{BUCKET}/mine/{{a,b}}/part-*")) == 10


def test_only_what_was_written_since_is_read_again_and_only_its_parts_change(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    read_rows = readers.read_rows
    monkeypatch.setattr(
        readers, "read_rows", lambda path, *more: read.append(path.name) or read_rows(path, *more)
    )
    put(bucket, "mine/0.csv", content_of("x.csv", ROWS[:4]))
    put(bucket, "mine/1.csv", content_of("x.csv", ROWS[4:8]))
    source = source_of(f"s3://{BUCKET}/mine")
    first = look_at(source, 4, "mine", tmp_path).parts
    assert look_at(source, 4, "mine", tmp_path).parts == first and read == ["0.csv", "1.csv"]
    put(bucket, "mine/2.csv", content_of("x.csv", ROWS[8:]))
    grown = look_at(source, 4, "mine", tmp_path).parts
    assert grown[:2] == first and len(grown) == 3 and read[2:] == ["2.csv"]
    changed = [{**row, "TEXT": "other words"} for row in ROWS[4:8]]
    put(bucket, "mine/1.csv", content_of("x.csv", changed))
    now = look_at(source, 4, "mine", tmp_path).parts
    assert [a == b for a, b in zip(now, grown, strict=True)] == [True, False, True] and read[3:] == ["1.csv"]


def test_of_parquet_only_the_named_columns_are_sent(bucket: Any, tmp_path: Path) -> None:
    noise = pl.Series("embedding", [bytes([i]) + os.urandom(1_000_000) for i in range(10)])
    out = io.BytesIO()
    pl.DataFrame(ROWS).with_columns(noise).write_parquet(out, compression="uncompressed")
    put(bucket, "wide.parquet", out.getvalue())
    sent: list[int] = []
    fetch = s3fs.core.S3File._fetch_range

    def counted(self: Any, start: int, end: int) -> bytes:
        sent.append(end - start)
        return fetch(self, start, end)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3fs.core.S3File, "_fetch_range", counted)
        assert len(listed(source_of(f"s3://{BUCKET}/wide.parquet"), tmp_path)) == 10
    assert sent and sum(sent) < len(out.getvalue()) / 10


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("s3://lists/absent.csv", r"source.path: s3://lists/absent.csv leads to no list \(.parquet, .csv"),
        ("s3://absent/list.csv", r"source.path: s3://absent/list.csv leads to no list"),
        ("s3://lists/damaged.parquet", r"source.path: s3://lists/damaged.parquet: cannot be read \("),
        ("s3://lists/empty/", r"source.path: s3://lists/empty/ leads to no list"),
    ],
)
def test_what_leads_to_no_list_is_refused_by_its_address(bucket: Any, path: str, told: str) -> None:
    put(bucket, "damaged.parquet", b"PAR1" + b"x" * 100 + b"PAR1")
    put(bucket, "empty/", b"")
    with pytest.raises(ValueError, match=told):
        count_rows(source_of(path))


def test_without_credentials_the_address_and_what_is_missing_are_told(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(bucket, "list.csv", content_of("list.csv"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"source.path: s3://lists/list.csv: cannot be listed \(.*redentials"
    ):
        count_rows(source_of("s3://lists/list.csv"))


def test_pictures_on_s3_are_refused_before_anything_is_read() -> None:
    for kind in ("webdataset", "tables_of_pictures"):
        with pytest.raises(ValueError, match=r"source.path: s3://lists/a: a \w+ is read from this machine"):
            count_rows(parse_source({"kind": kind, "path": "s3://lists/a"}))
    with pytest.raises(ValueError, match=r"source.folder: .*s3://lists/a"):
        count_rows(parse_source({"kind": "pictures", "folder": "s3://lists/a"}))
