"""One holder of a folder at a time, also where flock does not reach."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from no_flock import REFUSALS, without_flock

from darkroom import lock as lock_module
from darkroom.lock import locked
from darkroom.lock import take as take_lock

# Holds the lock, says so, and on each line of its input checks that it still does. As on another machine
# when told so: with the name of another kernel, of which no flock is seen.
HOLDER = """
import sys
import darkroom.lock as lock
lock.HEARTBEAT_S = 0.1
if sys.argv[2] == "elsewhere":
    lock._boot = lambda: "another kernel"
with lock.locked(sys.argv[1], 1) as held:
    print("held", flush=True)
    for line in sys.stdin:
        held.check()
        print("checked", flush=True)
"""


def start_holder(folder, where, **env):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), where], env={**os.environ, **env}, **pipes
    )
    assert holder.stdout.readline() == "held\n"
    return holder


@pytest.fixture
def quickly(monkeypatch):
    monkeypatch.setattr(lock_module, "STALE_AFTER_S", 1.0)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_second_training_is_told_who_holds_the_directory(tmp_path, where):
    holder = start_holder(tmp_path, where, SLURM_JOB_ID="4711")
    message = rf"in use by another training \(process {holder.pid} on .*, job 4711, in {os.getcwd()}\)"
    with pytest.raises(RuntimeError, match=message), locked(tmp_path, 0.3):
        pass
    holder.communicate()
    with locked(tmp_path, 0.3):
        pass
    assert len(list(tmp_path.iterdir())) == 1


def test_after_a_kill_on_the_same_machine_the_next_goes_on_at_once(tmp_path):
    holder = start_holder(tmp_path, "here")
    holder.kill()
    holder.wait()
    heard, start = [], time.monotonic()
    with locked(tmp_path, 0, heard.append):
        assert time.monotonic() - start < lock_module.STALE_AFTER_S / 2
    assert f"process {holder.pid} on" in heard[0] and "is dead; taken over" in heard[0]


def test_a_silent_holder_elsewhere_is_given_up_and_ends_before_it_writes(tmp_path, quickly):
    holder = start_holder(tmp_path, "elsewhere")
    print("", file=holder.stdin, flush=True)
    assert holder.stdout.readline() == "checked\n"
    os.kill(holder.pid, signal.SIGSTOP)
    heard = []
    with locked(tmp_path, 0, heard.append) as mine:
        assert f"process {holder.pid} on" in heard[0]
        os.kill(holder.pid, signal.SIGCONT)
        print("", file=holder.stdin, flush=True)
        output, errors = holder.communicate()
        mine.check()
    assert output == "" and holder.returncode == 1
    assert f"was taken over by process {os.getpid()} on" in errors


def test_a_lock_whose_holder_died_before_it_said_who_it_is_is_given_up(tmp_path, quickly):
    (tmp_path / "lock-00000006.json").touch()
    with locked(tmp_path, 0) as mine:
        assert [path.name for path in tmp_path.iterdir()] == ["lock-00000007.json"]
        mine.check()


@pytest.mark.parametrize("refusal", REFUSALS)
def test_without_flock_a_second_is_refused_and_after_a_kill_the_next_goes_on_at_once(tmp_path, refusal):
    env = without_flock(tmp_path / "library", refusal)
    folder = tmp_path / "held"
    holder = start_holder(folder, "here", **env)
    (path,) = folder.iterdir()
    assert json.loads(path.read_text())["flocked"] is False
    second = [sys.executable, "-c", HOLDER, str(folder), "here"]
    options = {"env": {**os.environ, **env}, "capture_output": True, "text": True, "input": ""}
    assert f"in use by another training (process {holder.pid} on" in subprocess.run(second, **options).stderr
    holder.kill()
    start = time.monotonic()
    third = subprocess.run(second, **options)  # the killed one is not even waited for
    assert third.stdout.startswith(f"training: process {holder.pid} on") and "held" in third.stdout
    assert time.monotonic() - start < lock_module.STALE_AFTER_S / 1.5
    holder.wait()


@pytest.mark.parametrize("refusal", REFUSALS)
def test_without_flock_another_machine_is_noticed_by_the_beat(tmp_path, quickly, refusal):
    holder = start_holder(tmp_path / "held", "elsewhere", **without_flock(tmp_path / "library", refusal))
    with pytest.raises(RuntimeError, match="in use by another training"), locked(tmp_path / "held", 0.3):
        pass
    holder.kill()
    holder.wait()
    with locked(tmp_path / "held", 0):
        pass


def test_a_process_that_was_given_a_dead_holders_number_is_not_taken_for_it(tmp_path):
    holder = start_holder(tmp_path, "here", **without_flock(tmp_path / "library", "ENOSYS"))
    (path,) = tmp_path.glob("lock-*")
    holder.kill()
    holder.wait()
    left = json.loads(path.read_text())
    path.write_text(json.dumps({**left, "process": os.getppid()}))
    with locked(tmp_path, 0):
        pass


def test_where_processes_cannot_be_seen_the_beat_decides(tmp_path, quickly, monkeypatch):
    holder = start_holder(tmp_path, "here", **without_flock(tmp_path / "library", "ENOSYS"))
    monkeypatch.setattr(lock_module, "_started", lambda _: None)
    with pytest.raises(RuntimeError, match="in use by another training"), locked(tmp_path, 0.3):
        pass
    holder.communicate()


def test_a_holder_hears_that_it_was_taken_over_before_it_asks(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_S", 0.1)
    heard = []
    lock = take_lock(tmp_path, 0, what="snakemake", on_loss=heard.append)
    (tmp_path / "lock-00000002.json").touch()
    deadline = time.monotonic() + 10
    while not heard and time.monotonic() < deadline:
        time.sleep(0.05)
    lock.release()
    assert "this snakemake was silent for 60 s" in heard[0]


def take(folder, overlaps):
    lock_module.STALE_AFTER_S, lock_module.HEARTBEAT_S = 1.0, 0.1
    for _ in range(5):
        with locked(folder, 60, lambda _: None):
            inside = folder / "inside"
            try:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                overlaps.value += 1
            time.sleep(0.01)
            inside.unlink()


def test_of_many_that_want_a_dead_holders_lock_one_at_a_time_gets_it(tmp_path):
    holder = start_holder(tmp_path, "elsewhere")
    holder.kill()
    holder.wait()
    context = multiprocessing.get_context("fork")
    overlaps = context.Value("i", 0)
    waiting = [context.Process(target=take, args=(tmp_path, overlaps)) for _ in range(5)]
    for process in waiting:
        process.start()
    for process in waiting:
        process.join(90)
    assert [process.exitcode for process in waiting] == [0] * 5
    assert overlaps.value == 0
