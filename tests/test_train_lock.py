"""One training at a time in a run directory, also where flock does not reach."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from darkroom.train import lock as lock_module
from darkroom.train.lock import locked

# Holds the lock, says so, and on each line of its input checks that it still does. As on another machine
# when told so: with the name of another kernel, of which no flock is seen.
HOLDER = """
import sys
import darkroom.train.lock as lock
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
    message = rf"in use by another training \(process {holder.pid} on .*, job 4711\)"
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
        assert time.monotonic() - start < lock_module.STALE_AFTER_S / 10
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


def test_a_file_system_without_flock_is_locked_by_the_beat(tmp_path, quickly, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock_module, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(lock_module.fcntl, "flock", refuse)
    with locked(tmp_path, 0):
        with pytest.raises(RuntimeError, match="in use by another training"), locked(tmp_path, 0.3):
            pass
        (path,) = tmp_path.iterdir()
        left = path.read_bytes()
    path.write_bytes(left)  # as it is after a kill
    with locked(tmp_path, 0):
        pass


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
