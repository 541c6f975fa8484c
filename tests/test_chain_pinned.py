"""What becomes stale, on a whole chain: content, settings and versions; no edit during a run, no time of code."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TinyProject

from darkroom.store import read_manifest, read_table, sha256_json

pytestmark = pytest.mark.slow

FILTER = "results/datasets/demo/filter"
GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]


@pytest.fixture
def changeable(finished_project: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    """A copy of the finished project."""
    copy = finished_project.copy(tmp_path / "copy")
    # DVC leaves what it recorded read-only, and Snakemake refuses to plan to write that.
    for path in (copy.folder / "results").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield copy
    shutil.rmtree(copy.folder)


def append(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def edit_after_first_part(project: TinyProject, edit: Callable[[], object], *command: str) -> tuple[int, str]:
    """Exit code and output of a command during which `edit` is called, once a part of the filter is there."""
    driver = subprocess.Popen(command, cwd=project.folder, env=project.environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    end, made = time.monotonic() + 1200, list[Path]()
    while not made:
        assert driver.poll() is None and time.monotonic() < end, driver.communicate()[0]
        time.sleep(0.02)
        made = list((project.folder / FILTER).glob("part-?????.json"))
    assert len(made) == 1, "the edit comes too late to tell anything"
    edit()
    output, _ = driver.communicate(timeout=1200)
    return driver.returncode, output


def check_one_setting_throughout(project: TinyProject, min_side_px: int) -> None:
    """The filter's manifest, its parts' and their rows all have the threshold."""
    params = read_manifest(project.folder / FILTER / "manifest.json")["params"]
    assert [c["min"] for c in params["keep"] if c["column"] == "min_side_px"] == [min_side_px]
    for name in ("part-00000", "part-00001"):
        assert read_manifest(project.folder / FILTER / f"{name}.json")["settings"] == sha256_json(params)
        kept = read_table(project.folder / FILTER / f"{name}.parquet").filter("kept")
        sides = read_table(project.folder / f"results/datasets/demo/download/{name}.parquet")
        shorter = kept.join(sides, on=["uid", "row"]).select("width", "height").min_horizontal()
        assert shorter.min() >= min_side_px


def refilter(project: TinyProject) -> int:
    """Remove what the filter made; the threshold it has."""
    shutil.rmtree(project.folder / FILTER)
    keep = project.read("config/datasets/demo.yaml")["keep"]
    return next(int(criterion["min"]) for criterion in keep if criterion["column"] == "min_side_px")


def test_a_threshold_edited_between_two_parts_leaves_the_run_as_it_began(changeable: TinyProject) -> None:
    threshold = refilter(changeable)
    rc, output = edit_after_first_part(
        changeable,
        lambda: changeable.edit(
            "config/datasets/demo.yaml", {"keep": [{"column": "min_side_px", "min": 200}]}
        ),
        *("snakemake", "--cores", "1", "filter"),
    )
    assert rc == 0, output
    check_one_setting_throughout(changeable, threshold)
    planned = changeable.planned()
    assert {"filter_part", "filter_manifest"} <= planned and "score_part" not in planned
    changeable.run("snakemake", "filter")
    check_one_setting_throughout(changeable, 200)


def test_library_code_edited_between_two_parts_is_refused(changeable: TinyProject) -> None:
    refilter(changeable)
    edited = "src/darkroom/filter/selection.py"
    rc, output = edit_after_first_part(
        changeable,
        lambda: append(changeable.folder / edited, "# a comment\n"),
        *("snakemake", "--cores", "1", "filter"),
    )
    assert rc == 1
    assert (
        f"the code of this run changed while it ran: {edited}; put it back, or start snakemake again"
        in output
    )
    assert not (changeable.folder / FILTER / "manifest.json").exists()
    changeable.run("snakemake", "filter")


def test_parts_of_two_settings_are_refused_by_the_collecting_rule(changeable: TinyProject) -> None:
    part = changeable.folder / FILTER / "part-00001.json"
    part.write_text(part.read_text().replace(read_manifest(part)["settings"], "0" * 64))
    wrong = changeable.run("darkroom", "verify", "demo", check=False)
    assert "filter/part-00001.json: changed since" in wrong
    output = changeable.run("snakemake", "filter", check=False)
    assert "filter/part-00001.json: made with other settings" in output
    part.unlink()
    changeable.run("snakemake", "filter")
    changeable.run("darkroom", "verify", "demo")


def test_another_branch_looked_at_and_left_makes_nothing_stale(changeable: TinyProject) -> None:
    names = ("workflow/scripts/urls.py", "src/darkroom/download/stage.py")
    weights = "src/darkroom_demo/components/clip/model.safetensors"
    before = (changeable.folder / weights).read_bytes()
    changeable.run(*GIT, "switch", "-qc", "other")
    for name in names:
        append(changeable.folder / name, "\n")
    (changeable.folder / weights).write_bytes(b"others")
    changeable.run(*GIT, "commit", "-qam", "other")
    changeable.run(*GIT, "switch", "-q", "-")
    assert (changeable.folder / weights).read_bytes() == before
    assert changeable.planned() == set()
    assert changeable.planned("--profile", "profiles/slurm") == set()


def test_a_command_without_a_profile_makes_nothing_again_for_the_time_of_a_script(
    changeable: TinyProject,
) -> None:
    os.utime(changeable.folder / "workflow/scripts/urls.py")
    tar = changeable.folder / "results/datasets/demo/download/part-00000.tar"
    before = tar.stat()
    output = changeable.run("snakemake", "--profile", "none", "--cores", "1", check=False)
    assert "only code is newer than results/datasets/demo/urls.parquet" in output
    assert "--profile profiles/local" in output
    assert tar.stat() == before


def test_a_raised_version_makes_its_stage_and_what_follows_stale(changeable: TinyProject) -> None:
    follow = {"recaption_part", "recaption_manifest", "cache_part", "cache_manifest", "train_run"}
    follow |= {"draw_chunk", "draw_manifest", "measure_features", "measure_metric", "measure_manifest"}
    follow |= {"evaluate_run", "report_run"}
    package = changeable.folder / "src/darkroom"
    append(package / "recaption/__init__.py", "VERSION = 101\n")
    assert changeable.planned() == follow
    append(package / "filter/__init__.py", "VERSION = 102\n")
    selected = follow | {"filter_part", "filter_manifest", "bucket_part", "bucket_manifest"}
    selected |= {"measure_references"}
    assert changeable.planned() == selected
    append(package / "score/__init__.py", "VERSION = 103\n")
    assert changeable.planned() == selected | {"score_part", "score_dataset", "score_manifest"}
    wrong = changeable.run("darkroom", "verify", "demo", check=False)
    assert "filter/manifest.json: was made by another version of the stage than this code's" in wrong
