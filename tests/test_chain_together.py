"""Scorers of pixels that score at once: one job of a part does for all; each does for its own reasons alone."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TinyProject, made_once

from darkroom.publish import pipeline_text
from darkroom.score.together import FOLDER

pytestmark = pytest.mark.slow
DATASET = "config/datasets/demo.yaml"
PIXELS = ("clip_embedding", "clip_similarity", "perceptual_hash", "quality")
TOLD = "another job of this part has scored for it"


@pytest.fixture(scope="module")
def scored(
    make_tiny_project: Callable[[str], TinyProject], tmp_path_factory: pytest.TempPathFactory
) -> TinyProject:
    """A tiny project after `snakemake score`."""
    project = make_tiny_project("scored")
    project.variables = {"DVC_STAGE": "score"}
    project.edit(DATASET, {"scorers": {"clip_similarity": {"clip": "demo-clip"}}})
    (project.folder / "dvc.yaml").write_text(pipeline_text(project.folder))
    return made_once(project, tmp_path_factory, "snakemake", "score")


@pytest.fixture
def changeable(scored: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    copy = scored.copy(tmp_path / "copy")
    for log in logs(copy):
        log.unlink()
    yield copy
    shutil.rmtree(copy.folder)


def logs(project: TinyProject) -> list[Path]:
    """Of the jobs of scorers of pixels."""
    folder = project.folder / "logs/datasets/demo/score"
    return sorted(path for name in PIXELS for path in folder.glob(f"part-*.{name}.log"))


def taken(project: TinyProject) -> dict[str, bool]:
    """Part and scorer, of those whose job has run -> whether another job had scored for it."""
    return {path.name.removesuffix(".log"): TOLD in path.read_text() for path in logs(project)}


def contents(project: TinyProject) -> dict[str, tuple[bytes, int]]:
    """The bytes and the time of every file of scores of a part."""
    files = project.results("score").glob("part-*")
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_one_job_of_each_part_scores_for_all(scored: TinyProject) -> None:
    parts = [f"part-{i:05d}" for i in range(2)]
    of_first = {f"{part}.{PIXELS[0]}": False for part in parts}
    assert taken(scored) == {f"{part}.{name}": True for part in parts for name in PIXELS} | of_first
    assert not (scored.results("score") / FOLDER).exists()
    assert scored.planned("score") == set()


def test_what_is_made_for_others_has_the_bytes_that_their_own_jobs_make(changeable: TinyProject) -> None:
    before = contents(changeable)
    for name in PIXELS:
        for path in changeable.results("score").glob(f"part-*.{name}.*"):
            path.unlink()
        (changeable.results("score") / "manifest.json").unlink()
        changeable.run("snakemake", "score")
    assert not any(taken(changeable).values()) and len(taken(changeable)) == 2 * len(PIXELS)
    assert {name: body for name, (body, _) in contents(changeable).items()} == {
        name: body for name, (body, _) in before.items()
    }


def test_a_changed_option_scores_with_that_scorer_alone(changeable: TinyProject) -> None:
    before = contents(changeable)
    changeable.edit(DATASET, {"scorers": {"quality": {"side_px": 64}}})
    changeable.run("snakemake", "score")
    assert taken(changeable) == {"part-00000.quality": False, "part-00001.quality": False}
    after = contents(changeable)
    assert {name for name in after if after[name] != before[name]} == {
        f"part-{i:05d}.quality.{ending}" for i in range(2) for ending in ("json", "parquet")
    }
    # Of two that change, again one decodes.
    changeable.edit(DATASET, {"scorers": {"quality": {"side_px": 32}, "clip_similarity": {"batch_size": 8}}})
    changeable.run("snakemake", "score")
    assert {name: told for name, told in taken(changeable).items() if name.startswith("part-00000")} == {
        "part-00000.clip_similarity": False,
        "part-00000.quality": True,
    }


def test_killed_between_the_one_that_scores_and_those_that_wait_the_same_files_are_made(
    changeable: TinyProject,
) -> None:
    before = contents(changeable)
    folder = changeable.results("score")
    for path in folder.glob("part-*"):
        path.unlink()
    (folder / "manifest.json").unlink()
    killed = 0
    for ending in ("quality.parquet", "quality.json", "perceptual_hash.parquet", "clip_similarity.json"):
        driver = subprocess.Popen(
            ["snakemake", "score", "--cores", "1"], cwd=changeable.folder, env=changeable.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        while driver.poll() is None and not list((folder / FOLDER).glob(f"part-*.{ending}")):
            time.sleep(0.005)
        killed += driver.poll() is None
        # Never the program `kill`: procps' takes a group that begins with 1 for -1, all processes of the user.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert killed
    changeable.run("snakemake", "score")
    assert {name: body for name, (body, _) in contents(changeable).items()} == {
        name: body for name, (body, _) in before.items()
    }
    assert not (folder / FOLDER).exists()


def test_a_dry_run_notes_nothing(changeable: TinyProject) -> None:
    changeable.edit(DATASET, {"scorers": {"quality": {"side_px": 64}, "clip_similarity": {"batch_size": 8}}})
    output = changeable.run("snakemake", "-n", "score")
    assert set(re.findall(r"scorer=(\w+)", output)) == {"quality", "clip_similarity"}
    assert not (changeable.results("score") / FOLDER).exists()
