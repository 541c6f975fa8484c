"""The download stage as a whole: every row ends with a status, and twice the same bytes."""

import hashlib
import io
import json
import logging
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from PIL import Image
from test_download_server import GOOD, Server, serving, settings

from darkroom import store
from darkroom.download import driven, fetch, writer
from darkroom.download.journal import Journal
from darkroom.download.stage import download_part

HOST = "http://images.example:80"

FAULTS = {
    "/404.jpg": "http_404",
    "/410.jpg": "http_410",
    "/busy.jpg": "http_503",
    "/drip.jpg": "timeout",
    "/stall.jpg": "timeout",
    "/reset.jpg": "connection_error",
    "/endless.jpg": "too_many_bytes",
    "/loop.jpg": "too_many_redirects",
    "/to-private.jpg": "blocked_address",
    "/to-file.jpg": "blocked_scheme",
    "/noai.jpg": "opted_out",
    "/empty.jpg": "empty_body",
    "/page.jpg": "not_an_image",
    "/truncated.jpg": "truncated_image",
    "/bomb.png": "too_many_pixels",
    "/animated.gif": "animated_image",
    "/vector.svg": "unsupported_image",
}
FINE = ["/good.jpg", "/copy.jpg", "/large.png", "/redirect.jpg", "/noai-others.jpg", "/busy-once.jpg"]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "RETRY_WAIT_S", 0.02)


def write_list(path: Path, urls: list[str | None], **columns: object) -> Path:
    count = len(urls)
    table: dict[str, object] = {
        "row": range(count),
        "url": urls,
        "caption": [f"picture {i}" for i in range(count)],
        "similarity": pl.Series([0.3] * count, dtype=pl.Float64),
        "pwatermark": pl.Series([0.1] * count, dtype=pl.Float64),
        "punsafe": pl.Series([None] * count, dtype=pl.Float64),
        "width": [640] * count,
        "height": [480] * count,
    }
    kept = {name: values for name, values in {**table, **columns}.items() if values is not None}
    pl.DataFrame(kept).write_parquet(path)
    return path


def run(
    urls: Path, folder: Path, server: Server | None = None, first_row: int = 0, num_rows: int = 100
) -> tuple[dict[str, object], pl.DataFrame, Path]:
    to = {"images.example:80": f"127.0.0.1:{server.server_port}"} if server else None
    tar, table = folder / "part-00000.tar", folder / "part-00000.parquet"
    chosen = settings(
        num_retries=1, max_bytes=1_000_000, max_pixels=1_000_000, timeout_s=0.8, total_timeout_s=1.8
    )
    counts = download_part(urls, first_row, num_rows, chosen, tar, table, to)
    return dict(counts), store.read_table(table).sort("row"), tar


def test_every_fault_of_a_web_server_ends_in_its_status_and_pictures_arrive(
    server: Server, tmp_path: Path
) -> None:
    paths = [*FAULTS, *FINE]
    urls = write_list(tmp_path / "urls.parquet", [HOST + path for path in paths])
    counts, table, tar = run(urls, tmp_path, server)
    found = dict(zip(paths, table["status"], strict=True))
    assert found == {**FAULTS, **dict.fromkeys(FINE, "ok")}
    assert counts["rows"] == len(paths)
    assert sum(counts["status"].values()) == len(paths)  # type: ignore[attr-defined]
    assert table["error"].is_null().to_list() == [status == "ok" for status in table["status"]]
    assert not any(str(server.server_port) in error for error in table["error"].drop_nulls())
    assert list(tmp_path.glob(".*")) == []
    with tarfile.open(tar) as shard:
        assert len(shard.getnames()) == 3 * len(FINE)


def test_rows_and_members_carry_the_same_facts(server: Server, tmp_path: Path) -> None:
    captions = ["a red box", None, "green — wide"]
    urls = write_list(
        tmp_path / "urls.parquet",
        [HOST + "/good.jpg", HOST + "/copy.jpg", HOST + "/large.png"],
        caption=captions,
        similarity=[0.25, float("nan"), None],
        width=[float("inf"), 1.0, float("-inf")],
        Language=["en", None, "de"],
        is_ad=[True, False, None],
        STARS=pl.Series([3, None, 250], dtype=pl.UInt8),
    )
    counts, table, tar = run(urls, tmp_path, server)
    carried = {"similarity": pl.Float64, "pwatermark": pl.Float64, "Language": pl.String}
    carried |= {"is_ad": pl.Boolean, "STARS": pl.UInt8}
    assert {name: table.schema[name] for name in carried} == carried
    assert set(table.columns) == {*writer.OWN_COLUMNS, *carried, "punsafe"}
    assert counts["not_finite"] == {"similarity": 1}
    for name, values in (
        ("Language", ["en", None, "de"]),
        ("is_ad", [True, False, None]),
        ("STARS", [3, None, 250]),
    ):
        assert table[name].to_list() == values
    assert table["caption"].to_list() == captions
    assert table["similarity"].to_list() == [0.25, None, None]
    assert table["sha256"][0] == table["sha256"][1] == hashlib.sha256(GOOD).hexdigest()
    assert table["num_bytes"][0] == len(GOOD)
    assert table.select("width", "height", "original_width", "original_height").rows() == [
        (48, 32, 48, 32),
        (48, 32, 48, 32),
        (64, 32, 200, 100),
    ]
    with tarfile.open(tar) as shard, store.TarReader(tar) as reader:
        assert shard.getnames() == sorted(shard.getnames())
        for row in table.iter_rows(named=True):
            assert row["uid"] == store.sample_uid(row["url"], row["sha256"])
            jpeg = reader.read(row["offset"], row["size"])
            assert jpeg == shard.extractfile(row["uid"] + ".jpg").read()  # type: ignore[union-attr]
            with Image.open(io.BytesIO(jpeg)) as image:
                assert image.size == (row["width"], row["height"])
            text = shard.extractfile(row["uid"] + ".txt").read()  # type: ignore[union-attr]
            assert text.decode() == (row["caption"] or "")
            told = json.loads(shard.extractfile(row["uid"] + ".json").read())  # type: ignore[union-attr]
            assert told == {k: row[k] for k in told}
            assert {"uid", "url", "caption", "sha256", "width", "original_width"} <= set(told)


def test_a_second_run_after_a_killed_one_writes_the_same_bytes(server: Server, tmp_path: Path) -> None:
    urls = write_list(tmp_path / "urls.parquet", [HOST + path for path in [*FINE, *FAULTS] * 2])
    _, _, tar = run(urls, tmp_path, server)
    before = (tar.read_bytes(), tar.with_suffix(".parquet").read_bytes())
    (tmp_path / ".part-00000.tar.work").mkdir()
    (tmp_path / ".part-00000.tar.work" / "urls.arrow").write_text("half a file")
    _, _, tar = run(urls, tmp_path, server)
    assert (tar.read_bytes(), tar.with_suffix(".parquet").read_bytes()) == before
    assert list(tmp_path.glob(".*")) == []


def test_a_repeated_url_is_fetched_once_and_keeps_its_own_identity(server: Server, tmp_path: Path) -> None:
    paths = ["/good.jpg", "/404.jpg", "/good.jpg", "/404.jpg", "/good.jpg"]
    urls = write_list(tmp_path / "urls.parquet", [HOST + path for path in paths])
    counts, table, _ = run(urls, tmp_path, server)
    assert counts["status"] == {"duplicate_url": 3, "http_404": 1, "ok": 1}
    assert table["status"].to_list() == ["ok", "http_404", *["duplicate_url"] * 3]
    assert table["error"][2] == "row 0 has the same URL"
    assert table["uid"][4] == store.sample_uid(HOST + "/good.jpg#row=4", "")
    assert table["uid"].n_unique() == 5
    assert server.requests == {"/good.jpg": 1, "/404.jpg": 1}


def test_urls_that_cannot_be_fetched_are_rows_with_a_status(tmp_path: Path) -> None:
    bad = ["file:///etc/passwd", "ftp://a.example/b.jpg", "c.jpg", "", None, "http://", "http://10.0.0.1/x"]
    urls = write_list(tmp_path / "urls.parquet", bad)
    _, table, tar = run(urls, tmp_path)
    assert table["status"].to_list() == [
        *["blocked_scheme"] * 3,
        *["no_url"] * 2,
        "invalid_url",
        "blocked_address",
    ]
    with tarfile.open(tar) as shard:
        assert shard.getnames() == []


def test_a_part_is_a_slice_of_the_list_and_the_last_may_be_short(server: Server, tmp_path: Path) -> None:
    urls = write_list(tmp_path / "urls.parquet", [f"{HOST}/404.jpg?{i}" for i in range(5)])
    for i in range(5):
        server.routes[f"/404.jpg?{i}"] = server.routes["/404.jpg"]
    counts, table, _ = run(urls, tmp_path, server, first_row=3, num_rows=3)
    assert (counts["rows"], table["row"].to_list()) == (2, [3, 4])


def test_an_empty_list_gives_an_empty_part(tmp_path: Path) -> None:
    urls = write_list(tmp_path / "urls.parquet", [])
    counts, table, _ = run(urls, tmp_path)
    assert counts == {"rows": 0, "status": {}}
    assert table.schema == writer.table_schema(pl.read_parquet(urls))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"url": None}, r"urls.parquet: no column 'url'; it has row, caption"),
        ({"url": [1, 2]}, "column 'url' holds Int64, it should hold text"),
        ({"row": [0, 2]}, "line 1 has row 2; column 'row' should count from 0"),
        ({"row": [0, None]}, "line 1 has row None"),
    ],
)
def test_a_list_that_is_not_one_is_a_clear_error(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    urls = write_list(tmp_path / "urls.parquet", ["http://10.0.0.1/a", "http://10.0.0.1/b"], **columns)
    with pytest.raises(ValueError, match=message):
        run(urls, tmp_path)


def test_a_part_past_the_end_is_a_clear_error(tmp_path: Path) -> None:
    urls = write_list(tmp_path / "urls.parquet", ["http://10.0.0.1/a"])
    with pytest.raises(ValueError, match="row 1 is past the end; the list has 1 rows"):
        run(urls, tmp_path, first_row=1)


def test_a_row_that_img2dataset_loses_is_an_internal_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resize = driven._Pictures.resize

    def lost(self: driven._Pictures, stream: io.BytesIO, bbox_list: object = None) -> tuple[object, ...]:
        found = resize(self, stream, bbox_list)
        if found[3] == 200:
            raise RuntimeError("lost")
        return found

    monkeypatch.setattr(driven._Pictures, "resize", lost)
    urls = write_list(tmp_path / "urls.parquet", [HOST + "/large.png", HOST + "/good.jpg"])
    counts, table, _ = run(urls, tmp_path, server)
    assert "lost" in capsys.readouterr().err
    assert counts["status"] == {"internal_error": 1, "ok": 1}
    assert table["status"].to_list() == ["internal_error", "ok"]


def test_a_full_disk_ends_the_part_and_leaves_its_journal_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Journal._append

    def full(self: Journal, content: bytes) -> None:
        if len(content) > 500:
            raise OSError(28, "No space left on device")
        append(self, content)

    urls = write_list(tmp_path / "urls.parquet", [HOST + "/good.jpg", HOST + "/large.png"])
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Journal, "_append", full)
        run(urls, tmp_path, server)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".part-00000.journal", "urls.parquet"]
    # When there is room again, the part is made.
    assert run(urls, tmp_path, server)[0]["status"] == {"ok": 2}
    assert list(tmp_path.glob(".*")) == []


def test_progress_is_logged(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "LOG_EVERY_S", 0.0)
    urls = write_list(tmp_path / "urls.parquet", [HOST + "/good.jpg", HOST + "/404.jpg"])
    with caplog.at_level(logging.INFO, "darkroom.download"):
        run(urls, tmp_path, server)
    assert "part-00000: 1/2 URLs" in caplog.text
    assert "part-00000: 2 rows, 1 pictures" in caplog.text


def test_the_download_loads_neither_torch_nor_the_rest_of_img2dataset() -> None:
    code = (
        "import sys; from darkroom.download import driven; driven._downloader_class();"
        "print([m for m in ('torch', 'cv2', 'albumentations', 'img2dataset') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
