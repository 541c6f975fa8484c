"""A source that grows has only its new parts made, and the one that was not full, up to the buckets."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, TinyProject
from PIL import Image

sys.path.insert(0, str(ROOT / "workflow"))

from driver import settled

RULES = ("download_part", "score_part", "filter_part", "bucket_part")


def parts(project: TinyProject) -> dict[str, list[int]]:
    """Rule -> the parts that a plan up to the buckets makes."""
    output = project.run("snakemake", "-n", "bucket")
    found = re.findall(r"^rule (\w+_part):.*?part=part-(\d+)", output, re.M | re.S)
    return {rule: sorted(int(number) for name, number in found if name == rule) for rule in RULES}


def only(*numbers: int) -> dict[str, list[int]]:
    """These parts, of every rule."""
    return {rule: list(numbers) for rule in RULES}


@pytest.mark.slow
def test_of_a_source_that_grows_nothing_is_made_again_of_the_parts_that_were_full(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("grown")
    pictures = project.folder / "pictures"
    pictures.mkdir()

    def add(name: str, level: int) -> None:
        Image.new("RGB", (80, 80), (level, 40, 200 - level)).save(pictures / f"{name}.png")
        (pictures / f"{name}.txt").write_text(f"picture {name}")

    for number in range(5):
        add(f"{number}", 20 * number)
    dataset = project.read("config/datasets/demo.yaml")
    source = {"kind": "pictures", "folder": "pictures"}
    keep = [{"column": "duplicate", "equals": False}]
    values = {"source": source, "scorers": {"size": {}, "duplicate": {}}, "keep": keep, "rows_per_part": 2}
    project.write("config/datasets/demo.yaml", {**dataset, **values})
    project.run("snakemake", "bucket", "--quiet", "all")
    assert parts(project) == only()
    # A copy of the first picture behind all others: the first stays the original.
    add("5", 0)
    add("6", 110)
    assert parts(project) == only(2, 3)
    project.run("snakemake", "bucket", "--quiet", "all")
    assert parts(project) == only()
    # Another picture in the middle may be the original of a later one.
    add("3", 110)
    planned = parts(project)
    assert planned["download_part"] == [1] and planned["filter_part"] == [1, 2, 3]
    # Of what a run that was broken off has left, all that may have changed is still to be made.
    project.run("snakemake", "results/datasets/demo/download/part-00001.parquet", "--quiet", "all")
    assert parts(project)["filter_part"] == [1, 2, 3]
    project.run("snakemake", "bucket", "--quiet", "all")
    assert parts(project) == only()
    # What is asked to be made again is.
    forced = project.run("snakemake", "-n", "bucket", "-R", "download_part")
    assert len(re.findall(r"^rule filter_part:", forced, re.M)) == 4


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Path]]:
    """Of three parts the table and what was made from it, a second later each."""
    monkeypatch.chdir(tmp_path)
    made = [(tmp_path / f"table-{i}", tmp_path / f"kept-{i}") for i in range(3)]
    for i, pair in enumerate(made):
        for path, time in zip(pair, (100 + i, 200 + i), strict=True):
            path.touch()
            os.utime(path, (time, time))
    settled.note("mine", "options", ["a", "b", "c"])
    return made


def test_parts_are_settled_up_to_the_first_that_changed(files: list[tuple[Path, Path]]) -> None:
    more = [*files, (Path("table-3"), Path("kept-3"))]
    assert settled.num_settled("mine", "options", ["a", "b", "c"], files) == 3
    assert settled.num_settled("mine", "options", ["a", "b", "c", "d"], more) == 3
    assert settled.num_settled("mine", "options", ["a", "b"], files[:2]) == 2
    assert settled.num_settled("mine", "options", ["a", "x", "c"], files) == 1
    assert settled.num_settled("mine", "other options", ["a", "b", "c"], files) == 0
    assert settled.num_settled("another", "options", ["a", "b", "c"], files) == 0
    (settled.FOLDER / "mine.json").write_text('{"made_with": "options"')
    assert settled.num_settled("mine", "options", ["a", "b", "c"], files) == 0


def test_parts_behind_one_that_is_newer_or_missing_are_not_settled(files: list[tuple[Path, Path]]) -> None:
    # Newer than what was made of the second, not than that of the third.
    os.utime(files[1][0], (201.5, 201.5))
    assert settled.num_settled("mine", "options", ["a", "b", "c"], files) == 1
    os.utime(files[1][1], (300, 300))
    assert settled.num_settled("mine", "options", ["a", "b", "c"], files) == 3
    os.utime(files[0][0], (250, 250))
    assert settled.num_settled("mine", "options", ["a", "b", "c"], files) == 0
    os.utime(files[0][1], (250, 250))
    assert settled.num_settled("mine", "options", ["a", "b", "c"], files) == 2
    files[0][1].unlink()
    assert settled.num_settled("mine", "options", ["a", "b", "c"], files) == 0
