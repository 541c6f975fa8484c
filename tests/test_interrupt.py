"""Whatever ends `snakemake train` on this machine, the training saves, and the same command goes on."""

import os
import pty
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TinyProject

from darkroom.store import sha256_file, sha256_folder

pytestmark = pytest.mark.slow

# Enough for a busy machine to be told in time, several times.
NUM_STEPS = 120
TRAIN = {
    "num_steps": NUM_STEPS,
    "checkpoint_every_steps": 1000,
    "log_every_steps": 1,
    "sample_every_steps": 0,
}


def digests(project: TinyProject) -> list[str]:
    folder = project.folder / "results/runs/demo/train"
    return [sha256_folder(folder / "model"), sha256_file(folder / "history.parquet")]


class Terminal:
    """`snakemake train` in a terminal of its own."""

    def __init__(self, project: TinyProject) -> None:
        self.log = project.folder / "logs/runs/demo/train/train.log"
        self.log.unlink(missing_ok=True)
        self.output = b""
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            # As of a terminal, though the tests themselves may run in the background of a shell.
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.chdir(project.folder)
            os.execvpe("snakemake", ["snakemake", "train"], project.environment)
        os.set_blocking(self.terminal, False)

    def read(self) -> None:
        """What the terminal shows; a terminal that nobody reads from holds up whoever writes."""
        try:
            while part := os.read(self.terminal, 65536):
                self.output += part
        except OSError:
            pass

    def wait_for_step(self, step: int) -> None:
        deadline = time.monotonic() + 900
        while not (self.log.exists() and re.search(rf"train: step {step}/{NUM_STEPS}", self.log.read_text())):
            self.read()
            assert time.monotonic() < deadline, self.output.decode()
            time.sleep(0.05)

    def end(self) -> int:
        """The driver's exit code. Nobody is left, and the training says after which step it has saved."""
        deadline, ended = time.monotonic() + 600, 0
        while not ended:
            self.read()
            assert time.monotonic() < deadline, self.output.decode()
            ended, status = os.waitpid(self.process, os.WNOHANG)
            time.sleep(0.05)
        while (
            subprocess.run(["pgrep", "--session", str(self.process)], stdout=subprocess.DEVNULL).returncode
            == 0
        ):
            assert time.monotonic() < deadline, "a job is left"
            time.sleep(0.05)
        return os.waitstatus_to_exitcode(status)


def press_ctrl_c_again_and_again(terminal: Terminal) -> None:
    """Ctrl-C, of a person who is impatient"""
    for _ in range(3):
        os.write(terminal.terminal, b"\x03")
        time.sleep(0.2)


def kill_the_driver(terminal: Terminal) -> None:
    """`kill`, which the driver alone hears"""
    os.kill(terminal.process, signal.SIGTERM)


def close_the_terminal(terminal: Terminal) -> None:
    """the window is closed, or the connection breaks"""
    os.close(terminal.terminal)


WAYS: list[Callable[[Terminal], None]] = [press_ctrl_c_again_and_again, kill_the_driver, close_the_terminal]


def test_however_a_training_is_stopped_it_goes_on_with_no_step_repeated_and_ends_with_the_same_bytes(
    finished_project: TinyProject, tmp_path: Path
) -> None:
    project = finished_project.copy(tmp_path / "project")
    project.edit("config/runs/demo.yaml", {"train": TRAIN})
    stopped, first = 0, True
    for way in WAYS:
        terminal = Terminal(project)
        terminal.wait_for_step(stopped + 2)
        way(terminal)
        assert terminal.end() != 0, way.__doc__
        log = terminal.log.read_text()
        assert first or f"train: resumed at step {stopped}, 0 steps repeated" in log, way.__doc__
        before, first = stopped, False
        (stopped,) = map(int, re.findall(r"stopped by a signal after step (\d+)", log))
        assert before < stopped < NUM_STEPS, way.__doc__
        assert b"Traceback" not in terminal.output, terminal.output.decode()
    project.run("snakemake", "train")
    assert f"train: resumed at step {stopped}, 0 steps repeated" in terminal.log.read_text()
    resumed = digests(project)
    shutil.rmtree(project.folder / "checkpoints/demo")
    project.run("snakemake", "train", "-R", "train_run")
    assert digests(project) == resumed
