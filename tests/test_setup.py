"""Set-up: what a newcomer is told, what is refused, and that a second call does nothing."""

import importlib.util
import os
import pty
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def make(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    # Not those of a make that runs the tests: with them this one would say which folder it enters.
    own = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    options = {"stdin": subprocess.DEVNULL, "timeout": 300, "env": own, **options}
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, **options)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What `make setup` reads, alone in a folder."""
    return copied(tmp_path / "project")


def copied(folder: Path) -> Path:
    for name in (
        "Makefile",
        "requirements.lock",
        "pyproject.toml",
        "workflow/can_set_up.py",
        "tests/again.py",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def can_set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module that refuses, on a machine where nothing is to be refused."""
    spec = importlib.util.spec_from_file_location("can_set_up", ROOT / "workflow/can_set_up.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module.platform, "libc_ver", lambda: ("glibc", "2.28"))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 10**12))
    return module


def test_a_machine_that_can_is_not_refused(can_set_up: ModuleType, tmp_path: Path) -> None:
    assert can_set_up.problem(str(tmp_path / ".venv"), "python3") is None
    assert can_set_up.problem(str(tmp_path / "données/.venv"), "python3") is None


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 13)])
def test_a_python_too_old_or_too_new_is_named_with_what_would_do(
    project: Path, version: tuple[int, int]
) -> None:
    other = project / "other-python"
    code = f"import sys, runpy; sys.version_info = {version}; sys.argv = sys.argv[1:]"
    other.write_text(
        f'#!/bin/sh\nexec python3 -c "{code}; runpy.run_path(sys.argv[0], None, \'__main__\')" "$@"\n'
    )
    other.chmod(0o755)
    done = make(project, "setup", "PYTHON=./other-python")
    assert done.returncode != 0
    assert f"needs Python 3.11 or 3.12, and ./other-python is {version[0]}.{version[1]}" in done.stderr
    assert not (project / ".venv").exists()


@pytest.mark.parametrize(
    ("system", "machine", "libc", "told"),
    [
        ("Darwin", "arm64", ("", ""), "this is Darwin on arm64"),
        ("Linux", "aarch64", ("glibc", "2.36"), "this is Linux on aarch64"),
        ("Linux", "x86_64", ("", ""), "has another, such as musl"),
        ("Linux", "x86_64", ("glibc", "2.17"), "need glibc 2.28 or newer, and this is 2.17"),
    ],
)
def test_a_platform_without_packages_is_named(
    can_set_up: ModuleType, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, libc: tuple[str, str],
    told: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(can_set_up.platform, "system", lambda: system)
    monkeypatch.setattr(can_set_up.platform, "machine", lambda: machine)
    monkeypatch.setattr(can_set_up.platform, "libc_ver", lambda: libc)
    assert told in can_set_up.problem(".venv", "python3")


@pytest.mark.parametrize("name", ["my project", "photos (1)", "it's", "a$b", "a:b", "a;b", "a&b"])
def test_a_folder_whose_path_scripts_cannot_have_is_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    project = copied(tmp_path / name)
    done = make(project, "setup")
    assert done.returncode != 0
    assert f"the environment cannot lie in {project}/.venv" in done.stderr, done.stderr
    assert "move the project to a folder without blanks and special characters" in done.stderr
    assert not (project / ".venv").exists()


def test_a_full_disk_is_refused_with_what_is_needed_and_where(
    can_set_up: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(can_set_up.shutil, "disk_usage", lambda f: shutil._ntuple_diskusage(0, 0, 3 * 10**9))
    found = can_set_up.problem(str(tmp_path / ".venv"), "python3")
    assert f"the disk of {tmp_path} has 3.0 GB free" in found and "UV_CACHE_DIR" in found
    # What is installed and downloaded already needs no space again.
    (tmp_path / ".venv/lib").mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    assert can_set_up.problem(str(tmp_path / ".venv"), "python3") is None


def test_a_link_to_another_projects_environment_is_refused_and_left_alone(
    project: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other/.venv"
    (other / "bin").mkdir(parents=True)
    (other / "bin/activate").write_text(f'VIRTUAL_ENV="{other}"\n')
    (project / ".venv").symlink_to(other)
    done = make(project, "setup")
    assert done.returncode != 0 and f".venv is a link to {other}" in done.stderr
    assert (other / "bin/activate").exists()


def ready(project: Path, place: Path) -> None:
    """An environment that was finished in the folder `place`."""
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/activate").write_text(f'VIRTUAL_ENV="{place}/.venv"\n')
    (project / ".venv/.ready").write_text(f"{place}\n")


def test_a_second_set_up_installs_nothing(project: Path) -> None:
    ready(project, project)
    done = make(project, "setup", "PYTHON=/nowhere/python")
    assert done.returncode == 0, "a ready environment does not even ask for a Python"


@pytest.fixture
def no_python(tmp_path: Path) -> str:
    """A Python that says what is asked of it, and makes no environment."""
    path = tmp_path / "python"
    path.write_text('#!/bin/sh\ncase "$1" in *can_set_up.py) exit 0;; esac\necho "asked: $@"; exit 1\n')
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_an_environment_that_was_copied_with_its_project_is_made_again(
    project: Path, tmp_path: Path, no_python: str
) -> None:
    """Its programs name the folder that they were made in, and would run the library there."""
    ready(project, tmp_path / "first")
    done = make(project, "setup", no_python)
    assert done.returncode != 0 and "asked: -m venv .venv" in done.stdout
    assert not (project / ".venv/bin/activate").exists()


def test_a_set_up_that_was_killed_while_it_wrote_packages_begins_them_again(
    project: Path, no_python: str
) -> None:
    """A package may be there by half, and would count as installed."""
    ready(project, project)
    (project / ".venv/.ready").unlink()
    (project / ".venv/.unfinished").touch()
    done = make(project, "setup", no_python)
    assert done.returncode != 0 and "asked: -m venv .venv" in done.stdout
    assert not (project / ".venv/bin/activate").exists()


def test_help_has_a_line_for_every_target(project: Path) -> None:
    told = make(project).stdout
    assert told == make(project, "help").stdout
    phony = next(
        line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY: help")
    )
    assert [line.split()[1] for line in told.splitlines()] == phony.split()[1:]
    assert all(len(line.split()) > 3 for line in told.splitlines())


@pytest.mark.parametrize(
    ("failing", "told"),
    [("not*slurm", "here=1"), ("slurm", "on-the-cluster=1"), ("*slurm", "here=1 on-the-cluster=1")],
)
def test_make_test_runs_both_parts_tells_one_after_the_other_and_then_fails(
    project: Path, failing: str, told: str
) -> None:
    ready(project, project)
    for name, body in {
        # The cluster's part has ended before the other has begun to tell.
        "pytest": f"""for part; do case "$part" in *slurm) break;; esac; done
            test "$part" = slurm || while test ! -e done; do sleep 0.1; done
            echo "ran: $@"; echo "more of $part"
            test "$part" != slurm || touch done
            case "$part" in {failing}) exit 1;; esac""",
        "sbatch": "exit 0",
    }.items():
        (project / ".venv/bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (project / ".venv/bin" / name).chmod(0o755)
    done = make(project, "test")
    ran = [line for line in done.stdout.splitlines() if line.startswith(("ran: ", "more of"))]
    assert ran[0].endswith("/here") and "-m not interop and not slurm" in ran[0]
    assert ran[1] == "more of not interop and not slurm"
    assert ran[2].endswith("/on-the-cluster") and "-m slurm" in ran[2] and ran[3] == "more of slurm"
    assert len(ran) == 4 and "these are not tried again" in done.stdout
    assert done.returncode != 0 and done.stdout.rstrip().endswith(f"tests failed: {told}")


@pytest.fixture
def with_results(project: Path) -> Path:
    for name in ("results/datasets/a/download", "checkpoints/a", "logs/a", ".snakemake/a", "config/a"):
        (project / name).mkdir(parents=True)
    (project / "results/datasets/a/download/part-00000.tar").write_bytes(bytes(3_000_000))
    return project


def test_clean_results_without_a_terminal_removes_nothing_and_names_the_downloads(with_results: Path) -> None:
    done = make(with_results, "clean-results")
    assert done.returncode != 0 and "make clean-results FORCE=1" in done.stdout
    sizes = dict(reversed(line.split("\t")) for line in done.stdout.splitlines() if "\t" in line)
    assert sizes["results/datasets/a/download"] == "2.9M"
    assert (with_results / "results/datasets/a/download/part-00000.tar").exists()


def test_clean_results_removes_what_runs_have_left_where_it_is_forced(with_results: Path) -> None:
    assert make(with_results, "clean-results", "FORCE=1").returncode == 0
    left = {path.name for path in with_results.iterdir()}
    assert {"config", "Makefile"} <= left and not left & {"results", "checkpoints", "logs", ".snakemake"}


@pytest.mark.parametrize(("answer", "left"), [("y", False), ("n", True), ("", True)])
def test_clean_results_asks_on_a_terminal(with_results: Path, answer: str, left: bool) -> None:
    person, terminal = pty.openpty()
    try:
        os.write(person, f"{answer}\n".encode())
        done = make(with_results, "clean-results", stdin=terminal)
    finally:
        os.close(person), os.close(terminal)
    assert "Remove these, downloads too?" in done.stdout
    assert (with_results / "results").exists() == left and (done.returncode != 0) == left
