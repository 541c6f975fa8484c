"""Work that goes on outside the folder that made it: a colleague's clone, and a training started by hand."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyProject
from doc_pages import DOCS, commands

from darkroom.store import read_manifest, read_table

pytestmark = pytest.mark.slow


@pytest.fixture
def publisher(finished_project: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """A finished project, published into a folder."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
    project = TinyProject.__new__(TinyProject)
    project.folder = tmp_path / "publisher"
    shutil.copytree(finished_project.folder, project.folder, symlinks=True)
    publish = commands(DOCS / "reproduce.md")[2]
    project.run("bash", "-ec", "\n".join(publish).replace("FOLDER", str(tmp_path / "published")))
    return project


def test_who_adopts_a_published_result_reruns_only_what_they_change(
    publisher: TinyProject, tmp_path: Path
) -> None:
    publisher.run("git", "clone", "--quiet", ".", str(tmp_path / "reader"))
    reader = TinyProject.__new__(TinyProject)
    reader.folder = tmp_path / "reader"
    adopt = commands(DOCS / "reproduce.md")[4]
    assert adopt[0] == "dvc pull" and "snakemake --touch" in adopt
    lock = (reader.folder / "dvc.lock").read_text()
    output = reader.run("bash", "-ec", "\n".join(adopt).replace("PUBLISHER", str(publisher.folder)))
    assert "Nothing to be done" in output
    assert "up to date" in reader.run("dvc", "status")
    assert (reader.folder / "dvc.lock").read_text() == lock
    reader.edit("config/runs/demo.yaml", {"evaluate": {"num_bootstrap": 30}})
    assert reader.planned() == {"evaluate", "report"}
    reader.edit("config/runs/demo.yaml", {"train": {"learning_rate": 0.0005}})
    assert reader.planned() == {"train", "evaluate", "report"}


def test_torchrun_trains_with_the_command_of_the_rule(publisher: TinyProject) -> None:
    command = ["snakemake", "-n", "--force", "--printshellcmds", "train"]
    assert command in [block[0].split() for block in commands(DOCS / "cluster.md")]
    printed = publisher.run(*command)
    (line,) = [line.strip() for line in printed.splitlines() if "workflow/scripts/train.py" in line]
    line = line.removeprefix("Shell command:").strip()
    assert line.startswith("python workflow/scripts/train.py ")
    history = publisher.folder / "results/runs/demo/train/history.parquet"
    alone = read_table(history)["loss"]
    shutil.rmtree(publisher.folder / "checkpoints")
    shutil.rmtree(publisher.folder / "results/runs/demo/train")
    publisher.run("bash", "-ec", line.replace("python", "torchrun --nproc-per-node=2 --", 1))
    manifest = read_manifest(publisher.folder / "results/runs/demo/train/manifest.json")
    assert manifest["counts"]["steps"] == 12
    np.testing.assert_allclose(read_table(history)["loss"], alone, rtol=0.02)
