"""Set-up: what a newcomer is told, and that a second call does nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 13)])
def test_a_python_too_old_or_too_new_is_named_with_what_would_do(
    tmp_path: Path, version: tuple[int, int]
) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    other = tmp_path / "other-python"
    other.write_text(f'#!/bin/sh\nshift\nexec python3 -c "import sys; sys.version_info = {version}\n$1"\n')
    other.chmod(0o755)
    done = make(tmp_path, "setup", "PYTHON=./other-python")
    assert done.returncode != 0
    assert f"needs Python 3.11 or 3.12, and ./other-python is {version[0]}.{version[1]}" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_second_set_up_installs_nothing(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.ready").touch()
    done = make(tmp_path, "setup", "PYTHON=/nowhere/python")
    assert done.returncode == 0, "a ready environment does not even ask for a Python"
