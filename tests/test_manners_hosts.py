"""How often a host is asked by all jobs together: connections, pauses, and hosts that want to be left alone."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import warm
from test_download_server import GOOD, Handler, Server, serving, settings

from darkroom.download.manners import hosts
from darkroom.download.manners.crawl import Crawl
from darkroom.download.manners.hosts import Hosts, Wait
from darkroom.download.manners.queue import RowQueue
from darkroom.download.stage import download_part
from darkroom.settings.download import Manners


class Gauge:
    """Counts the requests that a server is answering at once."""

    def __init__(self, together: int = 1) -> None:
        # So many requests wait until they are answered together, however late a job begins.
        self.together = together
        self.now = self.most = self.all = 0
        self._lock = threading.Condition()

    def answer(self, handler: Handler) -> None:
        with self._lock:
            self.now, self.all = self.now + 1, self.all + 1
            self.most = max(self.most, self.now)
            self._lock.notify_all()
            self._lock.wait_for(lambda: self.most >= self.together, timeout=20)
        time.sleep(0.05)
        with self._lock:
            # Before the answer's last byte: then the client may ask again.
            self.now -= 1
        handler.answer(GOOD)


def write_list(path: Path, urls: list[str]) -> Path:
    rows = {"row": range(len(urls)), "url": urls, "caption": ["x"] * len(urls)}
    pl.DataFrame(rows).write_parquet(path)
    return path


PART = """
import sys
from pathlib import Path
from darkroom.config.dataset import Download
from darkroom.download.manners.crawl import Crawl
from darkroom.download.stage import download_part
from darkroom.settings.download import Manners
folder, shared, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
crawl = Crawl(Manners(host_connections=2, host_pause_s=pause), shared)
wanted = Download(allow_networks=("127.0.0.0/8",), num_threads=8, total_timeout_s=30, obey_robots_txt=False)
print("begun", flush=True)
print(download_part(folder / "urls.parquet", 0, 99, wanted, folder / "a.tar", folder / "a.parquet", crawl=crawl))
"""


@contextmanager
def two_jobs(
    server: Server, tmp_path: Path, shared: list[Path], num: int, pause_s: float = 0.0
) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes, each downloads `num` pictures of one host."""
    jobs = []
    for name, folder in zip("ab", shared, strict=True):
        (tmp_path / name).mkdir()
        paths = [f"/{name}{i}.jpg" for i in range(num)]
        server.routes.update(dict.fromkeys(paths, server.routes["/gauge"]))
        write_list(tmp_path / name / "urls.parquet", [server.base + path for path in paths])
        command = ["python", "-c", PART, str(tmp_path / name), str(folder), str(pause_s)]
        environment = warm.jobs.environment(os.environ)
        jobs.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    try:
        yield jobs
    finally:
        for job in jobs:
            job.kill()
            job.wait()


@pytest.mark.parametrize("is_shared", [True, False])
def test_two_jobs_together_hold_no_more_connections_to_a_host_than_one_may(
    tmp_path: Path, is_shared: bool
) -> None:
    gauge = Gauge(1 if is_shared else 3)
    with serving() as server:
        server.routes["/gauge"] = gauge.answer
        folders = [tmp_path / "hosts", tmp_path / ("hosts" if is_shared else "others")]
        with two_jobs(server, tmp_path, folders, 20) as jobs:
            told = [job.communicate()[0] for job in jobs]
    assert all("'ok': 20" in text for text in told)
    assert gauge.all == 40
    # Jobs that do not know of each other do hold more, so that this would be seen.
    assert gauge.most <= 2 if is_shared else 2 < gauge.most <= 4


def test_two_jobs_together_begin_no_more_requests_than_the_pause_allows(tmp_path: Path) -> None:
    gauge = Gauge()
    with serving() as server:
        server.routes["/gauge"] = gauge.answer
        begin = time.monotonic()
        with two_jobs(server, tmp_path, [tmp_path / "hosts"] * 2, 8, pause_s=0.4) as jobs:
            for job in jobs:
                job.communicate()
        assert gauge.all == 16
        assert time.monotonic() - begin >= 15 * 0.4


def test_what_a_killed_job_held_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from darkroom.download.manners.hosts import Hosts;"
        "mine = Hosts(2, 0.0, Path(sys.argv[1]));"
        "print([mine.try_begin('a.example') for _ in range(3)], flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline().startswith("[None, None, Wait(")
        ours = Hosts(2, 0.0, tmp_path)
        assert ours.try_begin("a.example") == Wait(hosts.LOOK_AGAIN_S, is_full=True)
        assert ours.try_begin("b.example") is None
        job.send_signal(signal.SIGKILL)
        job.wait()
        assert [ours.try_begin("a.example") for _ in range(2)] == [None, None]
    assert len(list(tmp_path.glob("job-*"))) == 1
    ours.close()
    assert list(tmp_path.glob("job-*")) == []


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_host_has_turns_a_pause_and_may_ask_to_be_left_alone(tmp_path: Path, is_shared: bool) -> None:
    ours = Hosts(1, 30.0, tmp_path if is_shared else None)
    theirs = Hosts(1, 30.0, tmp_path) if is_shared else ours
    assert ours.try_begin("a.example") is None
    wait = theirs.try_begin("a.example")
    assert wait is not None
    assert 29 < wait.seconds <= 30
    assert not wait.is_asked_for
    theirs.back_off("a.example", 10)  # shorter than the pause
    assert not theirs.try_begin("a.example").is_asked_for  # type: ignore[union-attr]
    ours.back_off("a.example", 1e9)
    wait = theirs.try_begin("a.example")
    assert wait is not None
    assert wait.is_asked_for
    assert hosts.MAX_BACK_OFF_S - 1 < wait.seconds <= hosts.MAX_BACK_OFF_S
    assert theirs.try_begin("b.example") is None


def test_a_clock_that_is_wrong_makes_nobody_wait_longer_than_the_pause(tmp_path: Path) -> None:
    ours = Hosts(1, 0.5, tmp_path)
    assert ours.try_begin("a.example") is None
    ours.end("a.example")
    (path,) = tmp_path.glob("hosts-*.json")
    path.write_text(json.dumps({"a.example": {"held": {}, "next": time.time() + 1e6, "is_asked_for": False}}))
    assert ours.try_begin("a.example") == Wait(0.5)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a.example": 3}', '{"a.example": {"x": 1}}', "\0" * 99])
def test_a_file_that_a_killed_job_left_half_written_is_none(tmp_path: Path, content: str) -> None:
    ours = Hosts(1, 0.0, tmp_path)
    assert ours.try_begin("a.example") is None
    (path,) = tmp_path.glob("hosts-*.json")
    path.write_text(content)
    assert ours.try_begin("a.example") is None
    ours.end("a.example")
    assert path.read_text().strip() == "{}"


def test_where_there_are_no_locks_a_job_counts_alone_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(hosts.fcntl, "flock", refuse)
    alone = Hosts(1, 0.0, tmp_path)
    assert alone.try_begin("a.example") is None
    assert alone.try_begin("a.example") is not None
    assert "no files and locks here (No locks available); this job counts" in caplog.text


@pytest.mark.parametrize("call", ["open", "pwrite"])
def test_a_folder_that_fails_halfway_stops_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    ours = Hosts(1, 0.0, tmp_path)
    assert ours.try_begin("a.example") is None

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hosts.os, call, full)
    queue = RowQueue({i: f"http://h{i % 3}.example/{i}" for i in range(30)}, ours, 1.0)
    for _ in range(30):
        ours.end(str(queue.next().host))
    ours.end("a.example")
    assert caplog.text.count("no files and locks here (No space left on device)") == 1


def test_every_row_comes_once_whatever_hosts_want() -> None:
    rng = random.Random(7)
    urls = {i: f"http://h{rng.randrange(1, 9) ** 2}.example/{i}" for i in range(300)} | {300: "no url"}
    ours = Hosts(2, 0.001)
    ours.back_off("h4.example", 5.0)
    ours.back_off("h9.example", 0.05)
    queue = RowQueue(urls, ours, patience_s=1.0)
    found: list[int] = []
    busy: list[str] = []

    def work(number: int) -> None:
        for _ in range(number):
            place, host, failure = queue.next()
            found.append(place)
            if failure:
                assert failure.status == "host_busy"
                busy.append(urls[place])
            elif host is not None:
                assert f"//{host}/" in urls[place]
                ours.end(host)

    threads = [threading.Thread(target=work, args=(43,)) for _ in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == sorted(urls)
    assert Counter(busy) == Counter(url for url in urls.values() if "//h4." in url)


def fetched(
    server: Server, folder: Path, urls: list[str], manners: Manners | None = None, **changes: object
) -> list[str]:
    """The status of each URL; every host is the server."""
    names = {url.split("/")[2] for url in urls}
    web = {f"{name}:80": f"127.0.0.1:{server.server_port}" for name in names}
    crawl = Crawl(manners or Manners(host_connections=2, host_pause_s=0), folder / "hosts")
    write_list(folder / "urls.parquet", urls)
    files = folder / "urls.parquet", 0, len(urls), settings(**changes), folder / "a.tar", folder / "a.parquet"
    download_part(*files, connect_to=web, crawl=crawl)
    return pl.read_parquet(folder / "a.parquet").sort("row")["status"].to_list()


@pytest.mark.parametrize("code", [429, 503])
def test_a_host_that_asks_for_an_hour_is_left_alone_by_all_rows_and_others_go_on(
    tmp_path: Path, code: int
) -> None:
    with serving() as server:
        for i in range(100):
            server.routes[f"/b{i}"] = lambda handler: handler.answer(b"", code, Retry_After="3600")
            server.routes[f"/g{i}"] = lambda handler: handler.answer(GOOD)
        urls = [f"http://busy.example/b{i}" for i in range(100)] + [
            f"http://fine.example/g{i}" for i in range(20)
        ]
        found = fetched(server, tmp_path, urls, num_retries=2)
        asked = sum(number for path, number in server.requests.items() if path.startswith("/b"))
    assert 1 <= asked <= 2
    assert Counter(found[:100]) == {f"http_{code}": asked, "host_busy": 100 - asked}
    assert found[100:] == ["ok"] * 20


@pytest.mark.parametrize("is_date", [False, True])
def test_a_host_that_asks_for_seconds_is_asked_again_behind_them_and_others_go_on_meanwhile(
    tmp_path: Path, is_date: bool
) -> None:
    order: list[str] = []

    def answer(handler: Handler) -> None:
        order.append(handler.headers["Host"])
        if order.count("busy.example") == 1 and order[-1] == "busy.example":
            date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 4))
            handler.answer(b"", 429, Retry_After=date if is_date else "3")
        else:
            handler.answer(GOOD)

    with serving() as server:
        server.routes.update({f"/{i}": answer for i in range(30)})
        urls = [f"http://{'busy' if i < 15 else 'fine'}.example/{i}" for i in range(30)]
        manners = Manners(host_connections=1, host_pause_s=0)
        found = fetched(server, tmp_path, urls, manners, num_retries=1, num_threads=4, total_timeout_s=20)
    assert found == ["ok"] * 30
    # All threads but one would wait for the busy host if a thread kept its row.
    first = order.index("busy.example")
    second = order.index("busy.example", first + 1)
    assert order[first + 1 : second].count("fine.example") >= 4


def test_redirects_between_two_hosts_that_allow_one_connection_each_do_not_wait_in_a_ring(
    tmp_path: Path,
) -> None:
    with serving() as server:
        for i in range(20):
            there = "b" if i % 2 else "a"
            server.routes[f"/{i}"] = lambda handler, there=there: handler.answer(
                b"", 302, Location=f"http://{there}.example/good.jpg"
            )
        urls = [f"http://{'a' if i % 2 else 'b'}.example/{i}" for i in range(20)]
        manners = Manners(host_connections=1, host_pause_s=0)
        assert fetched(server, tmp_path, urls, manners) == ["ok"] * 20


def test_redirects_to_one_host_wait_for_its_pace_however_long_and_for_no_pause_that_it_asks_for(
    tmp_path: Path,
) -> None:
    with serving() as server:
        for i in range(8):
            server.routes[f"/{i}"] = lambda handler: handler.answer(
                b"", 302, Location="http://cdn.example/p.jpg"
            )
        server.routes["/p.jpg"] = lambda handler: handler.answer(GOOD)
        urls = [f"http://h{i}.example/{i}" for i in range(8)] + ["http://cdn.example/good.jpg"]
        # Seven times the pause is longer than the whole time of one URL.
        manners = Manners(host_connections=1, host_pause_s=0.4)
        assert fetched(server, tmp_path, urls, manners, total_timeout_s=2) == ["ok"] * 9
        server.routes["/p.jpg"] = lambda handler: handler.answer(b"", 503, Retry_After="60")
        (tmp_path / "again").mkdir()
        found = fetched(server, tmp_path / "again", urls, manners, total_timeout_s=4)[:8]
        asked = found.count("http_503")
        assert 1 <= asked <= 2, found
        assert found.count("host_busy") == 8 - asked
