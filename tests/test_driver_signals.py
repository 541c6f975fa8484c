"""A driver that is told to end has its jobs told too, and waits for them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.train.signals import stop_signals

WORKFLOW = Path(__file__).parents[1] / "workflow"
# Says what it is told, and ends a moment later; below a shell, as the jobs of Snakemake are.
JOB = """
import signal, sys, time
def hear(number, frame):
    print(signal.Signals(number).name, flush=True)
    global end
    end = time.monotonic() + 0.5
end = time.monotonic() + 300
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, hear)
print("began", flush=True)
while time.monotonic() < end:
    time.sleep(0.05)
print("ended", flush=True)
"""
DRIVER = """
import subprocess, sys
from driver import signals
signals.AGAIN_AFTER_S = 0.2
signals.hand_on()
job = subprocess.Popen(["bash", "-c", f"set -e; {sys.executable} job.py; true"])
try:
    job.wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    job.wait()
print("driver ended", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "heard"),
    [(signal.SIGINT, "SIGTERM"), (signal.SIGTERM, "SIGINT"), (signal.SIGHUP, "SIGINT")],
)
@pytest.mark.parametrize("times", [1, 3])
def test_a_job_hears_what_the_driver_alone_was_told_and_the_driver_ends_after_it(
    tmp_path: Path, number: signal.Signals, heard: str, times: int
) -> None:
    (tmp_path / "job.py").write_text(JOB)
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(WORKFLOW)}, start_new_session=True,
        # As of a terminal, though the tests themselves may run in the background of a shell.
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)],
    )  # fmt: skip
    assert driver.stdout is not None and driver.stdout.readline() == "began\n"
    driver.send_signal(number)
    told = [driver.stdout.readline()]
    for _ in range(times - 1):
        driver.send_signal(number)
    told += driver.communicate(timeout=300)[0].splitlines(keepends=True)
    assert {"interrupted\n", f"{heard}\n"} <= set(told)
    assert told[-2:] == ["ended\n", "driver ended\n"] and told.count("interrupted\n") == 1


def test_who_detached_a_training_is_not_stopped_by_a_hangup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.received
            signal.raise_signal(signal.SIGTERM)
            assert stop.received
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
