"""`make test` tries what failed once more, alone."""

import subprocess
import sys
from pathlib import Path

import pytest

AGAIN = Path(__file__).with_name("again.py")
TESTS = """
from pathlib import Path
import pytest
def test_passes(): pass
def test_late():
    late = Path("late")
    if not late.exists():
        late.touch()
        assert False
@pytest.mark.parametrize("number", range({num_wrong}))
def test_wrong(number): assert False
"""


def tried_again(folder: Path, num_wrong: int, status: str = "1", num_files: int = 1) -> tuple[int, str]:
    """The exit status and the words of `again.py` after a run in which tests failed."""
    files = ["test_played.py", *(f"test_other_{i}.py" for i in range(1, num_files))]
    for name in files:
        (folder / name).write_text(TESTS.format(num_wrong=num_wrong))
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={folder}/here", *files]
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode == 1
    again = [sys.executable, str(AGAIN), str(folder), f"here={status}"]
    done = subprocess.run(again, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_what_passes_alone_passes_and_is_named(tmp_path: Path) -> None:
    status, told = tried_again(tmp_path, 0)
    assert status == 0 and "1 passed" in told
    assert "FLAKY test_played.py::test_late: failed beside other tests, passed alone" in told


def test_what_fails_twice_has_failed_beside_what_passes(tmp_path: Path) -> None:
    status, told = tried_again(tmp_path, 20)
    assert status == 1 and "20 failed, 1 passed" in told and "FLAKY test_played.py::test_late" in told


@pytest.mark.parametrize(
    ("num_files", "status", "message"),
    [
        (6, "1", "tests of 6 files failed; only those of up to 5 are tried again"),
        (1, "2", "more went wrong than tests that failed"),
    ],
)
def test_what_is_no_accident_is_not_tried_again(
    tmp_path: Path, num_files: int, status: str, message: str
) -> None:
    code, told = tried_again(tmp_path, 1, status, num_files)
    assert code == 1 and message in told and "FLAKY" not in told
