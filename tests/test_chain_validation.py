"""The whole chain with what a training is asked for besides: pictures held out, averages of other widths."""

import re
import shutil
from collections.abc import Iterator

import polars as pl
import pytest
from conftest import TinyProject

from darkroom.score.copies import pairs_of_copies
from darkroom.store import read_manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(finished_project: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyProject]:
    """A finished project with both."""
    project = finished_project.copy(tmp_path_factory.mktemp("asked") / "copy")
    # Copies stay, so that there are some on both sides.
    keep = [
        rule
        for rule in project.read("config/datasets/demo.yaml")["keep"]
        if "duplicate" not in rule["column"]
    ]
    dataset = project.read("config/datasets/demo.yaml") | {"keep": keep}
    project.write("config/datasets/demo.yaml", dataset)
    validation = {"share": 0.3, "every_steps": 3, "num_levels": 2}
    asked = {"validation": validation, "post_hoc_ema": {"snapshot_every_steps": 2}}
    project.edit("config/runs/demo.yaml", {"train": asked})
    project.variables = {"DARKROOM_RECORD_SAMPLES": "1"}
    project.run("snakemake", "report")
    yield project
    shutil.rmtree(project.folder)


def test_copies_are_held_out_together_and_the_report_tells_the_loss(project: TinyProject) -> None:
    counts = read_manifest(project.results("train") / "manifest.json")["counts"]
    tables = [pl.read_parquet(path) for path in sorted(project.results("cache").glob("part-*.parquet"))]
    cached = set(pl.concat(table.select("uid") for table in tables)["uid"])
    seen = set()
    for path in project.folder.glob("checkpoints/demo/*/samples-seen/rank-*.jsonl"):
        seen |= set(re.findall(r'\["([0-9a-f]{32})"', path.read_text()))
    assert len(seen) <= len(cached) - counts["held_out"] and seen < cached
    assert 0.1 * len(cached) < counts["held_out"] < 0.5 * len(cached)
    files = [
        path
        for name in ("duplicate", "near_duplicate")
        for path in project.results("score").glob(f"{name}.parquet")
    ]
    pairs = [pair for pair in pairs_of_copies(files) if set(pair) <= cached]
    assert pairs
    history = pl.read_parquet(project.results("train") / "history.parquet")
    measured = history.filter(pl.col("validation_loss").is_not_null())["step"].to_list()
    assert measured == sorted({*range(3, history.height + 1, 3), history.height})
    page = (project.results("report") / "report.html").read_text()
    assert f"On {counts['held_out']} pictures that no step shows" in page
    assert "validation loss" in (project.folder / "logs/runs/demo/train/train.log").read_text()


def test_a_trained_run_is_drawn_from_with_an_average_of_another_width(project: TinyProject) -> None:
    output = project.run("darkroom", "ema", "demo", "--width", "0.12", "--out", "averaged")
    num_steps = project.read("config/runs/demo.yaml")["train"]["num_steps"]
    assert f"averaged: width 0.12 from {2 * -(-num_steps // 2)} averages" in output
    model, averaged = project.results("train") / "model", project.folder / "averaged"
    files = [path.relative_to(averaged) for path in averaged.rglob("*") if path.is_file()]
    other = [str(path) for path in files if (averaged / path).read_bytes() != (model / path).read_bytes()]
    assert other == ["transformer/diffusion_pytorch_model.safetensors"] and len(files) > 5
    project.run("darkroom", "sample", "averaged", "a red circle", "--steps", "2", "--out", "drawn")
    assert (project.folder / "drawn/grid.png").is_file()
