"""What a change of scorers and criteria makes again: never a download, and of the scores only its own."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from conftest import TinyProject, made_once

from darkroom.store import TarReader, read_manifest, read_table

pytestmark = pytest.mark.slow
DATASET = "config/datasets/demo.yaml"


@pytest.fixture(scope="module")
def filtered(
    make_tiny_project: Callable[[str], TinyProject], tmp_path_factory: pytest.TempPathFactory
) -> TinyProject:
    """A tiny project after `snakemake filter`."""
    project = make_tiny_project("filtered")
    # As inside `dvc repro`: what is recorded in DVC is tested elsewhere.
    project.variables = {"DVC_STAGE": "filter"}
    return made_once(project, tmp_path_factory, "snakemake", "filter")


@pytest.fixture
def changeable(filtered: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    """A copy of it that a test may change."""
    copy = filtered.copy(tmp_path / "copy")
    yield copy
    shutil.rmtree(copy.folder)


def planned(project: TinyProject) -> tuple[set[str], set[str]]:
    """The rules that `snakemake -n filter` would run, and the scorers that would be asked."""
    output = project.run("snakemake", "-n", "filter")
    rules = set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE)) - {"filter"}
    return rules, set(re.findall(r"scorer=(\w+)", output))


def test_a_criterion_changes_the_selection_alone_whatever_column_it_names(changeable: TinyProject) -> None:
    assert planned(changeable) == (set(), set())
    keep = changeable.read(DATASET)["keep"]
    for more in ({"column": "WIDTH", "min": 1}, {"column": "caption", "matches": "[a-z]"}):
        keep = [*keep, more]
        changeable.edit(DATASET, {"keep": keep})
        assert planned(changeable) == ({"filter_part", "filter_manifest"}, set())
    changeable.run("snakemake", "filter")
    folder = changeable.folder / "results/datasets/demo/filter"
    labels = set(read_manifest(folder / "manifest.json")["counts"]["dropped"])
    assert labels == {"download", *(each.get("name", each["column"]) for each in keep)}
    assert planned(changeable) == (set(), set())


def test_a_new_scorer_and_its_options_score_with_it_alone_and_fetch_nothing(changeable: TinyProject) -> None:
    changeable.edit(DATASET, {"scorers": {"caption": {}}})
    assert planned(changeable) == ({"score_part", "score_manifest", "filter_manifest"}, {"caption"})
    keep = [*changeable.read(DATASET)["keep"], {"column": "caption_words", "min": 3, "unknown": "drop"}]
    changeable.edit(DATASET, {"keep": keep})
    changeable.run("snakemake", "filter")
    dataset = changeable.folder / "results/datasets/demo"
    for part in ("part-00000", "part-00001"):
        told = read_table(dataset / f"filter/{part}.parquet").join(
            read_table(dataset / f"score/{part}.caption.parquet"), on="uid"
        )
        assert (told["caption_words"] < 3).fill_null(False).equals(told["fails_caption_words"])
        assert told.filter(status="ok")["caption_words"].null_count() == 0
    changeable.edit(DATASET, {"scorers": {"quality": {"side_px": 64}}})
    assert planned(changeable) == (
        {"score_part", "score_manifest", "filter_part", "filter_manifest"},
        {"quality"},
    )


def test_near_duplicates_are_told_from_hashes_that_stay(changeable: TinyProject) -> None:
    dataset = changeable.folder / "results/datasets/demo"
    told = read_table(dataset / "score/near_duplicate.parquet")
    copies = read_table(dataset / "score/duplicate.parquet").filter("duplicate")
    assert set(copies["row"]) < set(told.filter("near_duplicate")["row"])
    for part in ("part-00000", "part-00001"):
        found = read_table(dataset / f"filter/{part}.parquet").join(told, on="uid")
        assert found["near_duplicate"].fill_null(False).equals(found["fails_near_duplicate"])
    changeable.edit(DATASET, {"scorers": {"near_duplicate": {"max_bits": 20}}})
    rules = {"score_dataset", "score_manifest", "filter_part", "filter_manifest"}
    assert planned(changeable) == (rules, {"near_duplicate"})
    changeable.edit(DATASET, {"scorers": {"perceptual_hash": None}})
    output = changeable.run("snakemake", "-n", "filter", check=False)
    assert "scorers: near_duplicate works on what perceptual_hash says; list perceptual_hash too" in output


def test_pictures_of_a_reference_set_are_dropped_and_another_set_scores_with_that_scorer_alone(
    changeable: TinyProject,
) -> None:
    dataset, bench = changeable.folder / "results/datasets/demo", changeable.folder / "bench"
    table = read_table(dataset / "download/part-00001.parquet").filter(status="ok").sort("row")
    detail = read_table(dataset / "score/part-00001.perceptual_hash.parquet").filter(
        pl.col("phash_detail") >= 40
    )
    rows = table.filter(pl.col("row").is_in(detail["row"].implode())).head(3)
    bench.mkdir()
    with TarReader(dataset / "download/part-00001.tar") as tar:
        files = [tar.read(row["offset"], row["size"]) for row in rows.iter_rows(named=True)]
    (bench / "one.jpg").write_bytes(files[0])
    changeable.edit(DATASET, {"scorers": {"in_reference_set": {"sets": {"bench": "bench"}}}})
    keep = [{"column": "in_reference_set", "equals": False}, *changeable.read(DATASET)["keep"]]
    changeable.edit(DATASET, {"keep": keep})
    assert planned(changeable) == (
        {"score_references", "score_part", "score_manifest", "filter_part", "filter_manifest"},
        {"in_reference_set"},
    )
    changeable.run("snakemake", "filter")
    assert planned(changeable) == (set(), set())
    funnel = read_manifest(dataset / "filter/funnel.json")
    (step,) = (step for step in funnel["criteria"] if step["criterion"] == "in_reference_set")
    assert step["fails"] >= 1
    found = read_table(dataset / "score/part-00001.in_reference_set.parquet").filter(row=rows["row"][0])
    assert found.row(0)[2:] == (True, "bench", "local:one.jpg")
    judges = read_manifest(dataset / "score/manifest.json")["judges"]["in_reference_set"]
    assert judges["reference set bench"]["pictures"] == 1
    (bench / "two.jpg").write_bytes(files[1])
    rules, scorers = planned(changeable)
    assert {"score_references", "score_part"} <= rules and scorers == {"in_reference_set"}
    changeable.run("snakemake", "filter")
    found = read_table(dataset / "score/part-00001.in_reference_set.parquet").filter(row=rows["row"][1])
    assert found["reference_picture"].to_list() == ["local:two.jpg"]
    shutil.rmtree(bench)
    output = changeable.run("snakemake", "-n", "filter", check=False)
    assert "config/datasets/demo.yaml: scorers.in_reference_set.sets.bench: bench is no folder, tar" in output


def test_a_filter_that_keeps_nothing_fails_and_says_which_criterion(changeable: TinyProject) -> None:
    keep = [{"column": "min_side_px", "min": 40}, {"column": "aspect_ratio", "max": 0.5}]
    changeable.edit(DATASET, {"keep": keep})
    output = changeable.run("snakemake", "filter", check=False)
    assert re.search(r"nothing is kept of 211 rows; the last \d+ fell to 'aspect_ratio'", output)
    assert not (changeable.folder / "results/datasets/demo/filter/funnel.json").exists()


def test_a_criterion_on_a_column_that_is_not_there_fails_the_dry_run(changeable: TinyProject) -> None:
    changeable.edit(DATASET, {"keep": [{"column": "pwatermarks", "max": 0.5}]})
    output = changeable.run("snakemake", "-n", check=False)
    told = "config/datasets/demo.yaml: keep.0.column: no column 'pwatermarks'; did you mean 'pwatermark'?"
    assert told in output and "Traceback" not in output
