"""Whose Python and whose library a workflow's jobs use, when no environment is active or it is another clone's."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import TinyProject

ROOT = Path(__file__).parents[1]
STALE = """
[project.entry-points."darkroom.sources"]
demo = "darkroom_demo.source:SPEC"
later = "darkroom_demo.later:SPEC"
"""
TELL = "import sys, darkroom; print(sys.prefix, darkroom.__file__)"
SNAKEFILE = f"""
include: "rules/environment.smk"
rule all:
    input: "shell.txt", "script.txt"
rule in_shell:
    output: "shell.txt"
    shell: "python -c '{TELL}' > {{output}}"
rule in_script:
    output: "script.txt"
    script: "script.py"
"""
SCRIPT = "import sys, darkroom; open(snakemake.output[0], 'w').write(f'{sys.prefix} {darkroom.__file__}')"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A project of two small rules, with a library of its own that the environment knows nothing of."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "rules").mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "script.py").write_text(SCRIPT)
    shutil.copy(ROOT / "rules/environment.smk", folder / "rules")
    return folder


def without_activation(
    folder: Path, *command: str, path: Path = ROOT / "src"
) -> subprocess.CompletedProcess[str]:
    """A program of the environment, called by its path as in `.venv/bin/snakemake`."""
    # `make` names a profile, which this small project does not have.
    inherited = {name: value for name, value in os.environ.items() if name != "SNAKEMAKE_PROFILE"}
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(path), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, text=True, timeout=600, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=inherited | variables,
    )  # fmt: skip


def test_without_activation_jobs_run_the_environments_python_and_the_projects_own_library(
    clone: Path,
) -> None:
    assert shutil.which("python", path="/usr/bin:/bin") != sys.executable
    done = without_activation(clone, "-m", "snakemake", "--cores", "1", path=clone / "src")
    assert done.returncode == 0, done.stdout
    for name in ("shell.txt", "script.txt"):
        assert (clone / name).read_text().split() == [sys.prefix, str(clone / "src/darkroom/__init__.py")], (
            name
        )


def assert_refused(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode != 0
    assert f"this is the project {folder}, but {sys.executable} runs the library of {ROOT}" in done.stdout
    assert f"`make setup` in {folder}" in done.stdout


def test_a_clone_with_another_clones_environment_is_refused(clone: Path) -> None:
    assert_refused(without_activation(clone, "-m", "snakemake", "--cores", "1"), clone)
    assert not (clone / "shell.txt").exists()


def test_the_workflow_itself_refuses_before_its_first_import(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("second")
    assert_refused(
        without_activation(project.folder, "-m", "snakemake", "-n", "--cores", "1"), project.folder
    )


def test_commands_refuse_to_judge_a_clone_by_another_clones_code(clone: Path) -> None:
    done = without_activation(clone, "-m", "darkroom.cli", "verify", "demo")
    assert done.returncode == 2
    assert f"this is the project {clone}, but {sys.executable} runs the library of {ROOT}" in done.stdout


def test_the_version_is_told_with_whose_library_it_is(clone: Path) -> None:
    done = without_activation(clone, "-m", "darkroom.cli", "--version")
    assert done.stdout == f"darkroom {version('darkroom')}, {ROOT / 'src/darkroom'}\n"


def test_an_environment_that_was_set_up_before_the_projects_entry_points_is_refused(clone: Path) -> None:
    (clone / "pyproject.toml").write_text(STALE)
    remedy = "pyproject.toml named later of darkroom.sources; `make setup`"
    for command in (("-m", "snakemake", "--cores", "1"), ("-m", "darkroom.cli", "verify", "demo")):
        done = without_activation(clone, *command, path=clone / "src")
        assert done.returncode != 0 and remedy in done.stdout, done.stdout
