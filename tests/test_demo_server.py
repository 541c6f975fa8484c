"""The demo's web server: every fault over a real connection, and an end with its parent."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from darkroom.config.dataset import Download
from darkroom_demo.answers import MOVED
from darkroom_demo.section import DemoSource
from darkroom_demo.server import running_server, serve, slow_seconds
from darkroom_demo.world import DemoWorld

SOURCE = DemoSource(kind="demo", num_scenes=2500, num_digits=3, num_photos=3, seed=5)
STALL_S, DRIP_S = 1.0, 1.2


@pytest.fixture(scope="module")
def world():
    return DemoWorld(SOURCE)


@pytest.fixture(scope="module")
def server(world):
    with serve(world, stall_s=STALL_S, drip_s=DRIP_S) as running:
        yield running


def rows_of(world, fault):
    found = [row for row in world.rows if row.fault == fault]
    assert found, fault
    return sorted(found, key=lambda row: row.index)


def get(server, path, timeout=5.0, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_pictures_come_with_their_bytes_length_and_type(server, world):
    for row in [row for row in world.rows if row.kind != "fault"][:30]:
        status, headers, body = get(server, row.path)
        assert status == 200
        assert body == world.picture_bytes(row.row)
        assert int(headers["Content-Length"]) == len(body)
        kind = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}[row.ending]
        assert headers["Content-Type"] == kind
        assert headers["X-Robots-Tag"] in (None, "nofollow")


def test_head_has_the_headers_and_no_body(server, world):
    row = next(row for row in world.rows if row.kind == "scene")
    status, headers, body = get(server, row.path, method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(world.picture_bytes(row.row))


def test_one_connection_serves_many_requests(server, world):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.connect()
    first = connection.sock
    for row in [row for row in world.rows if row.kind == "scene"][:5]:
        connection.request("GET", row.path)
        assert connection.getresponse().read()
        assert connection.sock is first
    connection.close()


@pytest.mark.parametrize(("fault", "code"), [("not_found", 404), ("gone", 410)])
def test_missing_pictures_say_so(server, world, fault, code):
    assert get(server, rows_of(world, fault)[0].path)[0] == code


def test_unknown_paths_are_404(server):
    assert get(server, "/no/such/star.jpg")[0] == 404


def test_unavailable_once_is_503_once_for_each_server(world):
    path = rows_of(world, "unavailable_once")[0].path
    for _ in range(2):
        with serve(world) as fresh:
            assert [get(fresh, path)[0] for _ in range(3)] == [503, 200, 200]


def test_a_drip_never_pauses_long_and_takes_long(server, world):
    row = rows_of(world, "slow_drip")[0]
    began = time.monotonic()
    status, _, body = get(server, row.path, timeout=0.5)
    assert status == 200
    assert body == world.picture_bytes(row.row)
    assert time.monotonic() - began > 0.8 * DRIP_S


def test_stalls_are_silent_at_once_or_within_the_body(server, world):
    for row in rows_of(world, "stall"):
        with pytest.raises(TimeoutError):
            get(server, row.path, timeout=0.4 * STALL_S)
    assert get(server, rows_of(world, "stall")[0].path, timeout=3 * STALL_S)[0] == 200


def test_resets_are_resets(server, world):
    for row in rows_of(world, "reset"):
        with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
            get(server, row.path)


def test_cut_short_ends_before_its_length(server, world):
    with pytest.raises(http.client.IncompleteRead):
        get(server, rows_of(world, "cut_short")[0].path)


def test_endless_bodies_go_on(server, world):
    rows = rows_of(world, "too_many_bytes")
    headers = []
    for row in rows:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request("GET", row.path)
        answer = connection.getresponse()
        headers.append(answer.headers)
        assert len(answer.read(20_000_000)) == 20_000_000
        connection.close()
    assert int(headers[0]["Content-Length"]) > 10**9


def test_opt_outs_are_announced(server, world):
    for row in rows_of(world, "opted_out"):
        assert set(get(server, row.path)[1]["X-Robots-Tag"].split(", ")) & {"noai", "noindex"}


def test_empty_bodies_and_pages_are_200(server, world):
    assert get(server, rows_of(world, "empty_body")[0].path)[::2] == (200, b"")
    for row in rows_of(world, "html_page"):
        status, _, body = get(server, row.path)
        assert status == 200
        assert body.startswith(b"<!doctype html>")


def test_redirects_lead_to_the_picture(server, world):
    for row in rows_of(world, "redirect"):
        status, headers, _ = get(server, row.path)
        assert status in (301, 302, 303, 307, 308)
        place = headers["Location"].removeprefix("http://127.0.0.1:8907")
        assert get(server, place)[::2] == (200, world.picture_bytes(row.row))


def test_redirect_loops_come_round(server, world):
    row = rows_of(world, "redirect_loop")[0]
    away = get(server, row.path)[1]["Location"]
    assert away == "http://127.0.0.1:8907" + MOVED + row.path
    assert get(server, MOVED + row.path)[1]["Location"] == row.url


def test_bad_redirects_leave_the_public_web(server, world):
    for row in rows_of(world, "redirect_private"):
        assert get(server, row.path)[1]["Location"].startswith(
            ("http://10.", "http://169.254.", "http://192.168.")
        )
    for row in rows_of(world, "redirect_file"):
        assert get(server, row.path)[1]["Location"].startswith("file:///")


def test_addresses_elsewhere_are_not_served(world):
    for fault, starts in (
        ("private_address", ("http://10.", "http://169.254.")),
        ("file_url", ("file:///",)),
        ("other_scheme", ("ftp:", "data:")),
    ):
        for row in rows_of(world, fault):
            assert row.url.startswith(starts)
            assert row.path is None


def test_the_index_shows_rows_and_faults_to_a_person(server, world):
    status, headers, body = get(server, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert f"of {len(world)} rows" in body.decode()
    only = get(server, "/?only=panorama")[2].decode()
    assert only.count("<figure>") == len(rows_of(world, "panorama"))
    assert "<script" not in get(server, "/?only=%3Cscript%3E&page=x")[2].decode()


def test_only_this_machine_is_listened_to(world):
    with pytest.raises(ValueError, match=r"0\.0\.0\.0.*127\.0\.0\.1"):
        serve(world, host="0.0.0.0")


def test_many_clients_at_once_all_get_their_pictures(server, world):
    rows = [row for row in world.rows if row.kind == "scene"][:160]
    failures = []

    def fetch(some):
        for row in some:
            try:
                assert get(server, row.path, timeout=20)[0] == 200
            except Exception as error:
                failures.append((row, error))

    threads = [threading.Thread(target=fetch, args=(rows[i::32],)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_slow_answers_exceed_the_downloads_patience():
    download = Download.model_validate({"timeout_s": 2, "total_timeout_s": 6})
    stall_s, drip_s = slow_seconds(download)
    assert stall_s > 2
    assert drip_s > 6


def test_running_server_serves_from_its_own_process_and_ends(world):
    with running_server(SOURCE) as connect_to:
        host, port = connect_to["127.0.0.1:8907"].split(":")
        row = next(row for row in world.rows if row.kind == "scene")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", row.path)
        assert connection.getresponse().read() == world.picture_bytes(row.row)
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=2)


def test_the_server_dies_with_a_killed_parent():
    code = (
        "import json, sys, time; from darkroom_demo.section import DemoSource\n"
        "from darkroom_demo.server import running_server\n"
        "with running_server(DemoSource.model_validate_json(sys.argv[1])) as connect_to:\n"
        "    print(json.dumps(connect_to), flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, SOURCE.model_copy(update={"num_scenes": 10}).model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        port = int(json.loads(parent.stdout.readline())["127.0.0.1:8907"].split(":")[1])
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            pass  # it is just closing
        time.sleep(0.1)
    pytest.fail("the server outlived its parent")
