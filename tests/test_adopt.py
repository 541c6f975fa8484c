"""Work that goes on outside the folder that made it: a colleague's clone, and a training started by hand."""

import os
import re
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
    project = finished_project.copy(tmp_path / "publisher")
    publish = commands(DOCS / "reproduce.md")[2]
    project.run("bash", "-ec", "\n".join(publish).replace("FOLDER", str(tmp_path / "published")))
    return project


def clone(publisher: TinyProject, folder: Path) -> TinyProject:
    """A fresh clone of a published project."""
    publisher.run("git", "clone", "--quiet", ".", str(folder))
    reader = TinyProject.__new__(TinyProject)
    reader.folder = folder
    return reader


def sees_later_changes(reader: TinyProject) -> None:
    """Nothing is to be done, and after a change what it makes stale and nothing else."""
    assert reader.planned() == set()
    reader.edit("config/runs/demo.yaml", {"evaluate": {"num_bootstrap": 30}})
    assert reader.planned() == {"evaluate_run", "report_run"}
    reader.edit("config/runs/demo.yaml", {"train": {"learning_rate": 0.0005}})
    follows = {"draw_chunk", "draw_manifest"}
    follows |= {"measure_features", "measure_metric", "measure_manifest"}
    assert reader.planned() == {"train_run", *follows, "evaluate_run", "report_run"}
    reader.edit("config/datasets/demo.yaml", {"keep": [{"column": "min_side_px", "min": 100}]})
    planned = reader.planned()
    assert {"filter_part", "recaption_part", "bucket_part", "cache_part", "train_run"} <= planned
    assert not planned & {"urls", "download_part", "download_manifest", "score_part", "score_dataset"}


def test_who_adopts_a_published_result_reruns_only_what_they_change(
    publisher: TinyProject, tmp_path: Path
) -> None:
    reader = clone(publisher, tmp_path / "reader")
    adopt = next(block for block in commands(DOCS / "reproduce.md") if "darkroom adopt demo" in block)
    assert adopt[0] == "dvc pull" and "darkroom adopt demo" in adopt
    lock = (reader.folder / "dvc.lock").read_text()
    output = reader.run("bash", "-ec", "\n".join(adopt).replace("PUBLISHER", str(publisher.folder)))
    assert (
        "adopted: download, score, filter, recaption, bucket, cache, train, draw, measure, evaluate, report; 0 of"
        in output
    )
    assert "Nothing to be done" in output
    assert "up to date" in reader.run("dvc", "status")
    assert (reader.folder / "dvc.lock").read_text() == lock
    sees_later_changes(reader)


@pytest.mark.parametrize("copy", ["cp -r", "cp -a", "rsync -a"])
def test_results_are_adopted_whatever_they_were_copied_with(
    publisher: TinyProject, tmp_path: Path, copy: str
) -> None:
    if shutil.which(copy.split()[0]) is None:
        pytest.skip(f"no {copy.split()[0]}: apt-get install rsync")
    reader = clone(publisher, tmp_path / "reader")
    shutil.rmtree(reader.folder / "results", ignore_errors=True)
    reader.run(*copy.split(), str(publisher.folder / "results"), ".")
    reader.run("darkroom", "adopt", "demo")
    sees_later_changes(reader)


def test_read_only_results_with_old_times_are_adopted(publisher: TinyProject, tmp_path: Path) -> None:
    reader = clone(publisher, tmp_path / "reader")
    shutil.rmtree(reader.folder / "results", ignore_errors=True)
    shutil.copytree(publisher.folder / "results", reader.folder / "results")
    for path in (reader.folder / "results").rglob("*"):
        if path.is_file():
            os.utime(path, (1_000_000_000, 1_000_000_000))
            path.chmod(0o444)
    reader.run("darkroom", "adopt", "demo")
    sees_later_changes(reader)


def test_what_dvc_pull_gives_is_adopted_and_files_that_are_not_here_are_counted(
    publisher: TinyProject, tmp_path: Path
) -> None:
    reader = clone(publisher, tmp_path / "reader")
    reader.run("dvc", "pull", "--quiet")
    output = reader.run("darkroom", "adopt", "demo")
    absent, total = map(int, re.findall(r"; (\d+) of (\d+) files are not here", output)[0])
    assert 0 < absent < total
    assert reader.planned() == set()
    assert "up to date" in reader.run("dvc", "status")


def test_results_of_other_settings_are_not_adopted(publisher: TinyProject, tmp_path: Path) -> None:
    reader = clone(publisher, tmp_path / "reader")
    reader.run("cp", "-a", "--no-target-directory", str(publisher.folder / "results"), "results")
    reader.edit("config/runs/demo.yaml", {"train": {"learning_rate": 0.0005}})
    before = (reader.folder / "results/runs/demo/train/manifest.json").stat().st_mtime_ns
    output = reader.run("darkroom", "adopt", "demo", check=False)
    assert "train/manifest.json: was made with other settings than the configuration's" in output
    assert "nothing was adopted" in output
    assert (reader.folder / "results/runs/demo/train/manifest.json").stat().st_mtime_ns == before
    assert not (reader.folder / ".snakemake/metadata").exists()
    # Damage is found too.
    reader.edit("config/runs/demo.yaml", {"train": {"learning_rate": 0.002}})
    (reader.folder / "results/runs/demo/train/loss.csv").write_text("step,loss\n")
    assert "loss.csv: changed since" in reader.run("darkroom", "adopt", "demo", check=False)


def test_a_change_that_snakemake_has_not_seen_is_told(publisher: TinyProject) -> None:
    # As after copying a project without its hidden folder: the times are right, the notes are not there.
    shutil.rmtree(publisher.folder / ".snakemake")
    publisher.edit("config/runs/demo.yaml", {"train": {"learning_rate": 0.0005}})
    output = publisher.run("snakemake", "-n")
    assert "Nothing to be done" in output
    assert "but results/runs/demo/train/manifest.json: was made with other settings" in output
    assert "`darkroom adopt demo`" in output


def test_torchrun_trains_with_the_command_of_the_rule(publisher: TinyProject) -> None:
    command = ["snakemake", "-n", "train", "--printshellcmds", "-R", "train_run"]
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
