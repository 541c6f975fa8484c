"""Rounds of retries: rows that failed for a while arrive later, beside parts that stay as they are."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT
from filter_inputs import KEEP, LABELS, gone, sample
from test_download_server import Server, serving, settings
from test_download_stage import HOST, write_list

from darkroom import store
from darkroom.config import load_project
from darkroom.config.retries import Retries, retries_text
from darkroom.config.yaml_files import read_yaml
from darkroom.download.rounds import find_failed, next_round, rows_to_retry
from darkroom.download.stage import download_part, retry_part
from darkroom.download.writer import table_schema
from darkroom.filter import funnel, select_part
from darkroom.publish.stages import stage_entry
from darkroom.score import score_dataset, score_part
from darkroom.scorers.table import SCORERS
from darkroom.stages import manifest_path, problems, settings_digest, stage_settings
from darkroom.store import add_counts, retry_name


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def test_rows_that_failed_for_a_while_arrive_in_parts_of_their_own(server: Server, tmp_path: Path) -> None:
    names = ["/good.jpg", "/a.jpg", "/404.jpg", "/b.jpg", "/copy.jpg", "/c.jpg"]
    busy, good = server.routes["/busy.jpg"], server.routes["/good.jpg"]
    for name in ("/a.jpg", "/b.jpg", "/c.jpg"):
        server.routes[name] = busy
    urls = write_list(tmp_path / "urls.parquet", [HOST + name for name in names], Language=["en"] * 6)
    to = {"images.example:80": f"127.0.0.1:{server.server_port}"}
    tables: dict[str, Path] = {}
    total: dict[str, int] = {}

    def out(name: str) -> tuple[Path, Path]:
        tables[name] = tmp_path / f"{name}.parquet"
        return tmp_path / f"{name}.tar", tables[name]

    for index in range(2):
        counts = download_part(urls, 3 * index, 3, settings(), *out(store.part_name(index)), to)
        add_counts(total, counts)
    assert total == {"rows": 6, "status": {"ok": 2, "http_404": 1, "http_503": 3}}
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    rounds: tuple[tuple[tuple[str, ...], ...], ...] = ()
    for number, healed in ((1, "/b.jpg"), (2, "/a.jpg"), (3, "/c.jpg")):
        server.routes[healed] = good
        failed = find_failed(tables, rounds)
        assert failed.by_status == {"http_503": 4 - number}
        rounds = (*rounds, next_round(failed, rounds, 3, 6))
        asked = dict(server.requests)
        for index, sources in enumerate(rounds[-1]):
            taken = [tables[source] for source in sources]
            counts = retry_part(taken, number, settings(), *out(retry_name(number, index)), to)
            assert counts["rows"] == 0 and counts["retried"] == 4 - number
            add_counts(total, counts)
        assert sum(server.requests.values()) - sum(asked.values()) == 4 - number
    assert find_failed(tables, rounds).by_part == {}
    assert total == {"rows": 6, "retried": 6, "status": {"ok": 5, "http_404": 1, "http_503": 0}}
    assert {path: path.read_bytes() for path in before} == before

    everything = pl.concat([store.read_table(table) for table in tables.values()])
    stored = everything.filter(pl.col("status") == "ok")
    assert stored["uid"].is_unique().all() and sorted(stored["row"]) == [0, 1, 3, 4, 5]
    assert stored.sort("row")["round"].to_list() == [0, 2, 1, 0, 3]
    assert stored["Language"].to_list() == ["en"] * 5
    # As they would be had nothing failed.
    fine = download_part(urls, 0, 6, settings(), tmp_path / "all.tar", tmp_path / "all.parquet", to)
    assert fine["status"] == {"ok": 5, "http_404": 1}
    once = store.read_table(tmp_path / "all.parquet").filter(pl.col("status") == "ok")
    same = ["uid", "row", "caption", "sha256", "width", "height", "Language", "size"]
    assert once.select(same).sort("row").equals(stored.select(same).sort("row"))
    assert list(tmp_path.glob(".*")) == []


def test_a_round_without_failed_rows_is_an_empty_part(server: Server, tmp_path: Path) -> None:
    urls = write_list(tmp_path / "urls.parquet", [f"{HOST}/good.jpg"])
    to = {"images.example:80": f"127.0.0.1:{server.server_port}"}
    download_part(urls, 0, 1, settings(), tmp_path / "a.tar", tmp_path / "a.parquet", to)
    counts = retry_part(
        [tmp_path / "a.parquet"], 1, settings(), tmp_path / "b.tar", tmp_path / "b.parquet", to
    )
    assert counts == {"rows": 0, "retried": 0, "status": {}}
    assert store.read_table(tmp_path / "b.parquet").schema == store.read_table(tmp_path / "a.parquet").schema


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    carried = {"pwatermark": pl.Float64, "punsafe": pl.Float64}
    listed = {"row": pl.Int64, "url": pl.String, "caption": pl.String}
    schema = table_schema(pl.DataFrame(schema={**listed, **carried}))
    full = [{**dict.fromkeys(schema), **row} for row in rows]
    store.write_table(path, pl.DataFrame(full, schema=schema, orient="row"))
    return path


def test_what_is_transient_is_retried_and_nothing_else(tmp_path: Path) -> None:
    statuses = ["ok", "timeout", "http_404", "http_503", "http_429", "job_died", "opted_out", "http_599"]
    rows = [gone(i, status) if status != "ok" else sample(i) for i, status in enumerate(statuses)]
    found, before = rows_to_retry([table(tmp_path / "a.parquet", rows)])
    assert found["row"].to_list() == [1, 3, 4, 7]
    assert before == ["timeout", "http_503", "http_429", "http_599"]
    assert found.columns == ["row", "url", "caption", "captions", "pwatermark", "punsafe"]
    with pytest.raises(ValueError, match="row 1 is in two of"):
        rows_to_retry([tmp_path / "a.parquet", tmp_path / "a.parquet"])


def test_every_row_counts_once_in_the_funnel_and_an_earlier_copy_stays_the_original(tmp_path: Path) -> None:
    copy = "ab" * 32
    first = [gone(0, "timeout"), sample(1, sha256=copy), gone(2, "http_503"), gone(3, "http_404")]
    # Row 0 turns out to be a copy of row 1, which is kept since the first round.
    again = [
        sample(0, round=1, uid="f" * 32, sha256=copy),
        gone(2, "http_503", round=1),
    ]
    parts = {
        "part-00000": table(tmp_path / "0.parquet", first),
        "part-r01-00000": table(tmp_path / "1.parquet", again),
    }
    duplicates = {name: tmp_path / f"{name}.duplicate.parquet" for name in parts}
    tables = list(parts.values())
    score_dataset("duplicate", {}, tables[:1], duplicates["part-00000"])
    counts = score_dataset("duplicate", {}, tables[1:], duplicates["part-r01-00000"], tables[:1]).counts
    assert counts == {"duplicate": {"rows": 2}}
    told = store.read_table(duplicates["part-r01-00000"])
    assert told.select("row", "duplicate", "first_row").rows() == [(0, True, 1), (2, None, None)]
    total: dict[str, object] = {}
    selections = []
    for name, path in parts.items():
        sizes, selection = tmp_path / f"{name}.size.parquet", tmp_path / f"{name}.selection.parquet"
        score_part("size", {}, path, None, sizes)
        scores = {
            sizes: tuple(SCORERS["size"].columns),
            duplicates[name]: tuple(SCORERS["duplicate"].columns),
        }
        add_counts(total, select_part(path, scores, KEEP, selection))
        selections.append(selection)
    counted = funnel(selections, KEEP)
    assert (counted["rows"], counted["kept"]) == (4, 1)
    assert counted["status"] == {"http_404": 1, "http_503": 1, "ok": 2}
    dropped = {step["criterion"]: step["first_failure"] for step in counted["criteria"]}
    assert dropped == {**dict.fromkeys(LABELS, 0), "download": 2, "duplicate": 1}
    assert (total["rows"], total["kept"], total["dropped"]) == (4, 1, dropped)
    with pytest.raises(ValueError, match="row 0 is in two parts"):
        funnel([*selections, selections[0]], KEEP)


def test_a_round_packs_whole_parts_and_keeps_one_that_may_grow_alone(tmp_path: Path) -> None:
    failures = {0: 2, 1: 2, 2: 0, 3: 3, 4: 1, 5: 1}
    tables = {
        store.part_name(i): table(tmp_path / f"{i}.parquet", [gone(10 * i + k, "timeout") for k in range(n)])
        for i, n in failures.items()
    }
    first = next_round(find_failed(tables, ()), (), 4, 22)
    assert first == (("part-00000", "part-00001"), ("part-00003", "part-00004"), ("part-00005",))
    assert next_round(find_failed(tables, ()), (), 4, 24)[-1] == ("part-00005",)
    assert next_round(find_failed(tables, ()), (), 5, 25)[-1] == ("part-00003", "part-00004", "part-00005")
    for i in range(3):
        tables[retry_name(1, i)] = table(tmp_path / f"r{i}.parquet", [gone(i, "timeout")])
    second = next_round(find_failed(tables, (first,)), (first,), 4, 22)
    assert second == (("part-r01-00000", "part-r01-00001"), ("part-r01-00002",))
    assert next_round(find_failed(tables, (first,)), (first,), 4, 24) == (
        ("part-r01-00000", "part-r01-00001", "part-r01-00002"),
    )


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        ([[["part-00000"], ["part-00000"]]], "part-00000 is taken up twice"),
        ([[["part-00000"]], [["part-00000"]]], "part-00000 is taken up twice"),
        ([[["part-r01-00000"]]], "part-r01-00000 cannot fetch rows of 'part-r01-00000' again"),
        ([[["part-00000"]], [["part-r01-00001"]]], "cannot fetch rows of 'part-r01-00001' again"),
        ([[[]]], "fetches rows of no part again"),
        ([[["../part"]]], "which is no part"),
    ],
)
def test_rounds_in_which_a_row_could_end_twice_are_refused(
    rounds: list[list[list[str]]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Retries.model_validate({"rounds": rounds})


def test_rounds_are_read_as_they_were_written(tmp_path: Path) -> None:
    told = Retries(rounds=((("part-00000", "part-00002"), ("part-00003",)), (("part-r01-00001",),)))
    path = tmp_path / "retries.yaml"
    path.write_text(retries_text("mine", told))
    assert Retries.model_validate(read_yaml(path)) == told
    assert list(told.parts) == ["part-r01-00000", "part-r01-00001", "part-r02-00000"]


def test_the_soak_recovers_every_row_and_changes_no_finished_file() -> None:
    # Of seconds, which a busy machine decides, the test expects nothing.
    command = [
        sys.executable,
        "trials/soak.py",
        "--rows",
        "120",
        "--rows-per-part",
        "40",
        "--max-ratio",
        "99",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [int(n) for n in re.findall(r"rows that had failed\s+(\d+)", done.stdout)] == [12, 4, 1]
    for line in ("rows without a picture        0", "pictures twice                0"):
        assert line in done.stdout
    assert "finished files that changed   0" in done.stdout and "rounds / the same rows alone" in done.stdout


def test_dvc_and_the_checks_know_the_rounds_of_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_project("demo", ROOT)
    retried = replace(plain, rounds={"demo": Retries(rounds=((("part-00000",),),))})
    params = {"config/retries/demo.yaml": ["rounds"]}
    assert params in stage_entry(retried, "download", ROOT)["params"]
    assert params not in stage_entry(retried, "filter", ROOT)["params"]
    assert params not in stage_entry(plain, "download", ROOT)["params"]
    monkeypatch.chdir(tmp_path)
    path = manifest_path(plain, "download")
    for parts, right, wrong in (
        (["part-00000"], plain, retried),
        (["part-00000", "part-r01-00000"], retried, plain),
    ):
        manifests = []
        for part in parts:
            manifests.append(path.with_name(f"{part}.json"))
            store.write_part_manifest(manifests[-1], [], {"rows": 0}, settings_digest(plain, "download"))
        settings = stage_settings(plain, "download")
        store.write_manifest(path, stage="download", params=settings, part_manifests=manifests)
        assert problems(right, "download") == []
        assert problems(wrong, "download") == [
            f"{path}: has not the rounds of retries that the configuration names"
        ]
