"""A project on disks and in folders as people have them: no flock, shared results, spaces, any umask."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TinyProject
from no_flock import without_flock

from darkroom.lock import locked

URLS = "results/datasets/demo/urls.parquet"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("refusal", ["ENOSYS", "ENOLCK", "0"])
def test_without_flock_a_stage_is_made_and_a_second_driver_is_refused(
    make_tiny_project: Callable[[str], TinyProject], tmp_path: Path, refusal: str
) -> None:
    project = make_tiny_project("no-flock")
    project.variables = without_flock(tmp_path, refusal)
    project.run("snakemake", URLS, "--quiet", "all")
    assert (project.folder / URLS).exists()
    with locked(project.folder / "results/.driver", 0, what="snakemake"):
        told = project.run("snakemake", URLS, "-F", "--quiet", "all", check=False)
    assert f"another snakemake is at work on results (process {os.getpid()} on" in told
    assert project.planned(URLS) == set()


def test_a_clone_with_the_same_results_is_refused(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    one, other = make_tiny_project("one"), make_tiny_project("other")
    (one.folder / "results/datasets").mkdir(parents=True)
    (other.folder / "results").mkdir()
    # A published run may not have its results elsewhere.
    other.write("config/config.yaml", {"run": "demo", "published": []})
    (other.folder / "results/datasets").symlink_to(one.folder / "results/datasets")
    with locked(one.folder / "results/datasets/demo/.driver", 0, what="snakemake"):
        told = other.run("snakemake", URLS, "--quiet", "all", check=False)
    assert "another snakemake is at work on results/datasets/demo (process" in told
    other.run("snakemake", URLS, "--quiet", "all")
    assert "results" not in other.run("git", "status", "--porcelain", "--ignored=no")


def test_a_folder_with_spaces_accents_and_signs_and_a_strict_umask_give_a_training_of_their_modes(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("mes données (1) & $HOME")
    project.run("bash", "-c", "umask 027; snakemake train")
    for top in ("results", "checkpoints", "logs"):
        for path in (project.folder / top).rglob("*"):
            state, asked = path.lstat(), 0o777 if path.is_dir() else 0o666
            # DVC makes what it records a read-only link to its cache.
            is_in_cache = path.is_file() and state.st_nlink > 1
            assert is_in_cache or state.st_mode & 0o777 == asked & ~0o027, path
    printed = project.run(
        "snakemake", "-n", "--forcerun", "train_run", "--printshellcmds", "train"
    ).splitlines()
    (line,) = [line for line in printed if "workflow/scripts/train.py" in line]
    line = line.strip().removeprefix("Shell command:").strip()
    project.run("bash", "-ec", line)
    # Once by Snakemake, and once as the line that it prints.
    told = (project.folder / "logs/runs/demo/train/train.log").read_text()
    assert told.count("12 steps, 96 samples seen") == 2 and told.count("step 2/12") == 1


def test_a_link_that_leads_nowhere_is_refused_before_any_job(
    make_tiny_project: Callable[[str], TinyProject], tmp_path: Path
) -> None:
    project = make_tiny_project("cleared")
    project.write("config/config.yaml", {"run": "demo", "published": []})
    for name in ("results", "results/runs", "checkpoints", "logs"):
        place = tmp_path / f"cleared-{name.replace('/', '-')}"
        (project.folder / name).symlink_to(place)
        told = project.run("snakemake", URLS, "--quiet", "all", check=False)
        assert f"{name} is a link to {place}, which is not there." in told and f"(mkdir -p {place})" in told
        place.mkdir()
    assert project.planned(URLS) == {"urls"}


def test_results_behind_links_to_links_on_another_disk_and_notes_there_too_are_those_of_any_project(
    make_tiny_project: Callable[[str], TinyProject], tmp_path: Path
) -> None:
    project = make_tiny_project("links")
    project.write("config/config.yaml", {"run": "demo", "published": []})
    other = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=other) as disk:
        for name in ("results", "checkpoints", "logs", ".snakemake"):
            Path(disk, name).mkdir()
            (tmp_path / f"to-{name}").symlink_to(Path(disk, name))
            (project.folder / name).symlink_to(tmp_path / f"to-{name}")
        project.run("snakemake", URLS, "--quiet", "all")
        assert Path(disk, URLS).exists() and any(Path(disk, "logs").rglob("*.log"))
        assert project.planned(URLS) == set()


def test_names_that_a_shell_would_read_otherwise_are_refused_before_any_job(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("names")
    name = "x$(touch PWNED)"
    project.write(f"config/runs/{name}.yaml", {"extends": "demo"})
    told = project.run("snakemake", "-n", "--config", f"run={name}", check=False)
    assert f"{name!r} cannot be the name of a run: letters, digits" in told and "Traceback" not in told
    project.edit("config/runs/demo.yaml", {"dataset": "a b"})
    told = project.run("snakemake", "-n", check=False)
    assert "config/runs/demo.yaml: dataset: 'a b' cannot be the name of a dataset" in told
    assert not (project.folder / "PWNED").exists()


def test_an_environment_that_snakemake_cannot_start_is_refused_before_any_job(
    make_tiny_project: Callable[[str], TinyProject], tmp_path: Path
) -> None:
    project = make_tiny_project("environment")
    (tmp_path / "my project").symlink_to(Path(sys.executable).parent.parent)
    python = str(tmp_path / "my project/bin/python")
    told = project.run(python, "-m", "snakemake", "-n", URLS, check=False)
    assert f"{python}: Snakemake starts scripts by this path as it stands" in told, told


def test_the_programs_of_the_environment_are_found_where_nobody_activated_it(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("not-activated")
    snakemake = str(Path(sys.executable).parent / "snakemake")
    project.run("env", "PATH=/usr/bin:/bin", snakemake, URLS, "--quiet", "all")
    (project.folder / "Probe.smk").write_text(
        'include: "Snakefile"\nrule probe:\n    output: "which.txt"\n    shell: "command -v python > {output}"\n'
    )
    project.run("env", "PATH=/usr/bin:/bin", snakemake, "-s", "Probe.smk", "probe", "--quiet", "all")
    found = (project.folder / "which.txt").read_text().strip()
    assert found == str(Path(sys.executable).parent / "python")
