"""A plan of what is made already, and of what a failed disk has left of it."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm
from conftest import ROOT

from darkroom.config import load_project
from darkroom.stages import manifest_path, problems
from darkroom.store import read_manifest

sys.path.insert(0, str(ROOT / "speed"))

import plan


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """What starts this Python starts forks, see `warm`."""
    environment = warm.plans.environment(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "executable", shutil.which("python"))
        yield


@pytest.fixture(scope="module")
def made(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of 40 parts in which every file is there; its making asserts that nothing is to be done."""
    folder = tmp_path_factory.mktemp("made")
    plan.make_project(folder, num_rows=400)
    plan.plan_of_all_made(folder, rows_per_part=10)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left", "said"),
    [
        (b"", "no manifest (Expecting value"),
        (b"\xff\xfe{", "no manifest ("),
        (b"[]", "no manifest, but a list"),
    ],
)
def test_a_plan_names_a_manifest_that_cannot_be_read(made: Path, left: bytes, said: str) -> None:
    path = made / manifest_path(load_project("big-0", config=made / "config"), "train")
    whole, times = path.read_bytes(), path.stat()
    path.write_bytes(left)
    # A disk that fails leaves the times.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    try:
        output = plan.snakemake(made, "big-0", "-n")
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert f"{path.relative_to(made)}: {said}" in output
    assert "remove it, and it is made again" in output and "Traceback" not in output


def test_what_is_no_manifest_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.json"
    for text in ("", "null", "{"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json: no manifest.*remove it"):
            read_manifest(path)
    project = load_project("demo", ROOT)
    monkeypatch.chdir(tmp_path)
    of_train = manifest_path(project, "train")
    of_train.parent.mkdir(parents=True)
    of_train.write_text("{}")
    assert problems(project, "train") == [
        f"{of_train}: no manifest of a stage; remove it, and it is made again"
    ]
