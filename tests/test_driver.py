"""One driver at a time for the same results, also where clones or machines share them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from no_flock import REFUSALS, without_flock

WORKFLOW = Path(__file__).parents[1] / "workflow"
sys.path.insert(0, str(WORKFLOW))

from driver import lock, stale  # noqa: E402
from driver.messages import DriverError  # noqa: E402

# A driver that holds its results until its input ends; as on another machine when told so.
DRIVER = """
import sys
import darkroom.lock as locks
from driver import lock
locks.HEARTBEAT_S = 0.1
if sys.argv[1] == "elsewhere":
    locks._boot = lambda: "another kernel"
held = lock.hold(["results/datasets/flowers/urls.parquet"])
print("held", flush=True)
sys.stdin.read()
"""


def start_driver(clone: Path, where: str = "here", **env: str) -> "subprocess.Popen[str]":
    clone.mkdir(exist_ok=True)
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, where], cwd=clone, text=True,
        env={**os.environ, "PYTHONPATH": f"{WORKFLOW}{os.pathsep}{WORKFLOW.parent / 'src'}", **env},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert driver.stdout is not None and driver.stdout.readline() == "held\n", driver.communicate()
    return driver


def refusal(clone: Path) -> str:
    """What a second driver that starts in a clone is told, or "" if it may go on."""
    clone.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "here"], cwd=clone, text=True, input="", capture_output=True,
        env={**os.environ, "PYTHONPATH": f"{WORKFLOW}{os.pathsep}{WORKFLOW.parent / 'src'}"},
    )  # fmt: skip
    return next((line for line in done.stderr.splitlines() if "another snakemake" in line), "")


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("shared", ["results", "results/datasets", "results/datasets/flowers"])
def test_two_clones_that_share_results_have_one_driver_at_a_time(
    tmp_path: Path, shared: str, where: str
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    (one / shared).mkdir(parents=True)
    (other / shared).parent.mkdir(parents=True)
    (other / shared).symlink_to(one / shared)
    driver = start_driver(one, where)
    expected = f"(process {driver.pid} on {socket.gethostname()}, in {one}); wait for it or stop it"
    told = refusal(other)
    assert "another snakemake is at work on results" in told and expected in told
    driver.communicate()
    assert refusal(other) == ""


def test_clones_that_share_a_folder_of_other_datasets_do_not_wait_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    for clone in ("one", "other"):
        (tmp_path / clone / "results").mkdir(parents=True)
        (tmp_path / clone / "results/datasets").symlink_to(tmp_path / "shared")
    held = lock.hold(["results/datasets/trees/urls.parquet"], tmp_path / "one/results")
    assert refusal(tmp_path / "other") == ""
    lock._release(held)


@pytest.mark.parametrize("refused", REFUSALS)
def test_a_killed_driver_is_no_hindrance_also_without_flock(tmp_path: Path, refused: str) -> None:
    driver = start_driver(tmp_path / "one", **without_flock(tmp_path / "library", refused))
    assert f"process {driver.pid} on" in refusal(tmp_path / "one")
    driver.kill()
    driver.wait()
    assert refusal(tmp_path / "one") == ""


def test_a_driver_that_was_taken_over_is_interrupted(tmp_path: Path) -> None:
    driver = start_driver(tmp_path)
    (tmp_path / "results/.driver/lock-00000009.json").touch()
    assert driver.wait(20) != 0
    assert driver.stderr is not None and "this snakemake was silent for 60 s" in driver.stderr.read()


def test_results_that_cannot_be_written_to_are_named(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(DriverError, match="results: no lock can be written there"):
        lock.hold([], tmp_path / "results")


def test_what_killed_jobs_left_of_planned_files_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [".other.parquet.12.tmp", ".part-00000.tar.tmp", "part-00000.tar.12.tmp", ".part-00000.tar.x.tmp"]
    for name in [*kept, ".part-00000.tar.12.tmp", ".part-00000.tar.13.tmp"]:
        (tmp_path / name).touch()
    (tmp_path / ".model.7.tmp").mkdir()
    (tmp_path / ".model.7.tmp/weights").touch()
    outputs = ["part-00000.tar", "model", "absent/part-00000.tar"]
    stale.remove_unfinished(tmp_path / name for name in outputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
