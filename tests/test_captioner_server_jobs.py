"""Jobs that ask a server: killed again and again, with a server of their own, and as Snakemake starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import warm
from captioner_fixtures import KEY, server, short_pauses  # noqa: F401 - fixtures
from conftest import TinyProject
from played_captioner import (
    MODEL,
    Request,
    Server,
    caption_of,
    captioned,
    expected,
    make_pictures,
    section,
)

from darkroom.captioners.journal import Journal
from darkroom.captioners.scratch import scratch_folder
from darkroom.captioners.served import chat
from darkroom.recaption.stage import recaption_part
from darkroom.store import read_table, sha256_file

TESTS = Path(__file__).parent


# Jobs that are killed

JOB = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from played_captioner import section
from darkroom.captioners.scratch import scratch_folder
from darkroom.recaption.stage import recaption_part
folder = Path({folder!r})
part = folder / "part.parquet", folder / "part.tar", folder / "selection.parquet"
print("begins", flush=True)
recaption_part(*part, section({url!r}), {{}}, folder / "killed.parquet")
"""


def test_a_job_that_is_killed_twenty_times_loses_and_doubles_no_caption(
    tmp_path: Path, server: Server
) -> None:
    part, _ = make_pictures(tmp_path, 150)
    undisturbed, counts = captioned(part, section(server.url), tmp_path / "whole.parquet")
    server.asked.clear()
    gate = [0]

    def reply(request: Request) -> None:
        time.sleep(0.002)
        request.answer()

    server.reply = reply
    job = ["python", "-c", JOB.format(tests=str(TESTS), folder=str(tmp_path), url=server.url)]
    environment = warm.jobs.environment(os.environ)
    for kill in range(20):
        with subprocess.Popen(job, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None and process.stdout.readline() == b"begins\n"
            # While it asks: after so many answers more.
            target = gate[0] + 1 + 3 * (kill % 5)
            while server.asked.total() < target and process.poll() is None:
                time.sleep(0.001)
            process.kill()
        gate[0] = server.asked.total()
    killed, again = captioned(part, section(server.url), tmp_path / "killed.parquet")
    assert killed.equals(undisturbed) and again == counts
    assert sha256_file(tmp_path / "killed.parquet") == sha256_file(tmp_path / "whole.parquet")
    # Each kill loses what was under way, and no more.
    assert 300 < server.asked.total() <= 300 + 20 * 8


def test_a_journal_with_a_torn_end_is_read_up_to_it_and_one_of_other_settings_is_removed(
    tmp_path: Path,
) -> None:
    first = chat.Answer("one\u2028\n two", "stop", 3, None, "m")
    with Journal(tmp_path, "a", chat.Answer) as journal:
        journal.keep({(0, "long", 0): first})
        journal.keep({(0, "short", 0): chat.Answer("torn", "stop")})
    path = tmp_path / "000000.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    with Journal(tmp_path, "a", chat.Answer) as journal:
        assert journal.answers == {(0, "long", 0): first}
        journal.keep({(0, "short", 0): chat.Answer("", "refusal")})
    with Journal(tmp_path, "a", chat.Answer) as journal:
        assert journal.answers == {(0, "long", 0): first, (0, "short", 0): chat.Answer("", "refusal")}
    with Journal(tmp_path, "b", chat.Answer) as journal:
        assert journal.answers == {}
    assert [path.name for path in tmp_path.iterdir()] == ["000003.jsonl"]


def test_other_settings_ask_everything_again_and_other_prefixes_nothing(
    tmp_path: Path, server: Server
) -> None:
    part, jpegs = make_pictures(tmp_path, 3)

    def asked(out: str, **values: Any) -> int:
        before = server.asked.total()
        recaption_part(*part, section(server.url, **values), {}, tmp_path / out, keep_scratch=True)
        return server.asked.total() - before

    assert asked("out.parquet") == 6
    assert asked("out.parquet", strip_prefixes=["long"]) == 0
    assert read_table(tmp_path / "out.parquet")["caption_long"][0] == caption_of(jpegs[0], "")[1:]
    assert asked("out.parquet", requests={"concurrency": 3}) == 0
    assert asked("out.parquet", temperature=1.0) == 6


def test_a_part_that_is_made_again_asks_only_what_failed(tmp_path: Path, server: Server) -> None:
    part, jpegs = make_pictures(tmp_path, 20)
    bad, chosen, out = expected(jpegs[3:5], "short"), section(server.url), tmp_path / "out.parquet"
    server.reply = lambda request: request.send(b"", 503) if request.caption in bad else request.answer()
    _, counts = captioned(part, chosen, out)
    assert counts["failed"] == {"http_503": 2} and scratch_folder(out).exists()
    server.reply = Request.answer
    server.asked.clear()
    table, counts = captioned(part, chosen, out)
    assert server.asked == dict.fromkeys(bad, 1) and not counts["failed"]
    assert table["caption_short"].to_list() == expected(jpegs, "short") and not scratch_folder(out).exists()


# A server beside the job

PLAYED = (sys.executable, str(TESTS / "played_captioner.py"), "{port}")
LOCAL = "http://127.0.0.1:{port}/v1"


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while not is_so() and time.monotonic() < end:
        time.sleep(0.02)
    assert is_so()


@pytest.mark.parametrize("page", ["/v1/models", "/health"])
def test_a_command_is_started_waited_for_and_ended_with_all_its_children(tmp_path: Path, page: str) -> None:
    part, jpegs = make_pictures(tmp_path, 5)
    child = tmp_path / "child"
    chosen = section(LOCAL, command=(*PLAYED, "--late", "0.5", "--pages", page, "--child", str(child)))
    table, _ = captioned(part, chosen, tmp_path / "out.parquet")
    assert table["caption_long"].to_list() == expected(jpegs, "long")
    assert table["model_path"][0] == LOCAL
    assert not is_alive(int(child.read_text()))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_command_ends_with_its_job_however_that_ends(tmp_path: Path, how: signal.Signals) -> None:
    make_pictures(tmp_path, 5)
    child = tmp_path / "child"
    words = (*PLAYED, "--late", "600", "--child", str(child))
    code = JOB.format(tests=str(TESTS), folder=str(tmp_path), url=LOCAL)
    code = code.replace("section(", f"section(command={words!r}, url=")
    environment = warm.jobs.environment(os.environ)
    with subprocess.Popen(["python", "-c", code], stderr=subprocess.DEVNULL, env=environment) as job:
        wait_until(child.exists)
        pid = int(child.read_text())
        assert is_alive(pid)
        job.send_signal(how)
    wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("no-such-program", "{port}"), r"ended with status 127.*No such file"),
        (
            (sys.executable, "-c", "print('out of memory'); raise SystemExit(3)", "{port}"),
            r"ended with status 3.*\nout of memory",
        ),
        (
            (*PLAYED, "--late", "600"),
            r"took no requests at http://127.0.0.1:\d+/v1 within 1 s.*\nthe played server",
        ),
    ],
)
def test_a_command_that_does_not_serve_is_an_error_with_its_last_lines(
    tmp_path: Path, command: tuple[str, ...], message: str
) -> None:
    part, _ = make_pictures(tmp_path, 1)
    chosen = section(LOCAL, {"start_timeout_s": 1}, command=command)
    with pytest.raises(ValueError, match=f"(?s)recaption.command: {message}"):
        captioned(part, chosen, tmp_path / "out.parquet")


@pytest.mark.slow
def test_its_rule_captions_a_dataset_warns_of_a_missing_key_and_makes_nothing_again_for_how_it_asks(
    make_tiny_project: Callable[[str], TinyProject], server: Server
) -> None:
    project = make_tiny_project("served")
    body = section(server.url, {"key_variable": "CAPTIONS_KEY"}).model_dump(mode="json")
    requests = {"key_variable": "CAPTIONS_KEY", "concurrency": 2}
    dataset = {
        "description": "d", "keep": [], "scorers": {},
        "source": {"kind": "pictures", "folder": "src/darkroom_demo/pictures/shapes/blue_square"},
        "recaption": {**body, "requests": requests},
    }  # fmt: skip
    project.write("config/datasets/demo.yaml", dataset)
    project.variables = {"CAPTIONS_KEY": ""}
    told = project.run("snakemake", "-n", "recaption")
    assert (
        "config/datasets/demo.yaml: recaption.requests.key_variable: the environment variable CAPTIONS_KEY"
        in told
    )
    refused = project.run("snakemake", "recaption", "--quiet", "all", check=False)
    assert (
        "CAPTIONS_KEY is not set here" in refused
        and "export CAPTIONS_KEY=KEY" in refused
        and not server.asked
    )
    project.variables = {"CAPTIONS_KEY": KEY}
    project.run("snakemake", "recaption", "--quiet", "all")
    manifest = json.loads((project.results("recaption") / "manifest.json").read_text())
    number = manifest["counts"]["captioned"]
    assert number > 0 and server.asked.total() == 2 * number and server.keys == {f"Bearer {KEY}"}
    assert manifest["counts"]["answered_by"] == {MODEL: 2 * number}
    assert manifest["params"]["recaption"] == body and "requests" not in body
    assert [path.name for path in project.results("recaption").glob(".*")] == []
    dataset["recaption"] = {**body, "requests": {**requests, "concurrency": 3, "timeout_s": 9}}
    project.write("config/datasets/demo.yaml", dataset)
    assert project.planned("recaption") == set()
    found = [
        path for path in project.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]
    assert found == []
