"""A part keeps a journal: whatever kills its job, what was fetched stays, and no row kills it for ever."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import polars as pl
import pytest
import warm
from hypothesis import given
from hypothesis import strategies as st
from test_download_server import GOOD, Handler, Server, serving, settings

from darkroom import store
from darkroom.download.decoders import Picture
from darkroom.download.driven import Fetching
from darkroom.download.journal import DECODED, FETCHED, Journal, forget, journal_folder
from darkroom.download.stage import (
    FEWEST_FAILURES,
    TooManyFailures,
    download_part,
    fetch_what_is_missing,
)
from darkroom.download.status import Failure
from darkroom.settings.download import Download

HOST = "http://images.example:80"
CHOSEN = {"num_threads": 2, "timeout_s": 20.0, "total_timeout_s": 30.0}
# What runs in the process that is killed: the stage, and a row that may take the process with it.
CHILD = """
import os, signal, sys
from darkroom.download.journal import Journal
from darkroom.download.stage import download_part
from darkroom.settings.download import Download
urls, folder, port, settings, deadly = sys.argv[1:]
arrive = Journal.arrive
def arrive_and_die(self, place):
    arrive(self, place)
    if str(place) == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.arrive = arrive_and_die
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
to = {"images.example:80": f"127.0.0.1:{port}"}
out = f"{folder}/part-00000.tar", f"{folder}/part-00000.parquet"
download_part(urls, 0, 100, Download.model_validate_json(settings), *out, to)
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def listed(path: Path, names: list[str]) -> Path:
    urls = [HOST + name for name in names]
    pl.DataFrame({"row": range(len(urls)), "url": urls, "caption": names}).write_parquet(path)
    return path


def make(
    urls: Path, folder: Path, server: Server, chosen: Download | None = None, **more: float
) -> pl.DataFrame:
    to = {"images.example:80": f"127.0.0.1:{server.server_port}"}
    tar, table = folder / "part-00000.tar", folder / "part-00000.parquet"
    folder.mkdir(exist_ok=True)
    download_part(urls, 0, 100, chosen or settings(**CHOSEN), tar, table, to, **more)  # type: ignore[arg-type]
    return store.read_table(table).sort("row")


def child(urls: Path, folder: Path, server: Server, deadly: str = "") -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    told = [urls, folder, server.server_port, settings(**CHOSEN).model_dump_json(), deadly]
    return subprocess.Popen(["python", "-c", CHILD, *map(str, told)], env=warm.jobs.environment(os.environ))


def bytes_of(folder: Path) -> list[bytes]:
    return [(folder / f"part-00000.{ending}").read_bytes() for ending in ("tar", "parquet")]


def test_a_killed_job_fetches_what_is_missing_only_and_ends_with_the_same_bytes(
    server: Server, tmp_path: Path
) -> None:
    names = [f"/{i}.jpg" for i in range(12)]
    good = server.routes["/good.jpg"]
    for name in names:
        server.routes[name] = good
    server.routes["/3.jpg"] = server.routes["/404.jpg"]
    urls = listed(tmp_path / "urls.parquet", names)
    make(urls, tmp_path / "undisturbed", server)
    assert set(server.requests.values()) == {1}

    def stall(handler: Handler) -> None:
        time.sleep(30)

    server.routes["/6.jpg"] = server.routes["/7.jpg"] = stall
    job = child(urls, tmp_path / "killed", server)
    while not all(server.requests[f"/{i}.jpg"] == 2 for i in (6, 7)):
        assert job.poll() is None
        time.sleep(0.05)
    # Of all rows before them the answers are in the journal, or about to be.
    time.sleep(0.5)
    job.kill()
    job.wait()
    assert list((tmp_path / "killed").glob("part-*")) == []
    server.routes["/6.jpg"] = server.routes["/7.jpg"] = good
    make(urls, tmp_path / "killed", server)
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "undisturbed")
    requests = [server.requests[name] for name in names]
    assert requests == [*[2] * 6, 3, 3, *[2] * 4]
    assert list((tmp_path / "killed").glob(".*")) == []


def test_a_job_that_is_asked_to_end_does_so_at_once_and_blames_no_row(server: Server, tmp_path: Path) -> None:
    names = ["/good.jpg", "/copy.jpg", "/a.jpg", "/b.jpg"]
    server.routes["/a.jpg"] = server.routes["/b.jpg"] = lambda _: time.sleep(30)
    urls = listed(tmp_path / "urls.parquet", names)
    job = child(urls, tmp_path / "out", server)
    while not all(server.requests[name] for name in names):
        assert job.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    job.terminate()
    assert job.wait(timeout=25) == 128 + signal.SIGTERM
    left = tmp_path / "out/.part-00000.journal/000000"
    title = left.read_bytes().split(b"\n")[0].decode()
    with Journal(left.parent, title.split()[-1]) as journal:
        assert set(journal.outcomes) == {0, 1} and journal.blame == {}


def test_a_row_that_kills_its_job_is_tried_once_more_alone_and_then_marked(
    server: Server, tmp_path: Path
) -> None:
    names = [f"/{i}.jpg" for i in range(8)]
    for name in names:
        server.routes[name] = server.routes["/good.jpg"]
    urls = listed(tmp_path / "urls.parquet", names)
    for _ in range(2):
        assert child(urls, tmp_path / "out", server, "5").wait() == -signal.SIGKILL
    assert child(urls, tmp_path / "out", server, "5").wait() == 0
    table = store.read_table(tmp_path / "out/part-00000.parquet").sort("row")
    assert table["status"].to_list() == [*["ok"] * 5, "job_died", "ok", "ok"]
    assert "the last of them while no other was" in table["error"][5]
    # Nothing else was fetched more than once more than its share of the first crash.
    assert all(server.requests[name] <= 2 for name in names if name != "/5.jpg")


def test_a_row_that_waits_for_its_answer_is_not_to_blame_for_ten_dead_jobs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one that ends as timeout is, whenever jobs are killed from outside."""
    alone: list[int] = []
    together: list[int] = []
    monkeypatch.setattr("darkroom.download.stage.fetch_alone", lambda urls, _: alone.extend(urls))
    monkeypatch.setattr("darkroom.download.stage.fetch_and_decode", lambda urls, *_: together.extend(urls))
    urls = {place: f"{HOST}/{place}" for place in range(5)}
    with Journal(tmp_path / "journal", "digest") as journal:
        journal.blame = {0: 9 * FETCHED, 1: DECODED, 2: 10 * FETCHED, 4: FETCHED}
        fetching = cast(Fetching, SimpleNamespace(collector=journal))
        fetch_what_is_missing(urls, journal, fetching, tmp_path)
        assert (alone, together) == ([1, 2], [0, 3, 4]) and journal.outcomes == {}
        journal.blame = {0: 20 * FETCHED, 1: 2 * DECODED, 2: DECODED + FETCHED}
        fetch_what_is_missing(urls, journal, fetching, tmp_path)
        died = [place for place, found in journal.outcomes.items() if isinstance(found, Failure)]
        assert died == [0, 1] and alone == [1, 2, 2]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound counts in small parts too."""
    monkeypatch.setattr("darkroom.download.stage.FEWEST_FAILURES", 1)


@pytest.mark.usefixtures("few")
def test_a_part_with_too_many_rows_without_an_answer_fails_and_keeps_what_it_has(
    server: Server, tmp_path: Path
) -> None:
    names = ["/good.jpg", "/404.jpg", "/copy.jpg", "/down.jpg", "/away.jpg", "/reset.jpg"]
    reset = server.routes["/reset.jpg"]
    for name in names[3:]:
        server.routes[name] = reset
    urls = listed(tmp_path / "urls.parquet", names)
    with pytest.raises(TooManyFailures) as failed:
        make(urls, tmp_path / "out", server, max_transport_failures=0.2)
    assert "part-00000: 3 of 6 rows ended without an answer (connection_error 3)" in str(failed.value)
    assert f"the first: {HOST}/down.jpg" in str(failed.value)
    assert "max_transport_failures" in str(failed.value) and "start again" in str(failed.value)
    assert list((tmp_path / "out").glob("part-*")) == []
    server.routes["/down.jpg"] = server.routes["/away.jpg"] = server.routes["/good.jpg"]
    before = dict(server.requests)
    table = make(urls, tmp_path / "out", server, max_transport_failures=0.2)
    assert table["status"].to_list() == ["ok", "http_404", "ok", "ok", "ok", "connection_error"]
    new = {name: server.requests[name] - before[name] for name in names}
    assert new == {name: int(name in names[3:]) for name in names}


def test_a_few_dead_servers_fail_no_part_however_small_it_is(server: Server, tmp_path: Path) -> None:
    names = [f"/dead-{number}.jpg" for number in range(FEWEST_FAILURES)]
    for name in names:
        server.routes[name] = server.routes["/reset.jpg"]
    urls = listed(tmp_path / "urls.parquet", names[1:])
    table = make(urls, tmp_path / "out", server, max_transport_failures=0.2)
    assert table["status"].to_list() == ["connection_error"] * (FEWEST_FAILURES - 1)
    urls = listed(tmp_path / "urls.parquet", names)
    with pytest.raises(TooManyFailures):
        make(urls, tmp_path / "more", server, max_transport_failures=0.2)


@pytest.mark.usefixtures("few")
def test_a_bound_that_is_raised_accepts_the_part(server: Server, tmp_path: Path) -> None:
    urls = listed(tmp_path / "urls.parquet", ["/reset.jpg", "/good.jpg"])
    with pytest.raises(TooManyFailures):
        make(urls, tmp_path / "out", server, max_transport_failures=0.49)
    assert make(urls, tmp_path / "out", server, max_transport_failures=0.5)["status"].to_list() == [
        "connection_error",
        "ok",
    ]


@pytest.mark.usefixtures("few")
def test_a_journal_of_other_settings_or_rows_is_not_believed(server: Server, tmp_path: Path) -> None:
    urls = listed(tmp_path / "urls.parquet", ["/good.jpg", "/reset.jpg", "/copy.jpg"])
    for _ in range(2):
        with pytest.raises(TooManyFailures):
            make(urls, tmp_path / "out", server, max_transport_failures=0.1)
    assert server.requests["/good.jpg"] == 1
    smaller = settings(**CHOSEN, max_side_px=32)  # type: ignore[arg-type]
    table = make(urls, tmp_path / "out", server, smaller)
    assert server.requests["/good.jpg"] == 2
    assert table["width"].max() == 32


PICTURE = Picture(GOOD, 48, 32, 96, 64, "ab" * 32, len(GOOD), ("tdm-reservation: 1",))
OUTCOMES: list[Picture | Failure] = [
    PICTURE,
    Failure("http_404", "no “page”", opt_outs=("noai",)),
    PICTURE._replace(jpeg=GOOD * 3),
]


def written(folder: Path) -> bytes:
    """The file of a job that keeps three outcomes, and dies over rows 3 and 4."""
    with Journal(folder, "digest") as journal:
        for place in range(5):
            journal.begin(place)
        for place, found in enumerate(OUTCOMES):
            journal.keep(place, found)
        path = folder / "000000"
        return path.read_bytes()


@given(data=st.data())
def test_a_journal_that_is_cut_or_damaged_anywhere_holds_true_outcomes_or_none(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal") / "in"
    content = bytearray(written(folder))
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[place:]
    (folder / "000000").write_bytes(content)
    with Journal(folder, "digest") as journal:
        assert set(journal.outcomes) <= {0, 1, 2}
        for row, found in journal.outcomes.items():
            told = OUTCOMES[row]
            if isinstance(found, Failure):
                assert found == told
            else:
                assert found.picture._replace(jpeg=journal.jpeg(found)) == told
        # What follows is kept apart from what is damaged.
        assert journal.keep(4, PICTURE)
    with Journal(folder, "digest") as journal:
        kept = journal.outcomes[4]
        assert not isinstance(kept, Failure) and journal.jpeg(kept) == GOOD


def test_rows_of_a_job_that_ends_in_order_are_not_to_blame(tmp_path: Path) -> None:
    content = written(tmp_path / "j")
    with Journal(tmp_path / "j", "digest") as journal:
        assert set(journal.outcomes) == {0, 1, 2} and journal.blame == {}
    for path in (tmp_path / "j").iterdir():
        path.unlink()
    (tmp_path / "j/000000").write_bytes(content)
    with Journal(tmp_path / "j", "digest") as journal:
        assert journal.blame == {3: FETCHED, 4: FETCHED}
        journal.begin(3)
        journal.arrive(3)
        cut = (tmp_path / "j/000001").read_bytes()
    (tmp_path / "j/000001").write_bytes(cut)
    with Journal(tmp_path / "j", "digest") as journal:
        assert journal.blame == {3: FETCHED + DECODED, 4: FETCHED}
        assert journal.keep(3, OUTCOMES[1])
    with Journal(tmp_path / "j", "digest") as journal:
        assert journal.blame == {4: FETCHED}


def test_a_journal_lies_beside_its_part_and_can_be_forgotten(tmp_path: Path) -> None:
    tar = tmp_path / "part-00007.tar"
    with Journal(journal_folder(tar), "digest"):
        assert os.listdir(tmp_path) == [".part-00007.journal"]
    forget(tar)
    forget(tar)
    assert os.listdir(tmp_path) == []
